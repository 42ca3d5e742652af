"""Where the page is served: `[HOST:]PORT`, taken apart and bound."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any

from edge.errors import UsageError

EXPECTED = "expected PORT or HOST:PORT, as in 8080, 0.0.0.0:8080 or [::1]:8080"
BACKLOG = 16
SEND_BYTES = 128 << 10
"""What the kernel holds for a viewer who is slow: more would be pictures of the past."""


@dataclass(frozen=True, slots=True)
class Place:
    """A host, without brackets, and a port; 0: the kernel chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Place:
    """`PORT`, which is on loopback, or `HOST:PORT`, with an IPv6 address in brackets. Raises UsageError."""
    found = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([\w.-]+)):)?([0-9]{1,5})", text, re.ASCII)
    if found is None or int(found[3]) > 65535:
        raise UsageError(f"--web {text}: {EXPECTED}")
    if found[1] is not None:
        try:
            ipaddress.IPv6Address(found[1])
        except ValueError:
            raise UsageError(f"--web {text}: [{found[1]}] is no IPv6 address; {EXPECTED}") from None
    return Place(found[1] or found[2] or "127.0.0.1", int(found[3]))


def listen(place: Place) -> socket.socket:
    """A listening socket there. Raises UsageError for a host that cannot be and a port that is taken."""
    family, address = _resolve(place)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)  # whom it accepts inherits both
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(f"--web {place}: {_why(error)}") from None
    return listener


def on_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url_of(listener: socket.socket, place: Place, scheme: str) -> str:
    """The page's URL: by this machine's name where every address of it is listened at."""
    host = place.host
    try:
        if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
            host = socket.gethostname()
    except ValueError:
        pass
    return f"{scheme}://{Place(host, listener.getsockname()[1])}/"


def _resolve(place: Place) -> tuple[int, Any]:
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "not a host name"
        raise UsageError(f"--web {place}: {why}; give an address of this machine, or 0.0.0.0 for every one") from None
    best = min(found, key=lambda one: one[0] != socket.AF_INET)  # "localhost" is 127.0.0.1 to most programs
    return best[0], best[4]


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "something listens there already; choose another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "is no address of this machine; give one, or 0.0.0.0 for every one"
    if error.errno == errno.EACCES:
        return "ports below 1024 are for root; choose another, such as 8080"
    return f"{error.strerror}; choose another address"
