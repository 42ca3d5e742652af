"""The page's own files, which a browser keeps and asks about each time."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
SCRIPTS = (
    "page.js",
    "board.js",
    "words.js",
    "connection.js",
    "picture.js",
    "panels.js",
    "moments.js",
    "controls.js",
    "theme.js",
    "door.js",
)
KINDS = {
    "index.html": "text/html; charset=utf-8",
    "login.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(SCRIPTS, "text/javascript; charset=utf-8"),
}
PAGES = ("index.html", "login.html")
"""Served at addresses of their own."""


async def answer_static(request: Request) -> Response:
    """A file below /static."""
    name = request.path_params["name"]
    return _missing() if name in PAGES else static_file(name, request)


def static_file(name: str, request: Request | None) -> Response:
    """A file of the page; 304 for a browser that has it, 404 for what is none."""
    found = _read(name) if name in KINDS else None
    if found is None:
        return _missing()
    body, tag = found
    headers = {"etag": tag, "cache-control": "no-cache, must-revalidate"}
    if request is not None and tag in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers={**headers, "content-type": KINDS[name]})


@cache
def _read(name: str) -> tuple[bytes, str] | None:
    try:
        body = (FOLDER / name).read_bytes()
    except OSError:
        return None
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _missing() -> Response:
    return Response("not found\n", 404, media_type="text/plain")
