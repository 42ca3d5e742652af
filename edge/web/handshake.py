"""The first byte on a port that speaks TLS: whoever speaks plain HTTP there is told so."""

from __future__ import annotations

import asyncio
import re
import socket

READ_BYTES = 4096
HOST = re.compile(rb"\r\nhost:[ \t]*([A-Za-z0-9._\[\]:-]{1,255})[ \t]*\r\n", re.IGNORECASE)


async def begins_handshake(loop: asyncio.AbstractEventLoop, connection: socket.socket, patience_s: float) -> bool:
    """Whether something like a handshake begins, nothing of which is read; otherwise the connection is closed.

    A request in plain HTTP begins with a letter, the method's (RFC 9112, 3); a TLS record with 22 (RFC 8446, 5.1). Raises
    OSError, and asyncio.TimeoutError for who says nothing.
    """
    begins = False
    try:
        await asyncio.wait_for(_readable(loop, connection), patience_s)
        first = connection.recv(1, socket.MSG_PEEK)
        begins = bool(first) and not first.isalpha()
        if first and not begins:
            connection.send(_answer(connection.recv(READ_BYTES)))
            connection.shutdown(socket.SHUT_WR)
    finally:
        if not begins:
            connection.close()
    return begins


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)


def _answer(request: bytes) -> bytes:
    host = HOST.search(request)
    body = b"this port speaks https: " + (b"open https://" + host[1] + b"/\n" if host else b"ask with https://\n")
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
