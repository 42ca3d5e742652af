"""Request bodies from strangers: bounded while they arrive, and bounded while they unpack."""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import ClientDisconnect, Request

from cloud.errors import RefusedError

READ_S = 30.0
DISCARD_BYTES = 64 << 20
"""How much of a body too large is read and thrown away, so that a client that sends before it reads gets the answer."""
ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Content-Encoding → zlib's window bits; HTTP's deflate is the zlib format (RFC 9110, 8.4.1.2)."""


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises RefusedError 413 beyond the limit and 408 when it takes over 30 s, and ClientDisconnect."""
    too_large = RefusedError(413, f"the request is larger than {limit_bytes} bytes; send smaller pictures or fewer of them")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit_bytes:
        await discard(request)
        raise too_large
    try:
        body = await asyncio.wait_for(_read(request, limit_bytes), READ_S)
    except asyncio.TimeoutError:
        raise RefusedError(408, f"the request did not arrive within {READ_S:g} s", {"Connection": "close"}) from None
    if body is None:
        raise too_large
    return body


async def discard(request: Request) -> None:
    """Throw away what is still to come of a body, unless it is endless or the client waits for leave to send it."""
    declared = request.headers.get("content-length", "0")
    if "expect" in request.headers or (declared.isdecimal() and int(declared) > DISCARD_BYTES):
        return
    try:
        await asyncio.wait_for(_read(request, 0), READ_S)
    except (asyncio.TimeoutError, ClientDisconnect):
        return


async def _read(request: Request, limit_bytes: int) -> bytes | None:
    """The body; None when there is more than the limit, of which as much as is bearable was thrown away."""
    chunks: list[bytes] = []
    size = 0
    more = True
    while more and size <= limit_bytes + DISCARD_BYTES:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= limit_bytes:
            chunks.append(chunk)
        else:
            chunks.clear()
    return b"".join(chunks) if size <= limit_bytes else None


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
