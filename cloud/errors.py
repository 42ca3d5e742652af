"""What the endpoint says no to, and with which status."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edge.errors import EdgeError


class RefusedError(EdgeError):
    """A request that is answered with `status` and the message as its error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


class BusyError(RefusedError):
    """429: more is asked than can be answered in time; `retry_s` is when it is worth asking again."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(429, message, {"Retry-After": str(max(1, math.ceil(retry_s)))})

    @classmethod
    def wait(cls, wait_s: float, limit_s: float) -> BusyError:
        """Of a request that would wait for `wait_s`."""
        return cls(f"a request would wait {wait_s:.1f} s, at most {limit_s:g} s are accepted; try again then", wait_s)


class RetiredError(EdgeError):
    """A model that takes no more work, because another version of it has taken its place."""
