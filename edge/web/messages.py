"""Short answers, short bodies, numbers of bounded length, and answers that do not end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

HEAD_BYTES = 16 << 10
BODY_BYTES = 4096
BODY_S = 5.0
T = TypeVar("T")


def line(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of one line."""
    return Response(f"{text}\n", status, headers, media_type="text/plain")


async def body_of(request: Request) -> bytes:
    """A short body that comes in good time. Raises HTTPException."""
    try:
        return await asyncio.wait_for(_read(request), BODY_S)
    except asyncio.TimeoutError:
        raise HTTPException(408, "the body took too long") from None


async def _read(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise HTTPException(413, f"expected at most {BODY_BYTES} bytes")
    return body


def whole(text: str) -> int:
    """A whole number of bounded length, -1 at least. Raises HTTPException."""
    digits = text.removeprefix("-") if text == "-1" else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise HTTPException(400, "expected a whole number")
    return int(text)


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, which is cancelled when the viewer goes; then None."""
    done, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({done, left}, return_when=asyncio.FIRST_COMPLETED)
        return done.result() if done.done() else None
    finally:
        done.cancel()
        left.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Streamed(StreamingResponse):
    """An answer that does not end by itself; `left` is called when it has, also when the viewer goes while it is sent to."""

    def __init__(self, parts: AsyncGenerator[bytes, None], media_type: str, left: Callable[[], None]) -> None:
        super().__init__(parts, media_type=media_type)
        self._parts, self._left = parts, left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until there is no more, or nobody."""
        # by 2.4, uvicorn 0.30 and 0.31 claim that sending to nobody fails, but it does not: listen for the viewer's leaving
        asgi = {**scope["asgi"], "spec_version": "2.3"}
        try:
            async with aclosing(self._parts):
                await super().__call__({**scope, "asgi": asgi}, receive, send)
        finally:
            self._left()
