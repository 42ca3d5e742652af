"""Where an endpoint is: its URL, taken apart."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from edge.errors import UsageError

GRPC = ("grpc", "grpcs")
EXPECTED = "http://HOST:PORT, grpc://HOST:PORT/NAME or https://HOST/v2/models/NAME"
DEFAULT_PORT = ":8000"
"""edge-cloud's."""


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint's `root`, without a slash at its end, and the model that is asked for there."""

    root: str
    model: str

    @property
    def encrypted(self) -> bool:
        """Whether it is reached over TLS."""
        return self.root.startswith(("https:", "grpcs:"))

    @property
    def by_grpc(self) -> bool:
        """Whether it is asked by gRPC."""
        return self.root.startswith("grpc")

    @property
    def scheme(self) -> str:
        """`http` or `grpc`, without TLS, and with."""
        return self.root.partition(":")[0]

    @property
    def secure_scheme(self) -> str:
        """The scheme with TLS."""
        return "grpcs" if self.by_grpc else "https"

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return urlsplit(self.root).netloc

    def named(self, name: str) -> str:
        """The URL of a model there."""
        return f"{self.root}/{name}" if self.by_grpc else f"{self.root}/v2/models/{name}"

    @property
    def on_loopback(self) -> bool:
        """Whether nothing that is sent there leaves the machine."""
        host = urlsplit(self.root).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def parse_address(url: str, model: str) -> Address:
    """An endpoint's root, for `model`, or one of its models. Raises UsageError.

    By HTTP a model is http://HOST:PORT/v2/models/NAME, by gRPC grpc://HOST:PORT/NAME.
    """
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if port_is_valid and (parts.username or parts.password or parts.query or parts.fragment):
        raise UsageError("--offload: a URL with a user, a password, a query or a fragment is not accepted")
    if not port_is_valid or parts.scheme not in ("http", "https", *GRPC) or not parts.hostname or " " in parts.netloc:
        shown = "" if "@" in url else f" {url}"  # before it there may be a password
        raise UsageError(f"--offload{shown}: expected {EXPECTED}{_scheme_hint(url)}")
    if parts.scheme in GRPC:
        return _grpc_address(url, parts, model)
    path, _, name = parts.path.rstrip("/").removesuffix("/infer").removesuffix("/v2").partition("/v2/models/")
    return Address(f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}", name or model)


def _scheme_hint(url: str) -> str:
    """What was meant, where only the scheme is missing."""
    host = re.fullmatch(r"([\w.-]+)(:\d+)?(/.*)?", url)
    return f"; try --offload http://{host[1]}{host[2] or DEFAULT_PORT}{host[3] or ''}" if host else ""


def _grpc_address(url: str, parts: SplitResult, model: str) -> Address:
    name = parts.path.strip("/").removeprefix("v2/models/")
    if parts.port is None or "/" in name:
        raise UsageError(f"--offload {url}: expected {parts.scheme}://HOST:PORT/NAME")
    return Address(f"{parts.scheme}://{parts.netloc}", name or model)
