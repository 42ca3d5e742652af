"""What browsers are told not to do, and which of their requests are somebody else's doing."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=(), payment=()",
    "cache-control": "no-store",
}
"""On every answer, unless it has one of its own."""
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
FORMS = ("/login", "/logout")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status and a line that says why."""

    status: int
    line: str


def refusal(method: str, path: str, headers: Mapping[str, str], local_host: str | None) -> Refusal | None:
    """Why a request is refused whoever sends it; None: it is not. Names of headers in lower case.

    A page without a token, served as `local_host`, is asked for under a name of this machine only: a stranger's page whose
    own name was made to point here (DNS rebinding) is not. What changes something comes from our own page, as the Origin and
    Fetch Metadata headers have it, or from a program that sends neither; what other sites embed is not theirs to see.
    """
    if "content-length" in headers and "transfer-encoding" in headers:
        return Refusal(400, "the body has two lengths")  # a proxy may have believed the other one (RFC 9112, 6.3)
    host = headers.get("host", "")
    if local_host is not None and not is_local(host, local_host):
        return Refusal(403, "this page has no token and is for this machine only; ask for it as localhost")
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest", "document") == "document"
        followed = page and method in ("GET", "HEAD")
        if not followed:
            return Refusal(403, "other sites may not ask this one")
    if method in ("GET", "HEAD"):
        return None
    origin = headers.get("origin")
    if origin is not None and not _same(origin, host):
        return Refusal(403, "the request comes from another site")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    expected = FORM if path in FORMS else JSON
    if method == "POST" and kind != expected:
        return Refusal(415, f"expected Content-Type: {expected}")
    return None


def is_local(host: str, local_host: str) -> bool:
    """Whether a Host header names this machine: localhost, a loopback address, or the host that the page is served at."""
    if not (host.isascii() and host.isprintable()):  # urlsplit drops tabs
        return False
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.path or parts.query or parts.fragment or "@" in host:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in ("localhost", local_host.lower())


def _same(origin: str, host: str) -> bool:
    """Whether an Origin is of this host and port. The scheme may differ: a proxy before us may have the certificate."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()
