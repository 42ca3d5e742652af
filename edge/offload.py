"""Asking the cloud about uncertain frames, on a thread of its own, over the Open Inference Protocol v2.

The loop only ever appends to a short queue and picks up what has arrived; whatever the network does, it does here.
"""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import cv2
import urllib3

from edge.answers import read_answer, wanted
from edge.errors import EdgeError, OffloadError, UsageError
from edge.oip import NamedTensor, ProtocolError, decode_response, encode_request
from edge.types import Detections, Event, Result, UInt8

QUEUE_FRAMES = 4
LONGEST_SIDE = 1280
JPEG_QUALITY = 90
BACKOFF_S = (0.5, 30.0)
ANSWER_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The cloud's result for an earlier event, and the model that gave it."""

    event: Event
    result: Result
    model: str
    variant: str


class Offloader:
    """Sends frames to `url` and collects the answers; `submit` and `answers` never block.

    `url` is an endpoint's root, or one of its models, `http://HOST:PORT/v2/models/NAME`; without a name, the local
    model's is asked for. While the endpoint fails, it is tried again after 0.5 s, 1 s, ... 30 s, with jitter, and
    frames are not queued in between. Raises UsageError for a URL that cannot be.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float = 5.0, say: Callable[[str], None] = lambda line: None) -> None:
        self.submitted = 0
        self.failed = 0
        self.declined = 0
        self._root, self._model = _parse(url, model)
        self._timeout_s = timeout_s
        self._say = say
        self._http = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, timeout=urllib3.Timeout(total=timeout_s))
        self._waiting: deque[Event] = deque()
        self._arrived: deque[Answer] = deque()
        self._wake = threading.Condition()
        self._busy = False
        self._closing = False
        self._down_until_s = 0.0
        self._failures_in_row = 0
        self._checked = False
        self._thread = threading.Thread(target=self._work, name="offload", daemon=True)
        self._thread.start()

    def available(self, now_s: float) -> bool:
        """Whether a frame submitted now would be sent; False while a failed endpoint is left in peace."""
        return now_s >= self._down_until_s

    def submit(self, event: Event) -> None:
        """Queue an event's frame; when four wait already, the oldest of them is given up and counted in `failed`."""
        with self._wake:
            self.submitted += 1
            if self._closing:
                self.failed += 1
                return
            if len(self._waiting) == QUEUE_FRAMES:
                self._waiting.popleft()
                self.failed += 1
            self._waiting.append(event)
            self._wake.notify()

    def answers(self) -> list[Answer]:
        """The answers that have arrived since the last call, in order of arrival."""
        arrived = []
        while self._arrived:
            arrived.append(self._arrived.popleft())
        return arrived

    def drain(self, seconds: float) -> list[Answer]:
        """Wait at most `seconds` for what is under way, and return the answers; then nothing more is sent."""
        deadline_s = time.monotonic() + seconds
        with self._wake:
            while (self._waiting or self._busy) and (left := deadline_s - time.monotonic()) > 0:
                self._wake.wait(left)
            if not self._closing:  # else they have been counted
                self.failed += len(self._waiting) + self._busy
            self._waiting.clear()
            self._closing = True
            self._wake.notify()
        return self.answers()

    def close(self) -> None:
        """Stop the thread; a request that hangs is left to end with its own deadline."""
        self.drain(0.0)
        self._thread.join(timeout=0.2)

    def _work(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                self._wake.notify_all()
                while not self._waiting:
                    if self._closing:
                        return
                    self._wake.wait()
                event = self._waiting.popleft()
                self._busy = True
            try:
                answer = self._ask(event)
            except EdgeError as error:
                self._note_failure(error)
            except Exception as error:  # whatever it is, the thread lives on and the frame is counted
                self._note_failure(OffloadError(f"{self._root}: unexpected {error!r:.200}"))
            else:
                self._note_success()
                with self._wake:
                    if not self._closing:  # else drain has counted it as failed
                        self._arrived.append(answer)

    def _note_failure(self, error: EdgeError) -> None:
        first, longest = BACKOFF_S
        pause_s = min(longest, first * 2 ** min(self._failures_in_row, 10)) * random.uniform(0.75, 1.25)
        with self._wake:
            if self._closing:
                return  # drain has counted it
            self.failed += 1 + len(self._waiting)
            self._waiting.clear()
            self._failures_in_row += 1
            self._down_until_s = time.monotonic() + pause_s
        if self._failures_in_row == 1:
            self._say(f"offload: {error}; answers stay local, trying again in the background")

    def _note_success(self) -> None:
        if self._failures_in_row:
            self._say(f"offload: {self._root} answers again")
        self._failures_in_row = 0

    def _ask(self, event: Event) -> Answer:
        if not self._checked:
            self._check_model(event.result)
            self._checked = True
        picture = encode_jpeg(event.frame.image).tobytes()
        body, headers = encode_request(
            [NamedTensor.of("image", [picture])], wanted(event.result), request_id=str(event.frame.sequence)
        )
        answer, answer_headers = self._request("POST", f"/v2/models/{self._model}/infer", body, headers)
        width, height = event.frame.size_wh
        sent_w, sent_h = sent_size(width, height)
        try:
            response = decode_response(answer, answer_headers)
            result = read_answer(response, event.result, (width / sent_w, height / sent_h))
        except (ProtocolError, KeyError, ValueError, TypeError) as error:
            raise OffloadError(f"{self._root}: the answer makes no sense: {error}") from None
        variant = str(response.parameters.get("variant", ""))  # edge-cloud says it, other servers do not
        return Answer(event, result, response.model_name, variant)

    def _check_model(self, local: Result) -> None:
        """Ask for the model's metadata once, so that a server or a model of another kind is named as such."""
        body, _ = self._request("GET", f"/v2/models/{self._model}", None, {})
        try:
            metadata = json.loads(body)
            takes = {(tensor["name"], tensor["datatype"]) for tensor in metadata["inputs"]}
            gives = {tensor["name"] for tensor in metadata["outputs"]}
        except (ValueError, KeyError, TypeError, RecursionError):
            raise OffloadError(f"{self._root}: does not speak the Open Inference Protocol v2; start edge-cloud there") from None
        if ("image", "BYTES") not in takes or not {"labels", "scores"} <= gives:
            raise OffloadError(
                f"{self._root}: model {self._model} takes no encoded 'image' or names no 'labels'; serve it with edge-cloud"
            )
        if ("boxes" in gives) != isinstance(local, Detections):
            there, here = ("a detector", "a classifier") if "boxes" in gives else ("a classifier", "a detector")
            hint = f"name another with --offload {self._root}/v2/models/NAME"
            raise OffloadError(f"{self._root}: model {self._model} is {there}, the local one {here}; {hint}")

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        try:
            response = self._http.request(
                method,
                self._root + path,
                body=body,
                headers=headers,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            data = self._read(response)
        except urllib3.exceptions.HTTPError as error:
            raise OffloadError(f"{self._root}: {in_words(error, self._timeout_s)}") from None
        if response.status == 404:
            hint = f"name the model with --offload {self._root}/v2/models/NAME"
            raise OffloadError(f"{self._root}: no model {self._model} there ({_server_message(data)}); {hint}")
        if response.status != 200:
            raise OffloadError(f"{self._root}: status {response.status} for {path}: {_server_message(data)}")
        return data, dict(response.headers)

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The body, within the deadline as a whole (urllib3's is for each read) and within a limit."""
        deadline_s = time.monotonic() + self._timeout_s
        pieces, size = [], 0
        while piece := response.read1(65536):
            pieces.append(piece)
            size += len(piece)
            if size > ANSWER_LIMIT_BYTES or time.monotonic() > deadline_s:
                response.close()
                limit = f"{ANSWER_LIMIT_BYTES} bytes" if size > ANSWER_LIMIT_BYTES else f"{self._timeout_s:g} s"
                raise OffloadError(f"{self._root}: an answer of more than {limit}")
        response.release_conn()
        return b"".join(pieces)


def sent_size(width: int, height: int) -> tuple[int, int]:
    """The width and height that a picture is sent with: its longest side at most 1280 pixels."""
    ratio = min(1.0, LONGEST_SIDE / max(width, height))
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def encode_jpeg(image: UInt8) -> UInt8:
    """A BGR picture as JPEG bytes without metadata, of the size that `sent_size` says."""
    height, width = image.shape[:2]
    size_wh = sent_size(width, height)
    if size_wh != (width, height):
        image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise OffloadError("the frame could not be encoded as JPEG")
    return encoded


def _parse(url: str, model: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if not port_is_valid or parts.scheme not in ("http", "https") or not parts.hostname or " " in parts.netloc:
        raise UsageError(f"--offload {url}: expected http://HOST:PORT or https://HOST/v2/models/NAME")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("--offload: a URL with a user, a password, a query or a fragment is not accepted")
    path, _, name = parts.path.rstrip("/").removesuffix("/infer").removesuffix("/v2").partition("/v2/models/")
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}", name or model


def in_words(error: urllib3.exceptions.HTTPError, timeout_s: float) -> str:
    """What kept a request from being answered, in a few words; `timeout_s` is the deadline that it had."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'no reason given'}); if it does not speak TLS, use http://"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError) and not isinstance(
            cause, urllib3.exceptions.NewConnectionError
        ):
            return f"no answer within {timeout_s:g} s"
        if isinstance(cause, ConnectionResetError | BrokenPipeError | urllib3.exceptions.ProtocolError):
            return "the connection broke"
        cause = cause.__cause__ or cause.__context__
    return str(error).split(": ", 1)[-1]


def _server_message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:80].decode("utf-8", "replace").strip() or "no message"
