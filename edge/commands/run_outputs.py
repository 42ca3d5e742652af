"""Where edge-run writes: its targets, checked before anything is opened, and its sinks, each on a thread of its own."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from edge.commands.logs import at_level, says, style
from edge.commands.options import RunOptions
from edge.errors import UsageError
from edge.monitor import Monitor
from edge.protocols import Sink, Source
from edge.sinks.jsonl import JsonlSink
from edge.sinks.queued import DEPTH, QueuedSink

STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
PICTURES_WAITING = 4
"""For sinks that look at pictures: each that waits holds a camera's buffer."""
SAID_AFTER_S = 2.0


def check_targets(options: RunOptions) -> None:
    """Refuse to write over what is read, two things into one file, or the summary where nothing can be written."""
    targets = {
        "--events": options.events,
        "--video": options.video,
        "--store": options.store,
        "--summary": options.summary_path,
    }
    inputs = [*(source.removeprefix("file://") for source in options.source), str(options.model_path)]
    files = {flag: target for flag, target in targets.items() if target and target != "-" and not target.startswith("/dev/")}
    places = {flag: os.path.realpath(target) for flag, target in files.items()}
    for flag, target in files.items():
        if any(os.path.exists(read) and os.path.realpath(read) == places[flag] for read in inputs):
            raise UsageError(f"{flag} {target} is what is being read; write to another file")
        twins = [other for other in files if places[other] == places[flag]]
        if len(twins) > 1:
            raise UsageError(f"{' and '.join(twins)} both write {target}; give each its own file")
    if options.summary_path == "-":
        if sys.stdout is None:
            raise UsageError("--summary -: standard output is closed; give a file")
        if options.events == "-" or (options.events is None and not sys.stdout.isatty()):
            raise UsageError("--summary - would mix with the events on standard output; give --events a file")
    elif summary := files.get("--summary"):
        try:
            open(summary, "ab").close()
        except OSError as error:
            raise UsageError(f"--summary {summary}: {error.strerror}; choose a file that can be written") from None


def open_sinks(
    options: RunOptions,
    sources: Sequence[Source],
    monitor: Monitor,
    say: Callable[[str], None],
    *,
    embedded: bool = False,
) -> Iterator[Sink]:
    """The sinks that the options ask for, each as it is open. Where all sources wait, so do the sinks: nothing is lost.

    `embedded` in another program, standard output and the terminal are its own.
    """
    waits = not any(source.live for source in sources)
    warn = at_level(say, "warning")
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    by_default = options.events is None and sys.stdout is not None and not on_terminal and not embedded

    def queued(sink: Sink, name: str) -> Sink:
        depth = PICTURES_WAITING if sink.wants_images else DEPTH
        return QueuedSink(sink, name, warn, depth=depth, waits=waits)

    if options.events is not None or by_default:
        lines = JsonlSink(options.events or "-", warn, rotate_bytes=int(options.rotate_mb * 1e6), keep=options.keep)
        yield queued(lines, "events")
    if not embedded and says("info") and not style().as_json:
        status = _status(sources, to_stdout=by_default or options.events in STDOUT)
        if status is not None:
            yield QueuedSink(status, "status", warn, waits=False, lossy=True)
    if options.video is not None:
        from edge.sinks.video import VideoSink

        yield queued(VideoSink(options.video, sources[0].fps, warn, sources[0].name), "video")
    if options.webhook is not None:
        from edge.sinks.webhook import WebhookSink

        yield queued(WebhookSink(options.webhook, warn, changes_only=options.webhook_on == "changes"), "webhook")
    if options.store is not None:
        from edge.sinks.store import StoreSink

        yield queued(StoreSink(options.store, warn, keep_days=options.keep_days), "store")
    if options.mqtt is not None:
        from edge.mqtt import open_mqtt

        yield QueuedSink(open_mqtt(options, monitor=monitor, say=say), "mqtt", warn, waits=False)
    if options.web is not None:
        from edge.web import open_web

        web = open_web(
            address=options.web,
            token_file=options.web_token_file,
            cert=options.web_cert,
            key=options.web_key,
            fps=options.web_fps,
            monitor=monitor,
            say=say,
        )
        yield QueuedSink(web, "web", warn, depth=1, waits=False, lossy=True)


def close_sinks(sinks: Sequence[Sink], say_waiting: Callable[[], None]) -> None:
    """Close them side by side: each may take its time to deliver what waits, and then `say_waiting` is called."""
    closing = [threading.Thread(target=sink.close, name="closing", daemon=True) for sink in sinks]
    for thread in closing:
        thread.start()
    until_s = time.monotonic() + SAID_AFTER_S
    for thread in closing:
        thread.join(max(0.0, until_s - time.monotonic()))
    if any(thread.is_alive() for thread in closing):
        say_waiting()
    for thread in closing:
        thread.join()


def _status(sources: Sequence[Source], *, to_stdout: bool) -> Sink | None:
    """The line on the terminal, where there is one for it."""
    from edge.sinks.status import StatusSink, status_stream

    stream = status_stream(to_stdout)
    if stream is None:
        return None
    names = [source.name for source in sources]
    return StatusSink(names, dropped=lambda: sum(source.dropped for source in sources), stream=stream)
