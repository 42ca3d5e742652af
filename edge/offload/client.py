"""The offload client: threads that ask, a short queue before them, and a spool for what could not be delivered."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from edge.offload.address import parse_address
from edge.offload.breaker import State
from edge.offload.credentials import Credentials
from edge.offload.endpoint import Answer, Endpoint
from edge.offload.forms import Form, FrameForm, with_tracks
from edge.offload.pictures import RedactionError
from edge.offload.spool import Spool
from edge.offload.transport import RequestError
from edge.offload.waiting import Job, Waiting
from edge.types import Event, Notice, Result

QUEUE_FRAMES = 4
NICENESS = 10
IN_FLIGHT = 2
DEADLINE_S = 5.0
STORED_PAUSE_S = 0.25
STORED_SHARE = 3.0
"""Stored frames pause this many times as long as the last one took, so that they take a quarter of the uplink at most."""
STORED_LATE_PAUSE_S = 60.0
UNPAID_PAUSE_S = 2.0
"""Until it is asked again whether the budget pays for a stored frame."""
CHECK_PAUSE_S = 0.1
POLL_S = 0.05
MOST_SAID = 100
FLUSH_S = 1.0
"""What the frames that are left in the end get to be written to the spool."""


class Offloader:
    """Sends frames to `url` and collects the answers; `submit` and `answers` never block.

    `url` is an endpoint's root, or one of its models (`parse_address`); without a name, the local
    model's is asked for. `in_flight` requests are under way at once, four frames wait for them, the most uncertain and
    newest first; an answer later than `deadline_s` after the capture is dropped. What never reached the endpoint, or was
    told to come later, is tried again within the deadline. An endpoint that goes on failing is left in peace (Breaker);
    `notices` tell that, and that it answers again. Where `local`, a result of the local model's kind, is given, the
    endpoint's model is looked at before the first frame, so that a wrong one is noticed at once.

    Of the frames submitted each is answered, `given_up` by the full queue, `late`, `withheld` because what is private could
    not be filled (`redact`), or `failed`. Late and failed ones go into the `spool`, which is sent while no frame waits, as
    far as `pays_for` so many bytes, for labels: its answers are not used, `spool_sent` counts them. Raises UsageError for a
    URL or credentials that cannot be.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        form: Form | None = None,
        deadline_s: float = DEADLINE_S,
        in_flight: int = IN_FLIGHT,
        credentials: Credentials | None = None,
        redact: bool = False,
        spool: Spool | None = None,
        local: Result | None = None,
        pays_for: Callable[[int], bool] = lambda size: True,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.submitted = self.given_up = self.failed = self.late = self.withheld = self.declined = self.spool_sent = 0
        address = parse_address(url, model)
        credentials = credentials or Credentials()
        credentials.check(address)
        self._spool = spool
        self._say = say
        self._endpoint = Endpoint(
            address,
            form or FrameForm(),
            credentials,
            connections=in_flight,
            deadline_s=deadline_s,
            redact=redact,
            fallback="answers stay local" if spool is None else "frames wait in the spool",
            say=say,
            wait=self._closed_within,
        )
        self._local, self._checking, self._check_after_s = local, False, 0.0
        self._pays_for = pays_for
        self._seen = False
        self._unsized: Job | None = None
        self._waiting = Waiting(QUEUE_FRAMES)
        self._under_way: set[Job] = set()
        self._arrived: deque[Answer] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._sending_stored = False
        self._stored_after_s = 0.0
        self._said: set[str] = set()
        self._threads = [
            threading.Thread(target=self._work, name=f"offload {number}", daemon=True) for number in range(1, in_flight + 1)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def notices(self) -> deque[Notice]:
        """What became of the endpoint, oldest first; whoever reads them takes them off."""
        return self._endpoint.notices

    @property
    def idle(self) -> bool:
        """Whether no submitted frame waits or is under way."""
        return not self._waiting and not self._under_way

    @property
    def spooled(self) -> int:
        """How many frames were written to the spool."""
        return 0 if self._spool is None else self._spool.spooled

    @property
    def spool_lost(self) -> int:
        """How many of the spool were given up or could not be written."""
        return 0 if self._spool is None else self._spool.lost

    @property
    def spool_waiting(self) -> int:
        """How many are in the spool."""
        return 0 if self._spool is None else len(self._spool)

    @property
    def asking(self) -> int:
        """How many frames wait or are under way."""
        return len(self._waiting) + len(self._under_way)

    @property
    def host(self) -> str:
        """The endpoint's host and port, all of its address that may be shown anywhere."""
        return self._endpoint.host

    @property
    def sent_bytes(self) -> int:
        """What was sent so far, at each attempt, the spool's frames as well."""
        return self._endpoint.sent_bytes

    def breaker_state(self, now_s: float) -> State:
        """Whether the endpoint is left in peace."""
        return self._endpoint.breaker.state(now_s)

    @property
    def request_bytes(self) -> float:
        """What a frame takes on the network, by those so far; before the first, by one that was encoded to see."""
        return self._endpoint.uplink.request_bytes

    @property
    def spent_bytes(self) -> float:
        """What was sent, the spool's frames as well, and what those that wait or are under way will take."""
        return self._endpoint.sent_bytes + self.asking * self.request_bytes

    def available(self, now_s: float) -> bool:
        """Whether a frame submitted now would be sent or kept; without a spool False while the endpoint is left in peace."""
        return self._spool is not None or self._endpoint.breaker.admits(now_s)

    def see(self, event: Event) -> None:
        """Look at the first frame that comes, to learn how many bytes one takes."""
        if not self._seen:
            self._seen = True
            with self._wake:
                self._unsized = None if self._closing else Job(event)
                self._wake.notify()

    def submit(self, event: Event) -> None:
        """Queue an event's frame; when four wait already, the least valuable one is given up."""
        with self._wake:
            self.submitted += 1
            if self._closing:
                self.failed += 1
            elif self._waiting.add(Job(event)) is not None:
                self.given_up += 1
            self._wake.notify()

    def answers(self) -> list[Answer]:
        """The answers that have arrived since the last call, in order of arrival."""
        arrived = []
        while self._arrived:
            arrived.append(self._arrived.popleft())
        return arrived

    def drain(self, seconds: float) -> list[Answer]:
        """Wait at most `seconds` for what is under way, and return the answers; then nothing more is sent.

        A model that nobody has looked at yet is waited for, too, so that a short run tells of a wrong one.

        With a spool, what is left is written there, for which it waits another second at most.
        """
        with self._wake:
            self._wake.wait_for(lambda: self.idle and not self._check_is_owed(), timeout=seconds)
            left = [*self._waiting.clear(), *self._under_way]
            self.failed += len(left)
            self._under_way.clear()
            self._unsized = None
            self._closing = True
            self._wake.notify_all()
        if self._spool is not None and left:
            writing = threading.Thread(target=lambda: [self._keep(job) for job in left], name="offload spool", daemon=True)
            writing.start()
            writing.join(FLUSH_S)
        return self.answers()

    def close(self) -> None:
        """Stop the threads; a request that hangs is left to end with its own deadline."""
        self.drain(0.0)
        for thread in self._threads:
            thread.join(timeout=0.1)
        self._endpoint.close()
        if self._spool is not None:
            self._spool.close()

    def _work(self) -> None:
        _yield_to_the_loop()
        while (chore := self._next()) is not None:
            chore()
            del chore  # else its frame's memory were held until the next one comes

    def _next(self) -> Callable[[], None] | None:
        """Wait for something to do, frames to ask about first; None when all is over."""
        with self._wake:
            while not self._closing:
                if self._waiting:
                    job = self._waiting.take()
                    self._under_way.add(job)
                    self._local = None  # the endpoint's model is looked at for this one
                    return partial(self._deal, job)
                if self._unsized is not None:
                    unsized, self._unsized = self._unsized, None
                    return partial(self._size, unsized)
                now_s = time.monotonic()
                check_s, stored_s = self._check_due_in_s(now_s), self._stored_due_in_s(now_s)
                if check_s == 0:
                    self._checking = True
                    return self._check_model
                if stored_s == 0:
                    self._sending_stored = True
                    return self._send_stored
                self._wake.wait(min((pause_s for pause_s in (check_s, stored_s) if pause_s is not None), default=None))
            return None

    def _check_due_in_s(self, now_s: float) -> float | None:
        """When the endpoint's model is to be looked at; None: not before something else happens."""
        return None if self._local is None or self._checking else self._due_in_s(self._check_after_s, now_s)

    def _stored_due_in_s(self, now_s: float) -> float | None:
        """When the next stored frame may be sent; None: not before something else happens."""
        return None if not self._spool or self._sending_stored else self._due_in_s(self._stored_after_s, now_s)

    def _due_in_s(self, after_s: float, now_s: float) -> float:
        """When the breaker admits something that is not to be done before `after_s`."""
        due_s = max(after_s, self._endpoint.breaker.until_s) - now_s
        return 0 if due_s <= 0 and self._endpoint.breaker.admits(now_s) else max(due_s, POLL_S)

    # before the first frame

    def _check_is_owed(self) -> bool:
        """Whether nobody knows yet if the endpoint's model will do."""
        return self._local is not None and self._endpoint.breaker.state(time.monotonic()) == "closed"

    def _check_model(self) -> None:
        """Look at the endpoint's model, until one will do or a frame is asked about."""
        local = self._local
        done = local is None or self._endpoint.check_model(local)
        with self._wake:
            self._checking = False
            self._check_after_s = time.monotonic() + CHECK_PAUSE_S
            if done:
                self._local = None
            self._wake.notify_all()

    def _size(self, job: Job) -> None:
        """Learn how large a frame is; where it cannot be encoded, or may not be, from the first that is sent."""
        with suppress(Exception):
            self._endpoint.uplink.expect(len(self._endpoint.stored(job).picture))

    # a frame

    def _deal(self, job: Job) -> None:
        """Ask about a frame, and count what became of it; whatever happens, the thread lives on."""
        try:
            answer = self._endpoint.ask(job)
            answer = replace(answer, result=with_tracks(answer.result, job.event.result))
        except RedactionError as error:
            self._withhold(error)
            self._settle(job, "withheld")
        except Exception as error:
            outcome = "late" if isinstance(error, RequestError) and error.late else "failed"
            refused = isinstance(error, RequestError) and error.refused
            if self._spool is not None and not refused and job in self._under_way:
                outcome = self._keep(job) or outcome
            self._settle(job, outcome)
        else:
            self._settle(job, "answered", answer)

    def _settle(self, job: Job, outcome: str, answer: Answer | None = None) -> None:
        with self._wake:
            if job in self._under_way:  # else drain has counted it as failed
                self._under_way.remove(job)
                if answer is not None:
                    self._arrived.append(answer)
                else:
                    setattr(self, outcome, getattr(self, outcome) + 1)
            self._wake.notify_all()

    # stored frames

    def _keep(self, job: Job) -> str:
        """Write a frame to the spool, and "" for done; else what became of it."""
        assert self._spool is not None
        try:
            self._spool.put(self._endpoint.stored(job), time.time())
        except RedactionError as error:
            self._withhold(error)
            return "withheld"
        except Exception as error:
            self._say_once(f"offload: spool: unexpected {type(error).__name__}; such frames are given up")
        return ""

    def _send_stored(self) -> None:
        """Send the most valuable stored frame, and forget it unless it may come through later."""
        assert self._spool is not None
        begun_s = time.monotonic()
        pause_s = STORED_PAUSE_S
        try:
            stored = self._spool.best(time.time())
            if stored is not None and not self._pays_for(len(stored.picture)):
                pause_s = UNPAID_PAUSE_S
            elif stored is not None:
                self._endpoint.deliver(stored)
                if self._spool.remove(stored.key):
                    self.spool_sent += 1
                else:
                    pause_s = self._stuck()
        except RequestError as error:
            if error.refused and stored is not None:
                self._say_once(f"offload: spool: {error}; such frames are given up")
                if not self._spool.give_up(stored.key):
                    pause_s = self._stuck()
            if error.late:
                pause_s = STORED_LATE_PAUSE_S
        except Exception as error:  # whatever it is, the thread lives on
            self._say_once(f"offload: spool: unexpected {type(error).__name__}")
        finally:
            with self._wake:
                now_s = time.monotonic()
                self._sending_stored = False
                self._stored_after_s = now_s + max(pause_s, STORED_SHARE * (now_s - begun_s))
                self._wake.notify_all()

    def _stuck(self) -> float:
        """Say that a frame will be sent again, and for how many seconds it is not."""
        self._say_once("offload: spool: a frame was sent and cannot be removed; it will be sent again")
        return STORED_LATE_PAUSE_S

    def _withhold(self, error: RedactionError) -> None:
        self._say_once(f"offload: a frame could not be redacted and is not sent ({error}); such frames count as withheld")

    def _say_once(self, line: str) -> None:
        if line not in self._said and len(self._said) < MOST_SAID:
            self._said.add(line)
            self._say(line)

    def _closed_within(self, seconds: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: self._closing, timeout=seconds)


def _yield_to_the_loop() -> None:
    """Let this thread have what processor time the others leave: encoding pictures must not slow the loop."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
