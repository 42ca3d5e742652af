"""The page's addresses, and what each of them answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from edge import __version__
from edge.errors import one_line
from edge.monitor import Monitor
from edge.status import ControlsStatus, History, Status
from edge.web.auth import Access
from edge.web.door import Door
from edge.web.messages import Streamed, body_of, line, unless_left, whole
from edge.web.moments import Moment, Moments
from edge.web.preview import Preview
from edge.web.security import HEADERS
from edge.web.static_files import answer_static
from edge.web.turning import Turned, turn

VIEWERS = 8
WAITING = 12
"""Viewers and those who wait for one picture, together: places are left for others."""
PATIENCE_S = 5.0
EVERY_S = 1.0
OVERLAP = 5
HEALTHY_S = 10.0
NEW_S = 0.5
"""A status serves all who ask within so long."""
BOUNDARY = b"edge-frame"


class Session(msgspec.Struct, frozen=True):
    """What concerns the viewers; `signed_in`: there is a cookie to be given back."""

    viewers: int
    controllable: bool
    version: str
    signed_in: bool


class App:
    """An ASGI application over what `monitor`, `preview` and `moments` have.

    `open` and `end` say when the loop begins to run and when its viewers must go. A failure is said once for each kind,
    and its request answered by 500.
    """

    def __init__(
        self, monitor: Monitor, preview: Preview, moments: Moments, access: Access, say: Callable[[str], None]
    ) -> None:
        self.viewers = 0
        self._waiting = 0
        self._ended = False
        self._monitor, self._preview, self._moments, self._door, self._say = monitor, preview, moments, Door(access), say
        self._said: set[type[Exception]] = set()
        self._status: tuple[float, Status] | None = None
        self._router = Router(
            [
                Route("/", self._door.index),
                Route("/static/{name}", answer_static),
                Route("/status.json", self._status_json),
                Route("/updates", self._updates),
                Route("/frame.jpg", self._frame),
                Route("/stream.mjpg", self._stream),
                Route("/moments/{name}", self._moment),
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/controls", self._controls, methods=["POST"]),
                Route("/login", self._door.login, methods=["GET", "POST"]),
                Route("/logout", self._door.logout, methods=["POST"]),
            ],
            redirect_slashes=False,
        )

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """The server's loop runs."""
        for bell in (*self._preview.bells, self._moments.bell):
            bell.hang(loop)

    def end(self) -> None:
        """Let all who wait go."""
        self._ended = self._preview.ended = True
        for bell in (*self._preview.bells, self._moments.bell):
            bell.ring()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        names = {name for name, _ in scope["headers"]}
        bodiless = scope["method"] in ("GET", "HEAD") and not names & {b"content-length", b"transfer-encoding"}
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                given = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
                if not bodiless and message["status"] >= 400:
                    more.append((b"connection", b"close"))  # whatever else is sent is not waited for
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            response = await self._door.refused(Request(scope, receive))
            await (self._router if response is None else response)(scope, receive, guarded)
        except HTTPException as error:
            await line(error.status_code, error.detail, error.headers)(scope, receive, guarded)
        except ClientDisconnect:
            return
        except Exception as error:
            if type(error) not in self._said:
                self._said.add(type(error))
                self._say(one_line(f"web: {scope['path'][:80]}: {type(error).__name__}: {error}"))
            if not begun:
                await line(500, "the page failed; the loop goes on")(scope, receive, guarded)

    async def _status_json(self, request: Request) -> Response:
        return _json(self._told(self._now(), self._moments.newest()))

    async def _updates(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return self._viewing(self._updated(), "text/event-stream")

    async def _updated(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events (WHATWG HTML, 9.2): the status once a second, and moments as they happen."""
        moments = self._moments.newest()
        last_id = moments[-1].id if moments else 0
        yield b"retry: 1000\n\n" + _sent("status", self._told(self._now(), moments))
        next_s = time.monotonic() + EVERY_S
        while not self._ended:
            await self._moments.bell.wait(next_s - time.monotonic())
            for moment in self._moments.since(last_id):
                last_id = moment.id
                yield _sent("moment", msgspec.json.encode(moment))
            now_s = time.monotonic()
            if now_s >= next_s and not self._ended:
                next_s = max(next_s + EVERY_S, now_s)
                yield _sent("status", self._told(_brief(self._now()), self._moments.newest()))

    async def _frame(self, request: Request) -> Response:
        source, after = self._source(request), whole(request.query_params.get("after", "-1"))
        if request.method == "HEAD":
            return Response(media_type="image/jpeg")
        self._expect_place(False)
        self._waiting += 1
        try:
            picture = None if self._ended else await unless_left(request, self._preview.next(source, after, PATIENCE_S))
        finally:
            self._waiting -= 1
        if picture is None:
            return Response(status_code=204)
        headers = {"x-edge-seq": str(picture.seq), "x-edge-age-ms": f"{self._preview.age_ms(picture):.1f}"}
        return Response(picture.jpeg, media_type="image/jpeg", headers=headers)

    async def _stream(self, request: Request) -> Response:
        source, media_type = self._source(request), f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}"
        if request.method == "HEAD":
            return Response(media_type=media_type)
        return self._viewing(self._streamed(source), media_type)

    async def _streamed(self, source: int) -> AsyncGenerator[bytes, None]:
        """One part a picture; the boundary follows at once, for a browser shows a part when it has come to its end."""
        after = -1
        yield b"--" + BOUNDARY + b"\r\n"
        while not self._ended:
            picture = await self._preview.next(source, after, PATIENCE_S, words=True)
            if picture is None or self._ended:
                continue
            after = picture.seq
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n".encode()
            yield head + picture.jpeg + b"\r\n--" + BOUNDARY + b"\r\n"

    async def _moment(self, request: Request) -> Response:
        name, _, suffix = request.path_params["name"].rpartition(".")
        jpeg = self._moments.picture(whole(name)) if suffix == "jpg" else None
        if jpeg is None:
            raise HTTPException(404, "no such picture, or it is gone")
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400, immutable"})

    async def _metrics(self, request: Request) -> Response:
        from edge.web.metrics import exposition  # it brings prometheus_client, for which a page need not wait

        body, kind = exposition(self._monitor, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    async def _healthz(self, request: Request) -> Response:
        status = self._now()
        since_s = time.monotonic() - (self._status or (0.0, status))[0]
        recent = any(one.quiet_s is not None and one.quiet_s + since_s < HEALTHY_S for one in status.sources)
        return line(200, "ok") if recent or status.controls.paused else line(503, "no result for a while")

    async def _controls(self, request: Request) -> Response:
        turned: Turned = turn(self._monitor.controls, await body_of(request))
        if turned.trouble:
            return Response(msgspec.json.encode({"error": turned.trouble}), turned.status, media_type="application/json")
        self._status = None
        controls: ControlsStatus = self._now().controls
        return _json(msgspec.json.encode(controls))

    def _source(self, request: Request) -> int:
        """The place of the source that is asked for."""
        number = whole(request.query_params.get("source", "1"))
        if not 1 <= number <= len(self._preview.bells):
            raise HTTPException(404, f"there are sources 1 to {len(self._preview.bells)}")
        return number - 1

    def _viewing(self, parts: AsyncGenerator[bytes, None], media_type: str) -> Response:
        """An answer for one more viewer, who is counted until it ends."""
        self._expect_place(self.viewers >= VIEWERS)
        self.viewers += 1

        def left() -> None:
            self.viewers -= 1

        return Streamed(parts, media_type, left)

    def _expect_place(self, full: bool) -> None:
        if full or self.viewers + self._waiting >= WAITING:
            raise HTTPException(503, "too many viewers", {"retry-after": "2"})

    def _now(self) -> Status:
        now_s = time.monotonic()
        if self._status is None or now_s - self._status[0] > NEW_S:
            self._status = now_s, self._monitor.status()
        return self._status[1]

    def _told(self, status: Status, moments: list[Moment]) -> bytes:
        session = Session(self.viewers, True, __version__, self._door.asks)
        return msgspec.json.encode({"status": status, "moments": moments, "session": session})


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _sent(event: str, data: bytes) -> bytes:
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"  # msgspec writes no line breaks


def _brief(status: Status) -> Status:
    """With the newest seconds of the history only: more than one, for messages and seconds do not go in step."""
    history = status.history
    columns = [name for name in History.__struct_fields__ if name != "end"]
    newest = msgspec.structs.replace(history, **{name: getattr(history, name)[-OVERLAP:] for name in columns})
    return msgspec.structs.replace(status, history=newest)
