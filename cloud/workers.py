"""The processes of an endpoint: one, or several that share a port and are started again when they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.app import Endpoint
from cloud.auth import Tokens
from cloud.server import listen, reserve, serve, url_of
from cloud.settings import Settings, open_state
from edge.commands import speaker
from edge.commands.logs import Style, adopt, style
from edge.errors import EdgeError

if TYPE_CHECKING:
    from cloud.grpc_service import GrpcServer

PAUSE_S = 1.0
"""Before a worker that died is started again."""
GRACE_S = 5.0
"""Beyond the drain, before a worker is killed."""


def run(settings: Settings, host: str, port: int, workers: int, tokens: Tokens, say: Callable[[str], None]) -> None:
    """Serve until a signal; in this process, or in `workers` that this one supervises. Raises EdgeError."""
    scheme = "http" if settings.tls is None else "https"
    if workers == 1:
        with listen(host, port) as listener:
            url = url_of(listener, scheme)
            _serve(settings, lambda: listener, tokens, say, lambda what: say(f"ready at {url}, {what}"))
        return
    with reserve(host, port) as reserved, tempfile.TemporaryDirectory(prefix="edge-cloud-") as shared:
        url = url_of(reserved, scheme)
        _Supervisor(settings, reserved.getsockname()[:2], tokens, Path(shared), workers, url, say).run()


def _serve(
    settings: Settings,
    listening: Callable[[], socket.socket],
    tokens: Tokens,
    say: Callable[[str], None],
    ready: Callable[[str], None],
    shared: Path | None = None,
) -> None:
    """One process: load, listen, serve, drain, let go."""
    state = open_state(settings, tokens, say, shared)
    served = list(state.repository.models.values())
    keep_libraries_quiet()
    names = ", ".join(f"model {one.name}, variant {one.variant}" for one in served) or f"no model yet in {settings.models}"
    endpoint, listener = Endpoint(state), listening()
    beside = None if settings.grpc_port is None else _grpc_server(settings, endpoint, listener, shared is not None)

    def told() -> None:
        ready(names if beside is None else f"{names}, gRPC port {beside.port}")

    try:
        serve(
            endpoint,
            listener,
            ready=told,
            beside=beside,
            drain_s=settings.drain_s,
            tls=settings.tls,
            ended=_is_orphan,
        )
    finally:
        state.repository.close()
        for one in state.repository.models.values():
            one.batcher.join(1.0)
        if state.keeper is not None:
            state.keeper.close()


def _is_orphan() -> bool:
    """Whether this process was started by a supervisor that is gone, be it since before the models were loaded."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _grpc_server(settings: Settings, endpoint: Endpoint, listener: socket.socket, is_shared: bool) -> GrpcServer:
    from cloud.grpc_service import GrpcServer

    host, port = listener.getsockname()[0], settings.grpc_port or 0
    return GrpcServer(endpoint.service, host, port, shared=is_shared, tls=settings.tls)


def keep_libraries_quiet() -> None:
    """Leave standard error to Python: libpng and libjpeg write a line there for each damaged picture that comes."""
    if sys.stderr is None:
        return
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _worker(settings: Settings, address: tuple[str, int], tokens: Tokens, shared: Path, told: Connection, style: Style) -> None:
    """A worker process: as the only one, and its first line goes to the parent, whose `style` its other lines have."""
    adopt(style)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process in order
    say = speaker("edge-cloud")

    def ready(line: str) -> None:
        with suppress(OSError):  # of a worker that was started again, nobody waits for it
            told.send(line)

    try:
        _serve(settings, lambda: listen(*address, shared=True), tokens, say, ready, shared)
    except EdgeError as error:
        say(str(error), level="error")
        raise SystemExit(error.exit_code) from None


class _Supervisor:
    """Starts the workers, starts those again that die, and passes the end on to them."""

    def __init__(
        self,
        settings: Settings,
        address: tuple[str, int],
        tokens: Tokens,
        shared: Path,
        count: int,
        url: str,
        say: Callable[[str], None],
    ) -> None:
        self._arguments = (settings, address, tokens, shared)
        self._drain_s = settings.drain_s
        self._count, self._url, self._say = count, url, say
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[Any, float] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        """Until a signal. Raises EdgeError when the workers cannot start."""
        before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            line = self._first_line(self._start())  # alone, so that what is wrong is said once
            told = [self._start() for _ in range(1, self._count)]
            for one in told:
                self._first_line(one)
            self._say(f"ready at {self._url}, {line}, {self._count} workers")
            self._watch()
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> Connection:
        mine, theirs = self._context.Pipe(duplex=False)
        worker = self._context.Process(target=_worker, args=(*self._arguments, theirs, style()))
        worker.start()
        theirs.close()
        self._workers[worker] = time.monotonic()
        return mine

    def _first_line(self, told: Connection) -> str:
        """What the worker that was started last says when it is ready; leaves with its exit code when it ends instead."""
        try:
            return str(told.recv())
        except EOFError:  # it has said why
            worker = list(self._workers)[-1]
            worker.join(GRACE_S)
            raise SystemExit(0 if self._ending.is_set() else abs(worker.exitcode or 1)) from None
        finally:
            told.close()

    def _watch(self) -> None:
        while not self._ending.is_set():
            wait([worker.sentinel for worker in self._workers], timeout=0.5)
            for worker in [worker for worker in self._workers if not worker.is_alive()]:
                if self._ending.is_set():
                    return
                self._say(f"worker {worker.pid} ended with {worker.exitcode}; starting another")
                if time.monotonic() - self._workers.pop(worker) < PAUSE_S:
                    time.sleep(PAUSE_S)
                self._start().close()

    def _end(self, number: int, frame: Any) -> None:
        self._ending.set()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.terminate()
        deadline_s = time.monotonic() + self._drain_s + GRACE_S
        for worker in self._workers:
            worker.join(max(0.0, deadline_s - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()
