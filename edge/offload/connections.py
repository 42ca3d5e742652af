"""Connections on which an answer's head comes in time as a whole: a socket's own timeout is for each read of it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

GRACE_S = 0.25
"""A silent endpoint is the socket's own affair: it says why."""


class _PunctualConnection(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        cutting = threading.Timer((self.timeout or 0.0) + GRACE_S, self._cut)
        cutting.daemon = True
        cutting.start()
        try:
            return super().getresponse()
        finally:
            cutting.cancel()

    def _cut(self) -> None:
        with suppress(OSError, AttributeError):  # it may have been closed already
            self.sock.shutdown(socket.SHUT_RDWR)


class _PunctualSecureConnection(_PunctualConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _PunctualConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _PunctualSecureConnection


def punctual_pools(*, connections: int, **security: Any) -> PoolManager:
    """A pool of at most `connections` kept ones; `security` is what HTTPSConnectionPool takes."""
    pools = PoolManager(num_pools=1, maxsize=connections, retries=False, **security)
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pools
