"""The process that reader processes are forked from, with OpenCV loaded once: a new reader is there in milliseconds.

On a board, loading OpenCV anew takes a second or more, and as much memory for each reader. The server itself never
touches a device, so that it cannot hang; it ends, and its readers with it, when the loop's end of its socket closes.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from edge.capture.lifetime import dying_with
from edge.capture.reader import STARTED_KIND, ReaderSpec, read

READERS_REAPED_EVERY_S = 1.0
ENDS_WITHIN_S = 0.3


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Fork a reader, once `after` has gone; its end of the link comes with the message."""

    number: int
    reader: ReaderSpec
    after: int = 0


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """Kill that reader, if it still lives."""

    number: int


class ForkServer:
    """The loop's side: starts the server at the first `open`, and again should it ever be gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._count = 0
        atexit.register(self.close)

    def start(self) -> None:
        """Start it now rather than later: it loads while the caller does something else."""
        with self._lock:
            self._started()

    def open(self, spec: ReaderSpec, after: int = 0) -> tuple[int, socket.socket]:
        """Fork a reader: its number, and our end of its link. Raises OSError where the system has no room for it.

        While reader `after` cannot be ended, because a driver holds it, the link closes at once: one device may not fill
        the board with readers.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            self._count += 1
            message = msgspec.json.encode(Open(self._count, spec, after))
            try:
                socket.send_fds(self._started(), [message], [theirs.fileno()])
            except OSError:
                self._abandon()
                socket.send_fds(self._started(), [message], [theirs.fileno()])
            return self._count, ours

    def kill(self, number: int) -> None:
        """Kill a reader; one that the kernel cannot end yet is left behind, and nothing waits for it."""
        with self._lock, suppress(OSError):
            if self._control is not None:
                self._control.send(msgspec.json.encode(Kill(number)))

    def close(self) -> None:
        """End the server and its readers."""
        with self._lock:
            self._abandon()

    def _started(self) -> socket.socket:
        if self._control is None or self._process is None or self._process.poll() is not None:
            self._abandon()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                # a session of its own: a Ctrl-C at the terminal is the loop's to answer
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "edge.capture.forkserver", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=None if os.environ.get("EDGE_DEBUG") else subprocess.DEVNULL,
                    start_new_session=True,
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # threads do not survive a fork
                )
            self._control = ours
        return self._control

    def _abandon(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:  # still loading OpenCV
                self._process.kill()
                self._process.wait()
            self._process = None


FORK_SERVER = ForkServer()
"""One for all sources of a process."""


def serve(control: socket.socket) -> None:
    """Fork and kill as told until `control` ends."""
    readers: dict[int, int] = {}  # number → process id; a process is only reaped here, so that its id stays its own
    decoder = msgspec.json.Decoder(Open | Kill)
    die_too = dying_with(os.getpid())
    while True:
        ready, _, _ = select.select([control], [], [], READERS_REAPED_EVERY_S)
        _reap(readers)
        if not ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not message:
            break
        request = decoder.decode(message)
        if isinstance(request, Kill):
            if request.number in readers:
                os.kill(readers[request.number], signal.SIGKILL)
            continue
        link = socket.socket(fileno=descriptors[0])
        if not _ended(readers, request.after):
            link.close()
            continue
        try:
            process = os.fork()
        except OSError:  # no room for another process: the loop sees the link's end, and tries again
            link.close()
            continue
        if process == 0:
            control.close()
            _read_and_exit(request.reader, link, die_too)
        link.close()
        readers[request.number] = process
    for process in readers.values():
        os.kill(process, signal.SIGKILL)
    until_s = time.monotonic() + 0.5
    while readers and time.monotonic() < until_s:  # their CPU time is accounted for when they are waited for
        _reap(readers)
        time.sleep(0.005)


def _reap(readers: dict[int, int]) -> None:
    """Forget those that have ended."""
    for number, process in list(readers.items()):
        if os.waitpid(process, os.WNOHANG)[0]:
            del readers[number]


def _ended(readers: dict[int, int], number: int) -> bool:
    """Whether that reader has ended; one that was killed gets a moment for it."""
    until_s = time.monotonic() + ENDS_WITHIN_S
    _reap(readers)
    while number in readers and time.monotonic() < until_s:
        time.sleep(0.002)
        _reap(readers)
    return number not in readers


def _read_and_exit(spec: ReaderSpec, link: socket.socket, die_too: Callable[[], None]) -> None:
    """The child's whole life; it ends without the interpreter's clean-up, which is the server's."""
    try:
        die_too()
        link.send(bytes([STARTED_KIND]))
        read(spec, link)
    finally:
        os._exit(0)


def main() -> None:
    """Load what readers need, then serve on the descriptor that the command line names."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to all; ours ends with the loop
    cv2.setNumThreads(1)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
