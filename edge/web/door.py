"""The way in: what is refused, and how a token becomes a cookie."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from edge.web.auth import MAX_AGE_S, Access, token_of
from edge.web.messages import HEAD_BYTES, body_of, line
from edge.web.security import refusal
from edge.web.static_files import static_file

OPEN = ("/healthz", "/login", "/static/")
"""What needs no token."""
WRONG_S = 0.5
"""A wrong token is answered after so long."""
INDEX, LOGIN = "index.html", "login.html"


class Door:
    """Lets in whom `access` lets in, to the page itself as well."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @property
    def asks(self) -> bool:
        """Whether one signs in here."""
        return self._access.asks

    async def refused(self, request: Request) -> Response | None:
        """What a request is answered that may not be; None: it may."""
        path, headers = request.scope["path"], request.headers
        if sum(len(name) + len(value) for name, value in request.scope["headers"]) > HEAD_BYTES:
            return line(431, f"expected headers of at most {HEAD_BYTES} bytes")  # the parser looks only at those that go on
        refused = refusal(request.method, path, headers, self._access.local_host)
        if refused is not None:
            return line(refused.status, refused.line)
        if not self._access.asks or path == "/" or path.startswith(OPEN) or self._has_cookie(request):
            return None
        token = token_of(headers.get("authorization", "").encode("latin-1", "replace"))
        if token is None:
            return line(401, "a token is needed", {"www-authenticate": "Bearer"})
        return await self._tried(token)

    async def _tried(self, token: bytes) -> Response | None:
        """What is answered to a token; None: it is right."""
        locked_s = self._access.locked_s
        if locked_s:
            return line(429, "too many wrong tokens; wait a minute", {"retry-after": str(int(locked_s) + 1)})
        if self._access.right(token):
            return None
        await asyncio.sleep(WRONG_S)
        return line(401, "the token is wrong", {"www-authenticate": "Bearer"})

    def _has_cookie(self, request: Request) -> bool:
        cookies = "; ".join(request.headers.getlist("cookie"))
        return self._access.knows(cookies.encode("latin-1", "replace"))

    async def index(self, request: Request) -> Response:
        given = request.query_params.get("token")
        if given is not None:  # not to stay in the address bar and the history
            refused = await self._tried(given.encode("utf-8", "replace")) if self._access.asks else None
            return self._welcome(request) if refused is None else _login_page(refused)
        if not self._access.asks or self._has_cookie(request):
            return static_file(INDEX, request)
        token = token_of(request.headers.get("authorization", "").encode("latin-1", "replace"))
        if token is None:
            # after a link elsewhere, a browser does not send a strict cookie: let it ask once more, as our own page
            followed = request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
            again = {"refresh": "0; url=/"} if followed else {}
            return _login_page(line(401, "", {"www-authenticate": "Bearer", **again}))
        refused = await self._tried(token)
        return static_file(INDEX, request) if refused is None else _login_page(refused)

    async def login(self, request: Request) -> Response:
        if request.method != "POST":
            return RedirectResponse("/", 303)
        body = await body_of(request)
        try:
            fields = parse_qs(body, max_num_fields=10)
        except ValueError:
            raise HTTPException(400, "expected a form with a token") from None
        token = fields.get(b"token", [b""])[0].strip()
        refused = await self._tried(token) if self._access.asks else None
        return self._welcome(request) if refused is None else _login_page(refused)

    async def logout(self, request: Request) -> Response:
        await body_of(request)
        response = RedirectResponse("/", 303)
        self._set_cookie(request, response, "", 0)
        return response

    def _welcome(self, request: Request) -> Response:
        response = RedirectResponse("/", 303)
        if self._access.asks:
            self._set_cookie(request, response, self._access.cookie(), MAX_AGE_S)
        return response

    def _set_cookie(self, request: Request, response: Response, value: str, max_age_s: int) -> None:
        # a proxy before us may speak https for us; whoever lies about it keeps only their own cookie from themselves
        secure = request.scope["scheme"] == "https" or request.headers.get("x-forwarded-proto") == "https"
        response.set_cookie(self._access.cookie_name, value, max_age=max_age_s, httponly=True, secure=secure, samesite="strict")


def _login_page(refused: Response) -> Response:
    """The form, with the status that was to be answered."""
    response = static_file(LOGIN, None)
    if response.status_code != 200:
        return refused
    response.status_code = refused.status_code
    for name in ("retry-after", "www-authenticate", "refresh"):
        if name in refused.headers:
            response.headers[name] = refused.headers[name]
    response.headers["cache-control"] = "no-store"
    return response
