"""One endpoint as a whole: asking it about a frame, as often as is safe and in time, and leaving it in peace when it fails."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.errors import EdgeError, OffloadError, UsageError
from edge.offload.address import Address
from edge.offload.breaker import Breaker
from edge.offload.credentials import Credentials
from edge.offload.forms import Form, Question, bytes_of, parameters
from edge.offload.pictures import RedactionError, redacted
from edge.offload.served import Served
from edge.offload.spool import Stored
from edge.offload.transport import Reply, Request, RequestError, Transport
from edge.offload.uplink import LADDER, Rung, Uplink
from edge.offload.waiting import Job
from edge.oip import NamedTensor, ProtocolError
from edge.types import Event, Notice, Result

if TYPE_CHECKING:  # only a grpc:// address brings its libraries
    from edge.offload.grpc_transport import GrpcReply, GrpcTransport

NO_BINARY = (400, 415, 500)
"""What servers say to BYTES as binary data where they take JSON only, as MLServer does."""
GRPC_SETTINGS = {"GRPC_VERBOSITY": "NONE", "GRPC_DNS_RESOLVER": "native"}
"""It writes no lines of its own beside ours, and finds hosts as the system does: its own resolver knows no board.local."""
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

    `wait` waits so many seconds and says whether the client was closed meanwhile. That the endpoint is lost, and that it
    answers again, is said and stands in `notices`; whoever reads them takes them off. `sent_bytes` are those of all inputs
    that it was sent, stored frames as well, at each attempt. What a broken connection had taken nobody knows: it counts as
    nothing.
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
        self.notices: deque[Notice] = deque()
        self.sent_bytes = 0
        self.breaker = Breaker()
        self.uplink = Uplink(deadline_s / 2)
        self._address, self._root, self._model = address, address.root, address.model
        self._form = form
        self._deadline_s = deadline_s
        self._redact = redact
        self._fallback = fallback
        self._say = say
        self._wait = wait
        self._transport = open_transport(address, credentials, connections, deadline_s)
        self._served: Served | None = None
        self._found_out: tuple[Served, bool] | None = None
        self._asking_metadata = threading.Lock()
        self._counting = threading.Lock()

    @property
    def host(self) -> str:
        """Host and port."""
        return self._address.target

    def check_model(self, local: Result) -> bool:
        """Ask what the model takes, and whether it can be asked about results like `local`; whether it can.

        A failure is told to the breaker and said as that of a frame is.
        """
        begun_s = time.monotonic()
        if not self.breaker.enter(begun_s):
            return False
        try:
            self._check(self._known(begun_s + self._deadline_s), local)
        except Exception as error:
            self._note_failure(error, fair=True)
            return False
        self._note_success()
        return True

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
            self._infer(Request(picture, outputs, stored.key, stored.key, stored.parameters), served, until_s)
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
        told = parameters(job.event, question, job.key) if served.ours else {}
        request = Request(question.tensor, question.outputs, str(job.event.frame.sequence), job.key, told)
        size = question.bytes
        begun_s = time.monotonic()
        try:
            reply = self._infer(request, served, until_s)
        except RequestError as error:
            if error.late and until_s - begun_s >= self._deadline_s / 2:  # else it was not the uplink's fault
                self.uplink.late(rung, size, time.monotonic() - begun_s)
            raise
        self.uplink.note(rung, size, reply.seconds)
        try:
            response = reply.response()
            result = self._form.answer(job.event, question, response)
        except (ProtocolError, KeyError, ValueError, TypeError) as error:
            raise OffloadError(f"{self._root}: the answer makes no sense: {error}") from None
        if time.monotonic() > until_s:
            raise RequestError(f"{self._root}: answered after the deadline", late=True)
        variant = str(response.parameters.get("variant", ""))  # edge-cloud says it, other servers do not
        return Answer(job.event, result, response.model_name, variant)

    def _infer(self, request: Request, served: Served, until_s: float) -> Reply | GrpcReply:
        """One request; where another server than edge-cloud refuses the first picture as binary data, in the other way too."""
        binary = True if served.ours or request.tensor.datatype != "BYTES" else self._binary_to(served)
        if binary is not None:
            return self._sent(request, until_s, binary=binary)
        try:
            reply, binary = self._sent(request, until_s, binary=True), True
        except RequestError as error:
            if error.status not in NO_BINARY:
                raise
            try:
                reply, binary = self._sent(request, until_s, binary=False), False
            except RequestError as error:
                if error.status and self._binary_to(served) is None:
                    self._found_out = served, True  # it is not the form that it refuses
                raise
        self._found_out = served, binary
        return reply

    def _binary_to(self, served: Served) -> bool | None:
        """Whether pictures go to this server as binary data rather than as JSON or typed contents; None: not known yet."""
        known = self._found_out
        return known[1] if known and known[0] is served else None

    def _sent(self, request: Request, until_s: float, *, binary: bool) -> Reply | GrpcReply:
        """One request, whose bytes count where the endpoint had them."""
        size, in_time = bytes_of(request.tensor), time.monotonic() < until_s
        try:
            reply = self._transport.infer(request, until_s, binary=binary)
        except RequestError as error:
            if error.status or (error.late and in_time):
                self._count(size)
            raise
        self._count(size)
        return reply

    def _count(self, size: int) -> None:
        with self._counting:
            self.sent_bytes += size

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
                try:
                    self._served = self._transport.served(until_s)
                except OffloadError as error:
                    raise error if isinstance(error, RequestError) else RequestError(str(error), lasting=True) from None
            return self._served

    def _known_for_pictures(self, until_s: float) -> Served:
        served = self._known(until_s)
        if not served.takes_pictures:
            line = "takes no encoded 'image', as stored frames are; serve it with edge-cloud"
            raise RequestError(f"{self._root}: model {self._model} {line}", lasting=True)
        return served

    def _check(self, served: Served, local: Result) -> None:
        try:
            self._form.check(served, local)
        except OffloadError as error:
            line = str(error).replace("URL/v2/models/NAME", self._address.named("NAME"))
            raise RequestError(f"{self._root}: model {self._model} {line}", lasting=True) from None

    def _note_failure(self, error: Exception, *, fair: bool) -> None:
        """Tell the breaker, but of a deadline that passed only where it was a fair one, and never of a frame withheld."""
        known = error if isinstance(error, RequestError) else RequestError(self._in_words(error))
        if isinstance(error, RedactionError) or (known.late and not fair):
            self.breaker.left()
            return
        now_s = time.monotonic()
        if self.breaker.failed(now_s, rest_s=known.rest_s, at_once=known.lasting) and not self._wait(0.0):
            line = f"{known}; {self._fallback}, trying again in the background"
            self._say(f"offload: {line}")
            self.notices.append(Notice("endpoint-lost", self._root, line.removeprefix(f"{self._root}: "), time.time()))
        if self.breaker.state(now_s) != "closed":
            self._served = None  # another server may come in its place

    def _in_words(self, error: Exception) -> str:
        return str(error) if isinstance(error, EdgeError) else f"{self._root}: unexpected {type(error).__name__}"

    def _note_success(self) -> None:
        if self.breaker.succeeded() and not self._wait(0.0):
            self._say(f"offload: {self._root} answers again")
            self.notices.append(Notice("endpoint-back", self._root, "answers again", time.time()))


def open_transport(
    address: Address, credentials: Credentials, connections: int, deadline_s: float
) -> Transport | GrpcTransport:
    """What carries requests to the address. Raises UsageError where gRPC is not installed."""
    if not address.by_grpc:
        return Transport(address, credentials, connections=connections)
    for name, value in GRPC_SETTINGS.items():
        os.environ.setdefault(name, value)  # read when grpc is imported
    try:
        from edge.offload.grpc_transport import GrpcTransport  # only now: it brings grpcio and protobuf
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise UsageError(f"--offload {address.root}: gRPC is not installed; pip install 'edge-run[grpc]'") from None
    return GrpcTransport(address, credentials, connect_s=deadline_s / 2)
