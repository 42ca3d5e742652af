"""Request bodies from strangers: bounded while they arrive, and bounded while they unpack."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from cloud.admission import Share
from cloud.errors import RefusedError

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
READ_S = 30.0
"""A body takes no longer than this,"""
STALL_S = 10.0
"""and pauses no longer than this."""
DISCARD_BYTES = 64 << 20
"""How much of a body too large is read and thrown away, so that a client that sends before it reads gets the answer."""
ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Content-Encoding → zlib's window bits; HTTP's deflate is the zlib format (RFC 9110, 8.4.1.2)."""


class LeftError(Exception):
    """The client is gone; nobody reads an answer."""


async def read_body(receive: Receive, headers: Mapping[str, str], limit_bytes: int, share: Share) -> bytes:
    """The whole body, its bytes held in `share` as they arrive.

    Raises RefusedError 413 beyond the limit, 408 when it takes over 30 s or pauses for 10, BusyError when the share cannot
    grow, and LeftError.
    """
    too_large = RefusedError(413, f"the request is larger than {limit_bytes} bytes; send smaller pictures or fewer of them")
    if declared_bytes(headers) > limit_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    until_s = asyncio.get_running_loop().time() + READ_S
    more = True
    while more:
        chunk, more = await _receive(receive, until_s)
        size += len(chunk)
        if size > limit_bytes:
            raise too_large
        share.take(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def discard(receive: Receive, headers: Mapping[str, str]) -> None:
    """Throw away what is still to come of a body, unless it is endless or the client waits for leave to send it."""
    if "expect" in headers or declared_bytes(headers) > DISCARD_BYTES:
        return
    until_s = asyncio.get_running_loop().time() + READ_S
    size, more = 0, True
    try:
        while more and size <= DISCARD_BYTES:
            chunk, more = await _receive(receive, until_s)
            size += len(chunk)
    except (RefusedError, LeftError):
        return


def declared_bytes(headers: Mapping[str, str]) -> int:
    """What Content-Length says; 0 for none, or none that is a number."""
    declared = headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 19 else 0


async def _receive(receive: Receive, until_s: float) -> tuple[bytes, bool]:
    with within(min(STALL_S, READ_S, until_s - asyncio.get_running_loop().time())):
        message = await receive()
    if message["type"] == "http.disconnect":
        raise LeftError
    return message.get("body", b""), message.get("more_body", False)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises RefusedError 408 within what takes longer; asyncio.timeout came with 3.11, wait_for costs a task."""
    task = asyncio.current_task()
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        yield
    except asyncio.CancelledError:
        if not expired:
            raise
        if hasattr(task, "uncancel"):
            task.uncancel()
        raise RefusedError(
            408, f"the request did not arrive within {READ_S:g} s, or paused for {STALL_S:g}", {"Connection": "close"}
        ) from None
    finally:
        timer.cancel()


def unpack(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The body as it was before Content-Encoding. Raises RefusedError 415, 413 beyond the limit, 400 when it is damaged."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ENCODINGS:
        raise RefusedError(415, f"Content-Encoding {encoding[:80]!a} is not supported; use gzip, deflate or none")
    stream = zlib.decompressobj(ENCODINGS[encoding])
    try:
        unpacked = stream.decompress(body, limit_bytes + 1)
    except zlib.error:
        raise RefusedError(400, f"the body is not {encoding}, as its Content-Encoding says") from None
    if len(unpacked) > limit_bytes:
        raise RefusedError(413, f"the request unpacks to more than {limit_bytes} bytes; send smaller pictures or fewer of them")
    if not stream.eof or stream.unused_data:
        raise RefusedError(400, f"the {encoding} body is cut short or goes on after its end")
    return unpacked
