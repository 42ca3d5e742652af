"""One endpoint as a whole: asking it about a frame, as often as is safe and in time, and leaving it in peace when it fails."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from edge.errors import EdgeError, OffloadError
from edge.offload.address import Address
from edge.offload.breaker import Breaker
from edge.offload.credentials import Credentials
from edge.offload.forms import Form, Question, parameters
from edge.offload.pictures import RedactionError, redacted
from edge.offload.served import Served, read_served
from edge.offload.spool import Stored
from edge.offload.transport import Reply, RequestError, Transport
from edge.offload.uplink import LADDER, Rung, Uplink
from edge.offload.waiting import Job
from edge.oip import NamedTensor, ProtocolError, decode_response, encode_request
from edge.types import Event, Result

NO_BINARY = (400, 415, 500)
"""What servers say to BYTES as binary data where they take JSON only, as MLServer does."""
RETRY_S = 0.1
"""Before the first retry; the pause doubles with each, with jitter."""
STORED_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The cloud's result for an earlier event, and the model that gave it."""

    event: Event
    result: Result
    model: str
    variant: str


class Endpoint:
    """A model at an address, asked in one form over `connections`; may be used from several threads.

    `wait` waits so many seconds and says whether the client was closed meanwhile.
    """

    def __init__(
        self,
        address: Address,
        form: Form,
        credentials: Credentials,
        *,
        connections: int,
        deadline_s: float,
        redact: bool,
        fallback: str,
        say: Callable[[str], None],
        wait: Callable[[float], bool],
    ) -> None:
        self.breaker = Breaker()
        self.uplink = Uplink(deadline_s / 2)
        self._root, self._model = address.root, address.model
        self._path = f"/v2/models/{quote(address.model, safe='/')}"
        self._form = form
        self._deadline_s = deadline_s
        self._redact = redact
        self._fallback = fallback
        self._say = say
        self._wait = wait
        self._transport = Transport(address, credentials, connections=connections)
        self._served: Served | None = None
        self._binary: bool | None = None
        """Whether tensors are sent as binary data rather than JSON; None: not known yet."""
        self._asking_metadata = threading.Lock()

    def ask(self, job: Job) -> Answer:
        """The answer, after as many attempts as are safe and fit before the deadline. Raises EdgeError."""
        until_s = job.event.frame.captured_s + self._deadline_s
        question: Question | None = None
        rung = self.uplink.rung
        pause_s = RETRY_S
        while True:
            begun_s = time.monotonic()
            if not self.breaker.enter(begun_s):
                raise RequestError(f"{self._root}: is left in peace")
            try:
                served = self._known(until_s)
                self._check(served, job.event.result)
                question = question or self._question(job.event, rung, served)
                answer = self._exchange(job, question, served, rung, until_s)
            except Exception as error:
                self._note_failure(error, fair=until_s - begun_s >= self._deadline_s / 2)
                if not isinstance(error, RequestError) or not error.again:
                    raise
                wait_s = max(pause_s * random.uniform(0.5, 1.5), error.rest_s)
                if time.monotonic() + wait_s >= until_s or self._wait(wait_s):
                    raise
                pause_s *= 2
            else:
                self._note_success()
                return answer

    def stored(self, job: Job) -> Stored:
        """A frame as it would be sent later, for labels: at the first rung. Raises RedactionError and OffloadError."""
        event = job.event
        question = self._question(event, LADDER[0], None)
        if not isinstance(question.tensor.data, list):
            raise OffloadError("a tensor cannot be kept; leave out the spool")
        told = parameters(event, question, job.key)
        return Stored(job.key, event.captured_at_s, 1 - event.decision.confidence, told, question.tensor.data[0])

    def deliver(self, stored: Stored) -> None:
        """Send a stored frame, for labels; its answer is not used. Raises RequestError."""
        begun_s = time.monotonic()
        if not self.breaker.enter(begun_s):
            raise RequestError(f"{self._root}: is left in peace")
        was_closed = self.breaker.state(begun_s) == "closed"
        until_s = begun_s + STORED_DEADLINE_S
        try:
            self._post_stored(stored, self._known_for_pictures(until_s), until_s)
        except RequestError as error:
            if error.refused:
                self.breaker.left()
            else:
                self._note_failure(error, fair=not was_closed)  # a large picture may be late where a small one is not
            raise
        except BaseException:
            self.breaker.left()
            raise
        self._note_success()

    def _post_stored(self, stored: Stored, served: Served, until_s: float) -> None:
        outputs = [name for name in ("boxes", "labels", "scores") if served.gives(name)]
        picture = NamedTensor.of("image", [stored.picture])
        try:
            self._infer(picture, outputs, stored.key, stored.key, dict(stored.parameters), served, until_s)
        except RequestError as error:
            if error.refused:
                self._served = None  # another server may have come in its place, and it is not for that one to refuse
                self._known_for_pictures(until_s)
            raise

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._transport.close()

    def _exchange(self, job: Job, question: Question, served: Served, rung: Rung, until_s: float) -> Answer:
        """One request and its answer."""
        told = dict(parameters(job.event, question, job.key)) if served.ours else {}
        size = question.bytes
        begun_s = time.monotonic()
        try:
            reply = self._infer(
                question.tensor, question.outputs, str(job.event.frame.sequence), job.key, told, served, until_s
            )
        except RequestError as error:
            if error.late and until_s - begun_s >= self._deadline_s / 2:  # else it was not the uplink's fault
                self.uplink.late(rung, size, time.monotonic() - begun_s)
            raise
        self.uplink.note(rung, size, reply.seconds)
        try:
            response = decode_response(reply.body, reply.headers)
            result = self._form.answer(job.event, question, response)
        except (ProtocolError, KeyError, ValueError, TypeError) as error:
            raise OffloadError(f"{self._root}: the answer makes no sense: {error}") from None
        if time.monotonic() > until_s:
            raise RequestError(f"{self._root}: answered after the deadline", late=True)
        variant = str(response.parameters.get("variant", ""))  # edge-cloud says it, other servers do not
        return Answer(job.event, result, response.model_name, variant)

    def _infer(
        self,
        tensor: NamedTensor,
        outputs: Sequence[str],
        request_id: str,
        key: str,
        told: dict[str, str],
        served: Served,
        until_s: float,
    ) -> Reply:
        """One request; where another server than edge-cloud refuses the first picture as binary data, in JSON as well."""
        path, more = f"{self._path}/infer", {"Idempotency-Key": key}
        first = self._binary is None and not served.ours and tensor.datatype == "BYTES"
        body, headers = encode_request(
            [tensor], outputs, request_id=request_id, parameters=told, binary=self._binary is not False
        )
        try:
            reply = self._transport.post(path, body, headers | more, until_s)
            self._binary = self._binary is not False
        except RequestError as error:
            if not first or error.status not in NO_BINARY:
                raise
            self._binary = True  # unless JSON is taken
            body, headers = encode_request([tensor], outputs, request_id=request_id, parameters=told, binary=False)
            reply = self._transport.post(path, body, headers | more, until_s)
            self._binary = False
        return reply

    def _question(self, event: Event, rung: Rung, served: Served | None) -> Question:
        """What to send of a frame. Raises RedactionError, whatever went wrong, where it may not be sent."""
        image = event.frame.image
        if self._redact:
            try:
                image = redacted(image, event.result)
            except Exception as error:
                raise RedactionError(str(error)) from error
        return self._form.question(event, image, rung, served)

    def _known(self, until_s: float) -> Served:
        """What the model takes and gives, asked once, so that a server or a model of another kind is named as such."""
        with self._asking_metadata:
            if self._served is None:
                self._transport.renew_token()
                self._binary = None
                model = self._transport.get(self._path, until_s).body
                try:
                    self._served = read_served(self._root, model, self._server(until_s))
                except OffloadError as error:
                    raise error if isinstance(error, RequestError) else RequestError(str(error), lasting=True) from None
            return self._served

    def _known_for_pictures(self, until_s: float) -> Served:
        served = self._known(until_s)
        if not served.takes_pictures:
            line = "takes no encoded 'image', as stored frames are; serve it with edge-cloud"
            raise RequestError(f"{self._root}: model {self._model} {line}", lasting=True)
        return served

    def _server(self, until_s: float) -> bytes | None:
        """The server's own metadata; None where it gives none: a proxy may pass on its models only."""
        try:
            return self._transport.get("/v2", until_s).body
        except RequestError as error:
            if error.again or error.late:
                raise
            return None

    def _check(self, served: Served, local: Result) -> None:
        try:
            self._form.check(served, local)
        except OffloadError as error:
            line = str(error).replace("--offload URL", f"--offload {self._root}")
            raise RequestError(f"{self._root}: model {self._model} {line}", lasting=True) from None

    def _note_failure(self, error: Exception, *, fair: bool) -> None:
        """Tell the breaker, but of a deadline that passed only where it was a fair one, and never of a frame withheld."""
        known = error if isinstance(error, RequestError) else RequestError(self._in_words(error))
        if isinstance(error, RedactionError) or (known.late and not fair):
            self.breaker.left()
            return
        now_s = time.monotonic()
        if self.breaker.failed(now_s, rest_s=known.rest_s, at_once=known.lasting) and not self._wait(0.0):
            self._say(f"offload: {known}; {self._fallback}, trying again in the background")
        if self.breaker.state(now_s) != "closed":
            self._served = None  # another server may come in its place

    def _in_words(self, error: Exception) -> str:
        return str(error) if isinstance(error, EdgeError) else f"{self._root}: unexpected {type(error).__name__}"

    def _note_success(self) -> None:
        if self.breaker.succeeded() and not self._wait(0.0):
            self._say(f"offload: {self._root} answers again")
