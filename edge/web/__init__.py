"""The live page: what the loop sees and does, in a browser, and /metrics beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import UsageError
from edge.monitor import Monitor

if TYPE_CHECKING:
    from edge.web.sink import WebSink

PACKAGES = ("starlette", "uvicorn", "h11", "anyio")


def open_web(
    *,
    address: str,
    token_file: str | None,
    cert: str | None,
    key: str | None,
    fps: float,
    monitor: Monitor,
    say: Callable[[str], None],
) -> WebSink:
    """Serve the page at `address`, [HOST:]PORT, on a thread of its own, until the sink is closed.

    Viewers are shown at most `fps` pictures a second of each source. Says the page's URL once it listens. Raises
    UsageError: an address that cannot be or is taken, one beyond loopback without a token, a file that cannot be used.
    """
    from edge.web.address import listen, parse_address
    from edge.web.auth import Access, check_exposure, read_token
    from edge.web.tls import context_of

    place = parse_address(address)
    token = read_token(token_file, say)
    context = context_of(cert, key)
    try:
        from edge.web.sink import WebSink
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        if error.name in PACKAGES:
            raise UsageError("--web: starlette and uvicorn are not installed; pip install 'edge-run[web]'") from None
        # the server is built on parts of uvicorn that it may move
        raise UsageError(f"--web: needs another starlette or uvicorn ({error}); pip install -U 'edge-run[web]'") from None
    listener = listen(place)
    try:
        on_loopback = check_exposure(place, listener, token)
        access = Access(token, None if token is not None or not on_loopback else place.host)
        sink = WebSink(listener, place, access, context, fps=fps, monitor=monitor, say=say)
    except BaseException:
        listener.close()
        raise
    if not on_loopback and context is None:
        say("web: without TLS others on the network can read the token and the pictures; give --web-cert, or use ssh -L")
    say(f"web: {sink.url}")
    return sink
