"""Whom we trust and who we are: certificates for TLS, and a bearer token, which is said nowhere."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from urllib3.util.ssl_ import create_urllib3_context

from edge import tls
from edge.errors import UsageError
from edge.offload.address import Address

TOKEN_VARIABLE = "EDGE_OFFLOAD_TOKEN"
TOKEN_LIMIT_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where certificates, key and token are to be found, never what they are.

    The server's certificate is checked against `ca` (PEM) or the system's authorities. `pin`, "sha256:HEX", is the
    fingerprint that it must have besides, or, without `ca`, instead: then nobody need have signed it. `certificate` and
    `key` (PEM) are ours. The token is all of `token_file`, or EDGE_OFFLOAD_TOKEN, but for white space around it.
    """

    ca: str | None = None
    pin: str | None = None
    certificate: str | None = None
    key: str | None = None
    token_file: str | None = None

    def check(self, address: Address) -> None:
        """Refuse what cannot be before anything is sent. Raises UsageError."""
        given = {"--offload-ca": self.ca, "--offload-pin": self.pin, "--offload-cert": self.certificate}
        idle = next((flag for flag, value in given.items() if value), None)
        if idle is not None and not address.encrypted:
            raise UsageError(f"{idle} does nothing over {address.scheme}; use {address.secure_scheme}:// or leave it out")
        if self.token() is not None and not address.encrypted and not address.on_loopback:
            raise UsageError(
                f"--offload {address.root}: a token would cross the network in the clear; use {address.secure_scheme}://"
            )
        if self.pin is not None and address.by_grpc:
            raise UsageError("--offload-pin: gRPC looks at no fingerprint; give --offload-ca, or ask over https://")
        if address.encrypted:
            self.context()
        self.fingerprint()

    def fingerprint(self) -> str | None:
        """The pinned SHA-256 fingerprint, 64 hexadecimal digits. Raises UsageError."""
        if self.pin is None:
            return None
        digits = self.pin.removeprefix("sha256:").replace(":", "").lower()
        if not self.pin.startswith("sha256:") or not re.fullmatch("[0-9a-f]{64}", digits):
            raise UsageError(
                "--offload-pin: expected sha256: and 64 hexadecimal digits, as "
                "'openssl x509 -noout -fingerprint -sha256' prints after '='"
            )
        return digits

    def context(self) -> ssl.SSLContext:
        """What TLS connections are made with. Raises UsageError for files that cannot be used."""
        signed = self.ca is not None or self.pin is None
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if signed else ssl.CERT_NONE)
        if self.ca is not None:
            tls.trust(context, "--offload-ca", self.ca)
        elif signed:
            context.load_default_certs()
        if self.certificate is not None:
            tls.load_chain(context, "--offload", self.certificate, self.key)
        return context

    def authorities(self) -> bytes | None:
        """The certificates, PEM, that must have signed the server's: `ca`, or the system's; None where it has none."""
        if self.ca is not None:
            return Path(self.ca).read_bytes()
        places = ssl.get_default_verify_paths()
        if places.cafile:
            return Path(places.cafile).read_bytes()
        hashed = sorted(Path(places.capath).glob("*.[0-9]")) if places.capath else []
        return b"\n".join(path.read_bytes() for path in hashed) or None

    def own(self) -> tuple[bytes | None, bytes | None]:
        """Our key and certificate, PEM."""
        if self.certificate is None:
            return None, None
        return Path(self.key or self.certificate).read_bytes(), Path(self.certificate).read_bytes()

    def token(self) -> str | None:
        """The bearer token as it is now, so that one that is renewed is found. Raises UsageError."""
        if self.token_file is None:
            where, text = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "")
        else:
            where = f"--offload-token-file {self.token_file}"
            try:
                with Path(self.token_file).open("rb") as file:
                    text = file.read(TOKEN_LIMIT_BYTES).decode("ascii", "replace")
            except OSError as error:
                hint = f"write the token into it, or set {TOKEN_VARIABLE} instead"
                raise UsageError(f"{where}: {error.strerror}; {hint}") from None
        token = text.strip()
        if not token and self.token_file is None:
            return None
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UsageError(f"{where}: expected one bearer token of ASCII characters without spaces")
        return token
