"""Where the broker is, whom we trust and who we are: an address, TLS, a user and a password that is said nowhere."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from edge import tls
from edge.commands.options import RunOptions
from edge.errors import UsageError

PASSWORD_VARIABLE = "EDGE_MQTT_PASSWORD"
PASSWORD_LIMIT_BYTES = 65535
"""Of binary data in a packet: MQTT 5.0, section 1.5.6."""
PORTS = {"mqtt": 1883, "mqtts": 8883}
EXPECTED = "expected mqtts://HOST[:8883], or mqtt://HOST[:1883] without TLS"


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker to connect to; `tls` is None without encryption, `user` None where nobody logs in."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What may be said of it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def on_loopback(self) -> bool:
        """Whether what is sent stays on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def broker_of(options: RunOptions, say: Callable[[str], None]) -> Broker:
    """The broker that the options name. Raises UsageError for a URL, a file or a password that cannot be."""
    scheme, host, port = parse_address(options.mqtt or "")
    check_trust(scheme, options)
    user = options.mqtt_user
    if user is not None:
        check_user(user)
    broker = Broker(
        scheme,
        host,
        port,
        user,
        None if user is None else _password(options.mqtt_password_file),
        _context(options) if scheme == "mqtts" else None,
    )
    if broker.tls is None and broker.password is not None and not broker.on_loopback:
        say(f"mqtt: {broker.name}: the password and everything else cross the network in the clear; use mqtts://")
    return broker


def parse_address(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL. Raises UsageError; a URL with a password, however it is spelt, is not repeated in it."""
    if "@" in url:
        raise UsageError(
            "--mqtt: a URL with a user or a password is not accepted; give --mqtt-user, and the password in "
            f"--mqtt-password-file or {PASSWORD_VARIABLE}"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # what cannot be looked up
    except ValueError:
        raise UsageError(f"--mqtt {url}: {EXPECTED}") from None
    rest = parts.path.strip("/") or parts.query or parts.fragment
    plain = host.isascii() and host.isprintable() and not set(host) & set(" #?/\\%")
    if parts.scheme not in PORTS or not host or not plain or rest or port == 0 or not url.isprintable():
        raise UsageError(f"--mqtt {url}: {EXPECTED}")
    return parts.scheme, host, port or PORTS[parts.scheme]


def check_trust(scheme: str, options: RunOptions) -> None:
    """Refuse certificates where nothing is encrypted. Raises UsageError."""
    given = {"--mqtt-ca": options.mqtt_ca, "--mqtt-cert": options.mqtt_cert}
    idle = next((flag for flag, value in given.items() if value), None)
    if scheme == "mqtt" and idle is not None:
        raise UsageError(f"{idle} does nothing over mqtt; use mqtts:// or leave it out")


def check_user(user: str) -> None:
    """Refuse a name that nobody can log in under. Raises UsageError."""
    if not user or not user.isprintable() or len(user.encode()) > PASSWORD_LIMIT_BYTES:
        raise UsageError("--mqtt-user: expected a name of printable characters")


def _password(path: str | None) -> str | None:
    """The password, but for the end of its line; None where there is none. Raises UsageError."""
    if path is None:
        where, text = PASSWORD_VARIABLE, os.environ.get(PASSWORD_VARIABLE)
        if text is None:
            return None
    else:
        where = f"--mqtt-password-file {path}"
        try:
            with Path(path).open("rb") as file:
                text = file.read(PASSWORD_LIMIT_BYTES + 2).decode()
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}; write the password into it, or set {PASSWORD_VARIABLE}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{where}: is not UTF-8; write the password into it, as text") from None
    password = text.rstrip("\r\n")
    if not password or "\n" in password or "\0" in password or len(password.encode()) > PASSWORD_LIMIT_BYTES:
        raise UsageError(f"{where}: expected one line, the password")
    return password


def _context(options: RunOptions) -> ssl.SSLContext:
    """TLS 1.2 at least; the broker's certificate must be signed and bear its name. Raises UsageError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _ClosedOnFailure
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.mqtt_ca is None:
        context.load_default_certs()
    else:
        tls.trust(context, "--mqtt-ca", options.mqtt_ca)
    if options.mqtt_cert is not None:
        tls.load_chain(context, "--mqtt", options.mqtt_cert, options.mqtt_key)
    return context


class _ClosedOnFailure(ssl.SSLSocket):
    """A socket that is closed when its handshake fails: paho leaves that to the garbage collector.

    A peer that hangs up meanwhile is an SSLEOFError, however it does so.
    """

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ConnectionError as error:
            self.close()
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection was lost") from error
        except BaseException:
            self.close()
            raise
