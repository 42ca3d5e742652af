"""edge-run: the camera loop."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import click

from edge.commands import SETTINGS, speaker, version_option
from edge.commands.configured import ConfiguredCommand, print_config
from edge.commands.logs import notice_level
from edge.commands.run_options import RunOptions, check_idle, run_options
from edge.commands.run_outputs import open_sinks
from edge.commands.run_report import report
from edge.commands.run_session import open_session
from edge.errors import EdgeError
from edge.protocols import Sink, Source
from edge.service import Service
from edge.sinks.jsonl import ReaderGoneError
from edge.types import Event, Notice

NAME = "edge-run"
say = speaker(NAME)
M_ARENA_MAX = -8
SAID_AFTER_S = 2.0


@click.command(NAME, cls=ConfiguredCommand, context_settings=SETTINGS)
@run_options
@version_option
def main(**given: Any) -> int:
    """Run a vision model on every frame of cameras or files, and ask the cloud about the uncertain ones.

    Every frame gets a local answer as a JSON event. With --offload, a frame whose confidence (a classifier's best
    score, a detector's lowest) is below --threshold is also sent to the endpoint, and its answer follows as a second
    event with the same seq and revises: true. A camera that fails is opened again until it is back, an engine that
    fails is reopened; both are said and are lines of the events, too. Ctrl-C or SIGTERM finishes the frame, flushes
    what was written and prints the summary.
    """
    options = RunOptions(**given)
    context = click.get_current_context()
    check_idle(context)
    if print_config(context):
        return 0
    _share_one_heap()
    with open_session(options, say) as session, ExitStack() as closing:
        closing.callback(_close_all, session.sinks)  # also those that are open when another cannot be
        session.sinks.extend(open_sinks(options, session.sources, session.monitor, say))
        running = session.introduction()
        say(f"{running}, reading {_numbered(session.sources)}; Ctrl-C ends it")
        service = Service()
        events = session.events(tick=lambda: service.alive(time.monotonic()))
        service.ready(running)
        ended, failure = _pump(session.sources, events, session.sinks)
        service.stopping()
        if failure is None and session.tally.frames + session.tally.noticed("frame-failed") == options.max_frames:
            ended = "--max-frames reached"
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


def _close_all(sinks: Sequence[Sink]) -> None:
    """Close them side by side: each may take its time to deliver what waits."""
    closing = [threading.Thread(target=sink.close, name="closing", daemon=True) for sink in sinks]
    for thread in closing:
        thread.start()
    until_s = time.monotonic() + SAID_AFTER_S
    for thread in closing:
        thread.join(max(0.0, until_s - time.monotonic()))
    if any(thread.is_alive() for thread in closing):
        say("delivering what the sinks still hold; a second Ctrl-C ends it at once")
    for thread in closing:
        thread.join()


def _numbered(sources: Sequence[Source]) -> str:
    """Their names, with the numbers that `--mask` and `--roi` go by where there are several."""
    if len(sources) == 1:
        return sources[0].name
    return ", ".join(f"{number}: {source.name}" for number, source in enumerate(sources, 1))


def _pump(sources: Sequence[Source], events: Iterable[Event | Notice], sinks: Sequence[Sink]) -> tuple[str, EdgeError | None]:
    """Give every event to every sink until the sources end, a signal comes or something fails; how it ended."""
    said = [0] * len(sources)
    said_at_once = {"endpoint-lost", "endpoint-back", *(["source-ended"] if len(sources) == 1 else [])}
    failure: EdgeError | None = None
    ended = "the source ended" if len(sources) == 1 else "the sources ended"
    with _stopping_on_signals(sources) as signals:
        try:
            for event in events:
                for sink in sinks:
                    sink.emit(event)
                if isinstance(event, Notice) and event.kind not in said_at_once:
                    say(f"{event.about}: {event.text}", level=notice_level(event.kind))
                del event  # its picture's memory may be needed
                _say_skipped(sources, said)
        except ReaderGoneError:
            ended = "the reader of standard output went away"
        except EdgeError as error:
            ended, failure = "an error ended it", error
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
    if failure is None:
        _say_skipped(sources, said)
    return (f"ended by {signals[0]}" if signals else ended), failure


def _say_skipped(sources: Sequence[Source], said: list[int]) -> None:
    for number, source in enumerate(sources):
        for line in source.skipped[said[number] :]:
            say(f"skipped {line}", level="warning")
        said[number] = len(source.skipped)


@contextmanager
def _stopping_on_signals(sources: Sequence[Source]) -> Iterator[list[str]]:
    """Stop the sources at the first SIGINT, SIGTERM or SIGHUP, and yield the list that names it; a second one kills."""
    received: list[str] = []

    def stop(number: int, frame: object) -> None:
        received.append(signal.Signals(number).name)
        for source in sources:
            source.stop()
        for other, handler in before.items():
            signal.signal(other, handler)

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


if __name__ == "__main__":
    main()
