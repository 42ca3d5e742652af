"""The routes of the Open Inference Protocol v2, over one served model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloud.body import discard, read_body, unpack
from cloud.errors import RefusedError
from cloud.line import Line
from cloud.served import Served
from edge import __version__
from edge.errors import DataError, EngineError
from edge.oip import ProtocolError

Handler = Callable[[Request], Awaitable[Response]]


def build_app(served: Served, line: Line, *, limit_bytes: int, say: Callable[[str], None] = lambda text: None) -> Starlette:
    """The ASGI application. `limit_bytes` bounds a request's body, `say` gets a line for each failure of our own."""
    endpoint = Endpoint(served, line, limit_bytes, say)
    model = "/v2/models/{model}"
    routes = [
        Route("/v2", endpoint.server),
        Route("/v2/", endpoint.server),
        Route("/v2/health/live", endpoint.live),
        Route("/v2/health/ready", endpoint.ready),
    ]
    for prefix in (model, model + "/versions/{version}"):
        routes += [
            Route(prefix, endpoint.metadata),
            Route(prefix + "/ready", endpoint.model_ready),
            Route(prefix + "/infer", endpoint.infer, methods=["POST"]),
        ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, RefusedError: _refused})
    app.router.redirect_slashes = False  # a redirect would be the one answer that is not JSON
    return app


class Endpoint:
    """What each route does."""

    def __init__(self, served: Served, line: Line, limit_bytes: int, say: Callable[[str], None]) -> None:
        self._served = served
        self._line = line
        self._limit_bytes = limit_bytes
        self._say = say

    async def server(self, request: Request) -> Response:
        """Who answers here."""
        return JSONResponse({"name": "edge-cloud", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """The model is loaded and has passed its golden check, or we would not be serving."""
        return JSONResponse({"ready": True})

    async def metadata(self, request: Request) -> Response:
        """What the model takes and gives."""
        return JSONResponse(self._model(request).metadata())

    async def model_ready(self, request: Request) -> Response:
        """As `ready`, for a model by name."""
        return JSONResponse({"name": self._model(request).name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """Pictures or tensors in, what the task's answers are out."""
        try:
            served = self._model(request)
            with self._line.place():
                body = await read_body(request, self._limit_bytes)
                answer, headers = await self._line.run(lambda: self._answer(served, body, request.headers))
            return Response(answer, headers=headers)
        except RefusedError as refusal:
            if refusal.status in (404, 503):
                await discard(request)
            return _error(refusal.status, str(refusal), refusal.headers)
        except (ProtocolError, DataError) as error:
            return _error(400, str(error))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except EngineError as error:
            self._say(str(error))
            return _error(500, str(error))
        except Exception as error:
            self._say(f"internal error on an inference request: {error!r:.200}")
            return _error(500, "internal error; the endpoint's own output says more")

    def _answer(self, served: Served, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        encoding = headers.get("content-encoding", "").strip().lower()
        return served.answer(unpack(body, encoding, self._limit_bytes), headers)

    def _model(self, request: Request) -> Served:
        served = self._served
        name, wanted = request.path_params["model"], request.path_params.get("version", served.version)
        if name != served.name:
            raise RefusedError(404, f"unknown model {name[:80]!a}; this endpoint serves {served.name}")
        if wanted != served.version:
            raise RefusedError(404, f"{served.name} has no version {wanted[:80]!a}; it has {served.version}")
        return served


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _error(error.status, str(error), error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{request.method} {request.url.path[:200]!a}: {error.detail}", error.headers)
