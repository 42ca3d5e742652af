"""What REST and gRPC share: who may ask, the way through the lanes, what an error is told as, what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from cloud.admission import Budget
from cloud.auth import Tokens
from cloud.body import LeftError
from cloud.connections import GONE
from cloud.errors import RefusedError, RetiredError
from cloud.metrics import Metrics
from cloud.repository import Repository
from cloud.served import Answered, Asked, Served
from edge.errors import DataError, EngineError
from edge.oip import ProtocolError
from edge.summary import resident_bytes
from edge.types import Result

INLINE_BYTES = 256 << 10
"""A body up to this size is taken apart on the event loop; handing it to a thread would take longer.

Of tiny elements, it takes some 25 ms; one of 16 MiB would keep everybody waiting for more than a second.
"""
LEFT = 499
"""The status under which requests are counted whose client did not wait for the answer."""


T = TypeVar("T")


class Keeps(Protocol):
    """Whoever wants to see what was asked and answered."""

    def offer(self, served: Served, asked: Asked, results: Sequence[Result], key: str) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process of the endpoint lets in: bytes of one request and of all, and seconds that a request may wait."""

    request_bytes: int = 16 << 20
    held_bytes: int = 256 << 20
    wait_s: float = 1.0


@dataclass(slots=True)
class State:
    """What the routes and the server share; `draining` is set when the process is about to leave."""

    repository: Repository
    limits: Limits = field(default_factory=Limits)
    tokens: Tokens = field(default_factory=Tokens)
    metrics: Metrics = field(default_factory=Metrics)
    keeper: Keeps | None = None
    say: Callable[[str], None] = lambda line: None
    draining: bool = False
    connections: Callable[[], int] = lambda: 0

    @property
    def is_ready(self) -> bool:
        """Whether it should be asked."""
        return bool(self.repository.models) and not self.draining


class Service:
    """Used from one event loop."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.budget = Budget(state.limits.held_bytes)
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def parsed(self, parse: Callable[[], T]) -> T:
        """What `parse` returns, from a thread on which requests that take long are taken apart one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._parser, parse)

    def close(self) -> None:
        """End the parsing thread."""
        self._parser.shutdown()

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether an `authorization` header brings a token, where one is needed."""
        return self.state.tokens.admit(headers.get("authorization", "").encode("latin-1", "replace"))

    def authorize(self, headers: Mapping[str, str]) -> None:
        """Raises RefusedError 401 unless the headers are admitted."""
        if not self.admits(headers):
            raise RefusedError(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})

    async def answered(
        self, served: Served, asked: Asked, key: str, connection: MutableMapping[str, Any] | None = None
    ) -> Answered:
        """The answer of the lanes, counted and offered for keeping under the idempotency key.

        Raises LeftError when the client goes, where `connection`, an ASGI scope's state, tells of it.
        """
        answered = await self._run(served, asked, connection)
        self.state.metrics.add("edge_cloud_pictures_total", len(asked.pictures), model=served.name)
        if self.state.keeper is not None:
            self.state.keeper.offer(served, asked, answered.results, key)
        return answered

    def refusal(self, error: Exception) -> RefusedError:
        """What a request that failed is told; what is our fault is said here, too."""
        if isinstance(error, RefusedError):
            return error
        if isinstance(error, ProtocolError | DataError):
            return RefusedError(400, str(error))
        if isinstance(error, EngineError):
            self.state.say(str(error))
            return RefusedError(500, str(error))
        self.state.say(f"internal error on a request: {error!r:.200}")
        return RefusedError(500, "internal error; the endpoint's own output says more")

    def count(self, model: str, status: int, seconds: float) -> None:
        """One request that is over."""
        self.state.metrics.add("edge_cloud_requests_total", model=model, status=status)
        self.state.metrics.observe("edge_cloud_request_seconds", seconds, model=model, status=status)

    def tell_gauges(self) -> None:
        """Set the gauges to what holds now."""
        metrics = self.state.metrics
        for name, served in self.state.repository.models.items():
            metrics.set("edge_cloud_queue_pictures", served.batcher.waiting, model=name)
        metrics.set("edge_cloud_held_bytes", self.budget.held)
        metrics.set("edge_cloud_connections", self.state.connections())
        metrics.set("edge_cloud_resident_bytes", resident_bytes())

    async def _run(self, served: Served, asked: Asked, connection: MutableMapping[str, Any] | None) -> Answered:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answered] = loop.create_future()

        def arrived(result: Answered | Exception) -> None:
            if answer.done():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def done(result: Answered | Exception) -> None:
            loop.call_soon_threadsafe(arrived, result)

        if connection is not None:
            connection[GONE] = lambda: arrived(LeftError())
        try:
            work = served.submit(asked, done)
        except RetiredError:  # replaced while the body came
            newer = self.state.repository.get(served.name)
            work = newer.submit(newer.check(asked.request), done)
        try:
            return await answer
        finally:
            work.cancel()
