"""Who may look: everybody on this machine, or whoever has the token, which is said nowhere."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import socket
import stat
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from pathlib import Path

from edge.errors import UsageError
from edge.web.address import Place, on_loopback

VARIABLE = "EDGE_WEB_TOKEN"
SHORTEST = 16
"""Characters."""
TOKEN_LIMIT_BYTES = 4096
MAX_AGE_S = 30 * 24 * 3600
"""Of a cookie, which says when it was given, and is held to it."""
WRONG_ONES = 10
LOCK_S = 60.0
"""After so many wrong tokens within this time no token is looked at for as long."""
MAKE_ONE = "openssl rand -hex 32 > token"


class Access:
    """Knows the token, if there is one, and the cookies that are given for it; all in one thread.

    `local_host` is the host under which a page without a token is served; None: it need not be looked at. A cookie
    is the time at which it was given and the HMAC of that with a key derived from the token (RFC 2104): it outlives a
    restart, tells nothing of the token, and ends with it. Wrong tokens are counted, so that nobody can try many.
    """

    def __init__(
        self,
        token: str | None = None,
        local_host: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.local_host = local_host
        self.cookie_name = "edge"
        self._digest: bytes | None = None
        self._clock, self._wall_clock = clock, wall_clock
        self._wrong_s: deque[float] = deque(maxlen=WRONG_ONES)
        self._locked_until_s = float("-inf")
        if token is not None:
            self._digest = hashlib.sha256(token.encode()).digest()
            self._key = hmac.digest(self._digest, b"edge-run cookie", "sha256")
            # browsers send all cookies of a host to every port of it: two boards behind tunnels must not share one
            self.cookie_name = "edge_" + hmac.digest(self._digest, b"edge-run cookie name", "sha256").hex()[:8]

    @property
    def asks(self) -> bool:
        """Whether a token is asked for."""
        return self._digest is not None

    def right(self, token: bytes) -> bool:
        """Whether it is the token; as slow whatever it is. A wrong one is counted."""
        right = self._digest is not None and hmac.compare_digest(hashlib.sha256(token).digest(), self._digest)
        if not right:
            now_s = self._clock()
            self._wrong_s.append(now_s)
            if len(self._wrong_s) == WRONG_ONES and now_s - self._wrong_s[0] < LOCK_S:
                self._locked_until_s = now_s + LOCK_S
        return right

    @property
    def locked_s(self) -> float:
        """For how long no token is looked at, because there were too many wrong ones."""
        return max(0.0, self._locked_until_s - self._clock())

    def cookie(self) -> str:
        """A new cookie's value."""
        given = str(int(self._wall_clock()))
        return f"{given}.{self._signature(given)}"

    def knows(self, cookies: bytes) -> bool:
        """Whether a Cookie header has a cookie of ours that is not too old."""
        for part in cookies.split(b";"):
            name, _, value = part.strip().partition(b"=")
            if name == self.cookie_name.encode() and self._holds(value.decode("latin-1")):
                return True
        return False

    def _holds(self, value: str) -> bool:
        found = re.fullmatch(r"([0-9]{1,12})\.([0-9a-f]{64})", value, re.ASCII)
        if found is None or self._digest is None or not hmac.compare_digest(found[2], self._signature(found[1])):
            return False
        return self._wall_clock() - int(found[1]) <= MAX_AGE_S

    def _signature(self, given: str) -> str:
        return hmac.digest(self._key, given.encode(), "sha256").hex()


def token_of(authorization: bytes) -> bytes | None:
    """What an Authorization header brings: a Bearer token (RFC 6750), or the password of Basic (RFC 7617), whoever the user."""
    scheme, _, rest = authorization.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() == b"basic":
        try:
            return b64decode(rest.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return None


def read_token(file: str | None, say: Callable[[str], None]) -> str | None:
    """The token in a file, or in EDGE_WEB_TOKEN; None: there is none. Raises UsageError."""
    if file is None:
        where, text = VARIABLE, os.environ.get(VARIABLE, "")
        if not text:
            return None
    else:
        where = f"--web-token-file {file}"
        try:
            with Path(file).open("rb") as opened:
                text = opened.read(TOKEN_LIMIT_BYTES).decode("ascii", "replace")
                shared = bool(os.fstat(opened.fileno()).st_mode & stat.S_IROTH)
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}; make one with: {MAKE_ONE}") from None
        if shared:
            say(f"web: other users of this machine can read {file}; chmod 600 ends that")
    token = text.strip()
    if not re.fullmatch(rf"[\x21-\x7e]{{{SHORTEST},}}", token):
        raise UsageError(
            f"{where}: expected one token of at least {SHORTEST} ASCII characters without spaces; make one with: {MAKE_ONE}"
        )
    return token


def check_exposure(place: Place, listener: socket.socket, token: str | None) -> bool:
    """Whether the page is on loopback. Raises UsageError where others could reach it without a token."""
    loopback = on_loopback(listener)
    if token is None and not loopback:
        raise UsageError(
            f"--web {place}: others could look without a token; make one with: {MAKE_ONE}, and give --web-token-file token"
        )
    return loopback
