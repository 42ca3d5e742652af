"""edge-run: the camera loop."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edge.bundle import open_bundle
from edge.commands import SETTINGS, OneLineCommand, bundle_option, has_terminal, speaker, threads_option, version_option
from edge.errors import EdgeError, UsageError
from edge.events import utf8
from edge.loop import run
from edge.model import Model, open_model
from edge.policies import POLICIES, LocalOnly
from edge.protocols import Sink, Source
from edge.sinks.jsonl import JsonlSink, ReaderGoneError
from edge.sources import open_source
from edge.summary import Summary, Tally, cpu_seconds, peak_rss_mb
from edge.tasks.detect import Detect
from edge.types import Event

if TYPE_CHECKING:
    from edge.offload import Offloader

NAME = "edge-run"
say = speaker(NAME)


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@click.option("--camera", metavar="N", help="Read the V4L2 camera /dev/videoN.")
@click.option("--source", metavar="URI", help="Read a video file, a picture, a folder of pictures, camera:N, or 'demo'.")
@bundle_option
@click.option("--variant", metavar="NAME", help="Run this variant of the bundle and no other.")
@threads_option
@click.option(
    "--spin/--no-spin",
    default=None,
    help="Let engine threads spin within an inference: lower latency, more power.  [default: the board's profile]",
)
@click.option(
    "--events",
    metavar="PATH|-",
    help="Append events as JSON lines; '-' is standard output.  [default: '-' unless it is a terminal]",
)
@click.option("--video", metavar="PATH", help="Write an annotated video (.mp4, .avi, .mkv).")
@click.option("--summary", "summary_path", metavar="PATH|-", help="Write the summary as JSON.")
@click.option("--offload", metavar="URL", help="Ask this Open Inference Protocol v2 endpoint about uncertain frames.")
@click.option(
    "--policy", type=click.Choice(sorted(POLICIES)), default="threshold", show_default=True, help="Which frames are uncertain."
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="The confidence below which a frame is offloaded.",
)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    help="Report a detector's objects from this score.  [default: the bundle's]",
)
@click.option("--max-frames", type=click.IntRange(min=1), help="Stop after this many frames.")
@version_option
def main(
    camera: str | None,
    source: str | None,
    model_path: Path,
    variant: str | None,
    threads: int | None,
    spin: bool | None,
    events: str | None,
    video: str | None,
    summary_path: str | None,
    offload: str | None,
    policy: str,
    threshold: float,
    score_threshold: float | None,
    max_frames: int | None,
) -> int:
    """Run a vision model on every frame of a camera or file, and ask the cloud about the uncertain ones.

    Every frame gets a local answer as a JSON event. With --offload, a frame whose confidence (a classifier's best
    score, a detector's lowest) is below --threshold is also sent to the endpoint, and its answer follows as a second
    event with the same seq and revises: true. Ctrl-C or SIGTERM finishes the frame, flushes what was written and
    prints the summary.
    """
    if (camera is None) == (source is None):
        raise UsageError("give either --camera N or --source URI; 'edge-run --source demo' needs no camera")
    for flag, value in (("--threshold", threshold), ("--score-threshold", score_threshold)):
        if value is not None and math.isnan(value):
            raise UsageError(f"{flag} nan: expected a number from 0 to 1")
    inputs = [(source or "").removeprefix("file://"), str(model_path)]
    _check_targets({"--events": events, "--video": video, "--summary": summary_path}, inputs)
    with ExitStack() as stack:
        frames = open_source(f"camera:{camera.removeprefix('/dev/video')}" if camera is not None else source or "")
        model = open_model(open_bundle(model_path), variant=variant, threads=threads, spin=spin, say=say)
        stack.callback(model.engine.close)
        if score_threshold is not None:
            model = _with_score_threshold(model, score_threshold)
        offloader = _open_offloader(offload, model) if offload is not None else None
        if offloader is not None:
            stack.callback(offloader.close)
        stack.enter_context(frames)
        sinks = _open_sinks(events, video, frames)
        for sink in sinks:
            stack.callback(sink.close)
        running = f"{model.name} {model.variant.name} on {model.engine.name}, {model.engine.threads} threads"
        say(f"{running}, reading {frames.name}; Ctrl-C ends it")
        tally = Tally()
        chosen = POLICIES[policy](threshold) if offloader else LocalOnly()
        limited = islice(frames, max_frames)  # None: all of them
        ended, failure = _pump(frames, run(limited, model, chosen, offloader=offloader), sinks, tally)
        if failure is None and tally.frames == max_frames:
            ended = "--max-frames reached"
    summary = _summarize(tally, model, frames, offloader, sinks, ended)
    try:
        _report(summary, summary_path)
    except EdgeError as error:
        if failure is None:
            raise
        say(str(error))  # the first failure is the one to end with
    if failure is not None:
        raise failure
    return 1 if summary.events_lost else 0


def _pump(source: Source, events: Iterator[Event], sinks: Sequence[Sink], tally: Tally) -> tuple[str, EdgeError | None]:
    """Give every event to every sink until the source ends, a signal comes or something fails; how it ended."""
    said = 0
    failure: EdgeError | None = None
    ended = "the source ended"
    with _stopping_on_signals(source) as signals:
        try:
            for event in events:
                for sink in sinks:
                    sink.emit(event)
                tally.add(event)
                for line in source.skipped[said:]:
                    say(f"skipped {line}")
                said = len(source.skipped)
        except ReaderGoneError:
            ended = "the reader of standard output went away"
        except EdgeError as error:
            ended, failure = "an error ended it", error
    for line in source.skipped[said:] if failure is None else []:
        say(f"skipped {line}")
    return (f"ended by {signals[0]}" if signals else ended), failure


def _check_targets(targets: dict[str, str | None], inputs: Sequence[str]) -> None:
    """Refuse to write over what is read, two things into one file, or the summary where nothing can be written."""
    files = {flag: target for flag, target in targets.items() if target and target != "-" and not target.startswith("/dev/")}
    places = {flag: os.path.realpath(target) for flag, target in files.items()}
    for flag, target in files.items():
        if any(os.path.exists(read) and os.path.realpath(read) == places[flag] for read in inputs):
            raise UsageError(f"{flag} {target} is what is being read; write to another file")
        twins = [other for other in files if places[other] == places[flag]]
        if len(twins) > 1:
            raise UsageError(f"{' and '.join(twins)} both write {target}; give each its own file")
    if targets["--summary"] == "-":
        if sys.stdout is None:
            raise UsageError("--summary -: standard output is closed; give a file")
        if targets["--events"] == "-" or (targets["--events"] is None and not sys.stdout.isatty()):
            raise UsageError("--summary - would mix with the events on standard output; give --events a file")
    elif summary := files.get("--summary"):
        try:
            open(summary, "ab").close()
        except OSError as error:
            raise UsageError(f"--summary {summary}: {error.strerror}; choose a file that can be written") from None


def _with_score_threshold(model: Model, score_threshold: float) -> Model:
    if not isinstance(model.task, Detect):
        raise UsageError(f"--score-threshold is for detectors, {model.name} is none; leave it out, or see --threshold")
    return replace(model, task=model.task.replaced(score_threshold=score_threshold))


def _open_offloader(url: str, model: Model) -> Offloader:
    from edge.offload import Offloader  # only now: it brings an HTTP client

    return Offloader(url, model.name, say=say)


def _open_sinks(events: str | None, video: str | None, source: Source) -> list[Sink]:
    sinks: list[Sink] = []
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    to_stdout = events == "-" or (events is None and sys.stdout is not None and not on_terminal)
    if events is not None or to_stdout:
        sinks.append(JsonlSink(events or "-", say))
    if has_terminal() and not to_stdout:
        from edge.sinks.status import StatusSink

        sinks.append(StatusSink())
    if video is not None:
        from edge.sinks.video import VideoSink

        sinks.append(VideoSink(video, source.fps, say))
    return sinks


@contextmanager
def _stopping_on_signals(source: Source) -> Iterator[list[str]]:
    """Stop the source at the first SIGINT, SIGTERM or SIGHUP, and yield the list that then names it; a second one kills."""
    received: list[str] = []

    def stop(number: int, frame: object) -> None:
        received.append(signal.Signals(number).name)
        source.stop()
        signal.signal(number, before[signal.Signals(number)])

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)  # the terminal went away: finish the files all the same
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summarize(
    tally: Tally, model: Model, source: Source, offloader: Offloader | None, sinks: Sequence[Sink], ended: str
) -> Summary:
    return Summary(
        source=utf8(source.name),
        model=model.name,
        variant=model.variant.name,
        engine=model.engine.name,
        threads=model.engine.threads,
        frames=tally.frames,
        seconds=round(tally.seconds, 3),
        fps=round(tally.fps, 2),
        dropped=source.dropped,
        skipped=len(source.skipped),
        offloaded=offloader.submitted if offloader else 0,
        revised=tally.revised,
        offload_failed=offloader.failed if offloader else 0,
        offload_declined=offloader.declined if offloader else 0,
        events_lost=sum(sink.lost for sink in sinks),
        latency_ms=tally.latencies(),
        first_result_s=round(tally.first_result_s, 3),
        cpu_seconds=round(cpu_seconds(), 3),
        peak_rss_mb=round(peak_rss_mb(), 1),
        ended=ended,
    )


def _report(summary: Summary, path: str | None) -> None:
    """Say the summary in a few lines, and write it whole where it was asked for."""
    if summary.frames:
        _say_summary(summary)
    if summary.events_lost:
        say(f"{summary.events_lost} events or video frames could not be written and are lost")
    if path is None:
        return
    data = msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n"
    try:
        if path == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        else:
            Path(path).write_bytes(data)
    except BrokenPipeError:
        raise  # the command's outermost layer knows
    except OSError as error:
        raise EdgeError(f"--summary {path}: {error.strerror}; free some space") from None


def _say_summary(summary: Summary) -> None:
    latency = summary.latency_ms
    say(
        f"{summary.frames} frame{'s' if summary.frames > 1 else ''} in {summary.seconds:.1f} s"
        f"{f' ({summary.fps:.1f} frames/s)' if summary.fps else ''}, "
        f"{summary.dropped} dropped, {summary.skipped} skipped; {summary.ended}"
    )
    say(
        f"latency p50 {latency.end_to_end.p50:.1f} ms, p99 {latency.end_to_end.p99:.1f} ms "
        f"(p50 of infer {latency.infer.p50:.1f}, prepare {latency.prepare.p50:.1f}, decode {latency.decode.p50:.1f}); "
        f"first result after {summary.first_result_s:.2f} s, cpu {summary.cpu_seconds:.1f} s, peak {summary.peak_rss_mb:.0f} MB"
    )
    if summary.offloaded or summary.offload_declined:
        say(
            f"offloaded {summary.offloaded}: {summary.revised} revised by the cloud, {summary.offload_failed} failed; "
            f"{summary.offload_declined} more were uncertain while the endpoint was away"
        )


if __name__ == "__main__":
    main()
