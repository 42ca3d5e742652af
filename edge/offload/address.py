"""Where an endpoint is: its URL, taken apart."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint's `root`, without a slash at its end, and the model that is asked for there."""

    root: str
    model: str

    @property
    def encrypted(self) -> bool:
        """Whether it is reached over TLS."""
        return self.root.startswith("https:")

    @property
    def on_loopback(self) -> bool:
        """Whether nothing that is sent there leaves the machine."""
        host = urlsplit(self.root).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def parse_address(url: str, model: str) -> Address:
    """An endpoint's root, for `model`, or one of its models, http://HOST:PORT/v2/models/NAME. Raises UsageError."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if port_is_valid and (parts.username or parts.password or parts.query or parts.fragment):
        raise UsageError("--offload: a URL with a user, a password, a query or a fragment is not accepted")
    if not port_is_valid or parts.scheme not in ("http", "https") or not parts.hostname or " " in parts.netloc:
        shown = "" if "@" in url else f" {url}"  # before it there may be a password
        raise UsageError(f"--offload{shown}: expected http://HOST:PORT or https://HOST/v2/models/NAME")
    path, _, name = parts.path.rstrip("/").removesuffix("/infer").removesuffix("/v2").partition("/v2/models/")
    return Address(f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}", name or model)
