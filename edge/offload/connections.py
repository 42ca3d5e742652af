"""Connections on which an answer comes in time as a whole: a socket's own timeout is for each read of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class _PunctualConnection(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        self.cutting = threading.Timer(self.timeout or 0.0, _cut, [self.sock])
        self.cutting.daemon = True
        self.cutting.start()
        try:
            return super().getresponse()
        except BaseException:
            self.cutting.cancel()
            raise


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):  # it may have been closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own would change what another thread is reading with


class _PunctualSecureConnection(_PunctualConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _PunctualConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _PunctualSecureConnection


@contextmanager
def punctual(response: BaseHTTPResponse) -> Iterator[None]:
    """While a body is read; at the request's deadline it is cut off, which looks like its end or a broken connection."""
    connection = response.connection  # once the body has ended others may have it
    cutting = connection.cutting if isinstance(connection, _PunctualConnection) else None
    try:
        yield
    finally:
        if cutting is not None:
            cutting.cancel()


def punctual_pools(*, connections: int, **security: Any) -> PoolManager:
    """A pool of at most `connections` kept ones; `security` is what HTTPSConnectionPool takes."""
    pools = PoolManager(num_pools=1, maxsize=connections, retries=False, **security)
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pools
