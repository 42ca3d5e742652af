"""What edge-run does: the loop from its opening to its summary, stopped by signals, with every event to every sink."""

from __future__ import annotations

import ctypes
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress

from edge.commands import speaker
from edge.commands.logs import notice_level
from edge.commands.options import RunOptions
from edge.commands.run_outputs import close_sinks, open_sinks
from edge.commands.run_report import report
from edge.commands.run_session import open_session
from edge.errors import EdgeError
from edge.protocols import Source
from edge.service import Service
from edge.sinks.jsonl import ReaderGoneError
from edge.types import Event, Notice

say = speaker("edge-run")
M_ARENA_MAX = -8
MEANT_S = 0.5


def loop(options: RunOptions) -> int:
    """Run it; the exit code. Raises EdgeError."""
    _share_one_heap()
    with ExitStack() as last:
        with open_session(options, say) as session, ExitStack() as stack:
            signals = last.enter_context(_stopping_on_signals(session.sources))
            stack.callback(close_sinks, session.sinks, _say_waiting)  # also those that are open when another cannot be
            session.sinks.extend(open_sinks(options, session.sources, session.monitor, say))
            running = session.introduction()
            say(f"{running}, reading {_numbered(session.sources)}; Ctrl-C ends it")
            service = Service()
            events = session.events(tick=lambda: service.alive(time.monotonic()))
            service.ready(running)
            ended, failure = _pump(session.sources, events)
            service.stopping()
            ended = f"ended by {signals[0]}" if signals else ended or session.ended()
        summary = session.summary(ended)
        try:
            report(summary, options.summary_path, say, offloading=session.offloader is not None)
        except EdgeError as error:
            if failure is None:
                raise
            say(str(error), level="error")  # the first failure is the one to end with
    if failure is not None:
        raise failure
    return 1 if summary.events_lost else 0


def _share_one_heap() -> None:
    """Let all threads allocate from one heap, where the C library is glibc: 7 MB less, and nothing left in idle ones."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _say_waiting() -> None:
    say("delivering what the sinks still hold; a second Ctrl-C ends it at once")


def _numbered(sources: Sequence[Source]) -> str:
    """Their names, with the numbers that `--mask` and `--roi` go by where there are several."""
    if len(sources) == 1:
        return sources[0].name
    return ", ".join(f"{number}: {source.name}" for number, source in enumerate(sources, 1))


def _pump(sources: Sequence[Source], events: Generator[Event | Notice, None, None]) -> tuple[str, EdgeError | None]:
    """Take events until they end or something fails, and say the notices; how they ended, unless by themselves."""
    said = [0] * len(sources)
    said_at_once = {"endpoint-lost", "endpoint-back", *(["source-ended"] if len(sources) == 1 else [])}
    failure: EdgeError | None = None
    ended = ""
    with closing(events):
        try:
            for event in events:
                if isinstance(event, Notice) and event.kind not in said_at_once:
                    say(f"{event.about}: {event.text}", level=notice_level(event.kind))
                del event  # its picture's memory may be needed
                _say_skipped(sources, said)
        except ReaderGoneError:
            ended = "the reader of standard output went away"
        except EdgeError as error:
            ended, failure = "an error ended it", error
    if failure is None:
        _say_skipped(sources, said)
    return ended, failure


def _say_skipped(sources: Sequence[Source], said: list[int]) -> None:
    for number, source in enumerate(sources):
        for line in source.skipped[said[number] :]:
            say(f"skipped {line}", level="warning")
        said[number] = len(source.skipped)


@contextmanager
def _stopping_on_signals(sources: Sequence[Source]) -> Iterator[list[str]]:
    """Stop the sources at the first SIGINT, SIGTERM or SIGHUP, and yield the list that names it; a second one ends it at once.

    That is one which somebody meant: `timeout` and some terminals send the first to the process and to its group.
    """
    received: list[str] = []
    first_s = 0.0

    def stop(number: int, frame: object) -> None:
        nonlocal first_s
        now_s = time.monotonic()
        if not received:
            first_s = now_s
            received.append(signal.Signals(number).name)
            for source in sources:
                source.stop()
        elif now_s - first_s >= MEANT_S:
            for other, handler in before.items():
                signal.signal(other, handler)
            signal.raise_signal(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)  # the terminal went away: finish the files all the same
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
