"""One talk with a child: what it says, how long it may be silent, and what its death means."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import IO

import msgspec

from edge.bench.messages import Message, Refused, Request
from edge.errors import EngineError, one_line

TICK_S = 0.2
SILENCE_S = 180.0
BUILDING_SILENCE_S = 3600.0
"""TensorRT builds its engine without a word, on a small Jetson for a good part of an hour."""
COMMAND = (sys.executable, "-m", "edge.bench.child")


def talk(
    request: Request, command: Sequence[str] = COMMAND, silence_s: float | None = None
) -> Generator[Message | None, None, None]:
    """What a child says to a request, and None each 0.2 s in which it says nothing; it ends when the iterator is closed.

    Raises EngineError, without naming the configuration, when the child refuses, dies or falls silent.
    """
    if silence_s is None:
        silence_s = (BUILDING_SILENCE_S if request.accelerator == "tensorrt" else SILENCE_S) + request.seconds
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # a Ctrl-C at the terminal is the bench's to answer
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(msgspec.json.encode(request) + b"\n")
            yield from _listen(process.stdout, silence_s)
            code = process.wait()
            if code:
                raise EngineError(_death(code, errors))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()


def _listen(stream: IO[bytes], silence_s: float) -> Iterator[Message | None]:
    heard_s, rest = time.monotonic(), b""
    while True:
        if not select.select([stream], [], [], TICK_S)[0]:
            if time.monotonic() - heard_s > silence_s:
                raise EngineError(f"gave no sign of life for {silence_s:.0f} s")
            yield None
            continue
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            return
        heard_s = time.monotonic()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            message = msgspec.json.decode(line, type=Message)
            if isinstance(message, Refused):
                raise EngineError(message.line)
            yield message


def _death(code: int, errors: IO[bytes]) -> str:
    """What a child's end means, in the words of who has to do something about it."""
    errors.seek(0)
    said = errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    last = f": {one_line(said[-1])}" if said else ""
    if code == -signal.SIGILL:
        return "died of an illegal instruction (SIGILL): the engine is built for another processor; install another version"
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), as the kernel does when memory runs out; close other programs or leave it out"
    if code < 0:
        return f"died of {next((one.name for one in signal.Signals if one == -code), f'signal {-code}')}{last}"
    return f"ended with exit code {code}{last}"
