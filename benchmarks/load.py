"""Load for an HTTP server from one process that costs little: prepared bytes on raw connections, in closed or open loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np


@dataclass
class Measured:
    """What came back: seconds of each answer by status, over `seconds`; `unsent` found no free connection."""

    seconds: float = 0.0
    latencies_s: dict[int, list[float]] = field(default_factory=dict)
    unsent: int = 0

    def rate(self, status: int = 200) -> float:
        """Answers of this status a second."""
        return len(self.latencies_s.get(status, [])) / self.seconds

    def percentile_ms(self, percent: float, status: int = 200) -> float:
        """Latency; not a number where no such answer came."""
        return float(np.percentile(self.latencies_s.get(status) or [np.nan], percent)) * 1000


class Connection(asyncio.Protocol):
    """One keep-alive connection; `answered` gets the status of each response once it is whole."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray()
        self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes) -> None:
        self.sent_s = time.perf_counter()
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = bytes(self._buffer[:head]).lower()
        at = lower.index(b"\r\ncontent-length:") + 17
        length = int(lower[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) >= head + 4 + length:
            status = int(self._buffer[9:12])
            self._buffer.clear()
            self._load.answered(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """Requests by turns from `requests`, for `seconds` after a warm-up that is not counted."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes], *, seconds: float, warm_up_s: float = 1.0) -> None:
        self._address = (host, port)
        self._requests: Iterator[bytes] = cycle(requests)
        self._seconds, self._warm_up_s = seconds, warm_up_s
        self._measured = Measured()
        self._begin_s = self._end_s = float("inf")
        self._free: list[Connection] | None = None
        self.answers = 0
        """All that came, those of the warm-up, too."""

    async def closed_loop(self, clients: int) -> Measured:
        """Each client asks again as soon as it is answered."""
        connections = await self._connect(clients)
        self._start()
        for connection in connections:
            connection.send(next(self._requests))
        return await self._finish(connections)

    async def open_loop(self, rate: float, connections: int) -> Measured:
        """So many requests a second, whatever comes back."""
        self._free = await self._connect(connections)
        every = list(self._free)
        self._start()
        sent, begin_s = 0, time.perf_counter()
        while (now_s := time.perf_counter()) < self._end_s:
            due = int((now_s - begin_s) * rate) - sent
            for _ in range(due):
                if self._free:
                    self._free.pop().send(next(self._requests))
                elif now_s >= self._begin_s:
                    self._measured.unsent += 1
            sent += due
            await asyncio.sleep(0.004)
        return await self._finish(every)

    def answered(self, connection: Connection, status: int) -> None:
        now_s = time.perf_counter()
        self.answers += 1
        if self._begin_s <= now_s < self._end_s:
            self._measured.latencies_s.setdefault(status, []).append(now_s - connection.sent_s)
        if self._free is not None:
            self._free.append(connection)
        elif now_s < self._end_s:
            connection.send(next(self._requests))

    def lost(self, connection: Connection) -> None:
        if time.perf_counter() < self._end_s:
            raise ConnectionError("the server closed a connection")

    async def _connect(self, count: int) -> list[Connection]:
        loop = asyncio.get_running_loop()
        return [(await loop.create_connection(lambda: Connection(self), *self._address))[1] for _ in range(count)]

    def _start(self) -> None:
        self._begin_s = time.perf_counter() + self._warm_up_s
        self._end_s = self._begin_s + self._seconds

    async def _finish(self, connections: list[Connection]) -> Measured:
        await asyncio.sleep(max(0.0, self._end_s - time.perf_counter()))
        self._end_s = 0.0
        for connection in connections:
            connection.transport.close()
        self._measured.seconds = self._seconds
        return self._measured
