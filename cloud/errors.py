"""What the endpoint says no to, and with which status."""

from __future__ import annotations

from collections.abc import Mapping

from edge.errors import EdgeError


class RefusedError(EdgeError):
    """A request that is answered with `status` and the message as its error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
