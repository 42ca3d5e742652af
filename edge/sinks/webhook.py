"""Events posted as JSON to a URL, tried again while the server is away."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import urllib3

from edge import __version__
from edge.errors import UsageError
from edge.events import encode_event
from edge.offload.transport import in_words
from edge.types import Event, Notice

TOKEN_VARIABLE = "EDGE_WEBHOOK_TOKEN"
ATTEMPTS = 5
BACKOFF_S = (0.5, 30.0)
ANSWER_LIMIT_BYTES = 1 << 16


class WebhookSink:
    """Posts one event a request; with `changes_only`, only notices and events in which a tracked object changed.

    The `Idempotency-Key` is a hash of the body, the same for every attempt. A server that cannot be reached, is slow or
    answers 408, 429 or 5xx is tried five times an event, with pauses of 0.5 s, 1 s, ... 30 s, or as `Retry-After` says;
    they go on growing from event to event until it answers. Then, and after any other refusal, the event is counted in
    `lost`; an outage is said once, and so is each other status. EDGE_WEBHOOK_TOKEN in the environment is sent as a bearer
    token. Raises UsageError for a URL or a token that cannot be.
    """

    wants_images = False

    def __init__(self, url: str, say: Callable[[str], None], *, changes_only: bool, timeout_s: float = 5.0) -> None:
        self.lost = 0
        self._url, self._where = _checked(url)
        self._say = say
        self._changes_only = changes_only
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", "User-Agent": f"edge-run/{__version__}"} | _authorization()
        self._http = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, timeout=urllib3.Timeout(total=timeout_s))
        self._stopping = threading.Event()
        self._failures_in_row = 0
        self._not_before_s = 0.0
        self._lost_before_outage: int | None = None
        self._refusals: set[int] = set()

    def wants(self, event: Event | Notice) -> bool:
        """Whether the event is one to be sent."""
        return not self._changes_only or isinstance(event, Notice) or bool(event.changes)

    def emit(self, event: Event | Notice) -> None:
        """Post the event, which may take minutes while the server is away; `stop` cuts that short."""
        if not self.wants(event):
            return
        body = encode_event(event).rstrip(b"\n")
        headers = self._headers | {"Idempotency-Key": hashlib.sha256(body).hexdigest()[:32]}
        problem = ""
        for _ in range(ATTEMPTS):
            if self._stopping.wait(max(0.0, self._not_before_s - time.monotonic())):
                break
            status, retry_after_s, problem = self._post(body, headers)
            if status is not None and not _is_passing(status):
                self._note_answer(status)
                return
            self._note_failure(retry_after_s)
        self.lost += 1
        if self._lost_before_outage is None and not self._stopping.is_set():
            self._lost_before_outage = self.lost - 1
            self._say(f"webhook: {self._where}: {problem}; the loop goes on, events are lost until it answers")

    def stop(self) -> None:
        """End the pauses, from any thread: what is under way gets no further attempt."""
        self._stopping.set()

    def close(self) -> None:
        """Close the connection."""
        self._http.clear()

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int | None, float, str]:
        """The status, the seconds that the server wants to be left in peace, and the trouble in words, if any."""
        try:
            response = self._http.request(
                "POST", self._url, body=body, headers=headers, redirect=False, preload_content=False, decode_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            return None, 0.0, in_words(error, self._timeout_s)
        with suppress(urllib3.exceptions.HTTPError, OSError):  # the status is all that matters
            self._finish(response)
        return response.status, _seconds(response.headers.get("Retry-After", "")), f"status {response.status}"

    def _finish(self, response: urllib3.BaseHTTPResponse) -> None:
        """Read what little the server has to say, so that the connection can be used again; else close it."""
        deadline_s, size = time.monotonic() + self._timeout_s, 0
        try:
            while piece := response.read1(ANSWER_LIMIT_BYTES):
                size += len(piece)
                if size > ANSWER_LIMIT_BYTES or time.monotonic() > deadline_s:
                    response.close()
                    return
        except BaseException:
            response.close()
            raise
        response.release_conn()

    def _note_answer(self, status: int) -> None:
        if not 200 <= status < 300:
            self.lost += 1
            if status not in self._refusals:
                self._refusals.add(status)
                hint = "redirects are not followed" if 300 <= status < 400 else "such events are lost"
                self._say(f"webhook: {self._where}: status {status}; {hint}")
        elif self._lost_before_outage is not None:
            self._say(f"webhook: {self._where}: answers again; {self.lost - self._lost_before_outage} events were lost")
            self._lost_before_outage = None
        self._failures_in_row, self._not_before_s = 0, 0.0

    def _note_failure(self, retry_after_s: float) -> None:
        first, longest = BACKOFF_S
        pause_s = min(longest, first * 2 ** min(self._failures_in_row, 10)) * random.uniform(0.75, 1.25)
        self._failures_in_row += 1
        self._not_before_s = time.monotonic() + max(pause_s, min(longest, retry_after_s))


def _is_passing(status: int) -> bool:
    """Whether the same request may well be accepted later."""
    return status in (408, 429) or status >= 500


def _checked(url: str) -> tuple[str, str]:
    """The URL, and what of it may be said: paths and queries of webhooks are often secrets."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        valid = valid and url.isprintable() and " " not in url and bool(urllib3.util.parse_url(url).host)
    except (ValueError, urllib3.exceptions.LocationParseError):
        valid = False
    if not valid:
        raise UsageError(f"--webhook {url}: expected http://HOST:PORT/PATH or https://HOST/PATH")
    if parts.username or parts.password or parts.fragment:
        raise UsageError(
            f"--webhook: a URL with a user, a password or a fragment is not accepted; put a bearer token into {TOKEN_VARIABLE}"
        )
    return url, f"{parts.scheme}://{parts.netloc}"


def _authorization() -> dict[str, str]:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return {}
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{TOKEN_VARIABLE}: expected a bearer token of ASCII characters without spaces")
    return {"Authorization": f"Bearer {token}"}


def _seconds(retry_after: str) -> float:
    """What a Retry-After header asks for, in seconds from now: RFC 9110, section 10.2.3."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(BACKOFF_S[1], float(retry_after[:9]))
    try:
        then = parsedate_to_datetime(retry_after)
        return (then.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
