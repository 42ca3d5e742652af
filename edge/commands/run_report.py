"""What edge-run did, in a few lines and as JSON."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge.commands.logs import at_level
from edge.errors import EdgeError
from edge.events import utf8
from edge.governor import RUNGS, Governor
from edge.model import Model
from edge.pace import Pace
from edge.protocols import Sink, Source
from edge.summary import Governed, RungTime, SourceCounts, Summary, Tally, cpu_seconds, peak_rss_mb

if TYPE_CHECKING:
    from edge.offload import Offloader


def summarize(
    tally: Tally,
    model: Model,
    sources: Sequence[Source],
    offloader: Offloader | None,
    governor: Governor | None,
    pace: Pace,
    sinks: Sequence[Sink],
    ended: str,
) -> Summary:
    """What the run did, from everything that counted along."""
    return Summary(
        source=utf8(", ".join(source.name for source in sources)),
        model=model.name,
        variant=model.variant.name,
        engine=model.engine.name,
        threads=model.engine.threads * model.engine.lanes,
        lanes=model.engine.lanes,
        sources=[_counts(source, tally, let_go) for source, let_go in zip(sources, pace.paced, strict=True)],
        frames=tally.frames,
        still=tally.still,
        failed=tally.noticed("frame-failed"),
        engine_reopened=tally.noticed("engine-reopened", "variant-changed"),
        seconds=round(tally.seconds, 3),
        fps=round(tally.fps, 2),
        dropped=sum(source.dropped for source in sources),
        skipped=sum(len(source.skipped) for source in sources),
        paced=sum(pace.paced),
        offloaded=offloader.submitted if offloader else 0,
        revised=tally.revised,
        offload_given_up=offloader.given_up if offloader else 0,
        offload_failed=offloader.failed if offloader else 0,
        late=offloader.late if offloader else 0,
        withheld=offloader.withheld if offloader else 0,
        offload_declined=offloader.declined if offloader else 0,
        spooled=offloader.spooled if offloader else 0,
        spool_sent=offloader.spool_sent if offloader else 0,
        spool_lost=offloader.spool_lost if offloader else 0,
        spool_waiting=offloader.spool_waiting if offloader else 0,
        events_lost=sum(sink.lost for sink in sinks),
        latency_ms=tally.latencies(),
        first_result_s=round(tally.first_result_s, 3),
        cpu_seconds=round(cpu_seconds(), 3),
        reader_cpu_seconds=round(cpu_seconds(resource.RUSAGE_CHILDREN), 3),
        peak_rss_mb=round(peak_rss_mb(), 1),
        governor=None if governor is None or not governor.holds else _governed(governor, sources),
        ended=ended,
    )


def _governed(governor: Governor, sources: Sequence[Source]) -> Governed:
    all_s = sum(governor.seconds) or 1.0
    rungs = [
        RungTime(round((number + 1) / RUNGS, 4), round(seconds / all_s, 4))
        for number, seconds in reversed(list(enumerate(governor.seconds)))
        if seconds
    ]
    pace = governor.pace
    held = sum(pace.paced) + sum(count for count, source in zip(pace.delayed, sources, strict=True) if not source.live)
    share = held / max(1, sum(pace.paced) + sum(pace.taken))
    return Governed(governor.steps, governor.hottest_c, rungs, round(share, 4))


def _counts(source: Source, tally: Tally, paced: int) -> SourceCounts:
    frames, lost = tally.by_source[source.name], tally.notices["source-lost", source.name]
    return SourceCounts(utf8(source.name), frames, source.dropped, len(source.skipped), lost, paced)


def report(summary: Summary, path: str | None, say: Callable[[str], None], *, offloading: bool) -> None:
    """Say the summary in a few lines, and write it whole where it was asked for."""
    if summary.frames:
        _say_summary(summary, say)
        if summary.governor is not None:
            _say_governed(summary.governor, say)
        if offloading:
            _say_offload(summary, say)
    elif summary.ended.startswith("ended by"):  # by a signal; an error has a line of its own
        say(f"no frames; {summary.ended}")
    if summary.events_lost:
        warn = at_level(say, "warning")
        warn(f"{summary.events_lost} events or video frames could not be written and are lost")
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


def _say_summary(summary: Summary, say: Callable[[str], None]) -> None:
    latency = summary.latency_ms
    still = f", {summary.still} still" if summary.still else ""
    why = "while paused" if summary.governor is None else "by the governor"
    paced = f", {summary.paced} let go {why}" if summary.paced else ""
    say(
        f"{summary.frames} frame{'s' if summary.frames > 1 else ''} in {summary.seconds:.1f} s"
        f"{f' ({summary.fps:.1f} frames/s)' if summary.fps else ''}, "
        f"{summary.dropped} dropped, {summary.skipped} skipped{paced}{still}; {summary.ended}"
    )
    say(
        f"latency p50 {latency.end_to_end.p50:.1f} ms, p99 {latency.end_to_end.p99:.1f} ms "
        f"(p50 of infer {latency.infer.p50:.1f}, prepare {latency.prepare.p50:.1f}, decode {latency.decode.p50:.1f}); "
        f"first result after {summary.first_result_s:.2f} s, cpu {summary.cpu_seconds:.1f} s, peak {summary.peak_rss_mb:.0f} MB"
    )


def _say_governed(governed: Governed, say: Callable[[str], None]) -> None:
    hottest = "" if governed.max_temperature_c is None else f", {governed.max_temperature_c:.1f} °C at most"
    steps = f"{governed.steps} step{'' if governed.steps == 1 else 's'}"
    say(f"governor: {steps}, {governed.held_back:.0%} of frames let go or made to wait{hottest}")


def _say_offload(summary: Summary, say: Callable[[str], None]) -> None:
    late = f"{summary.late} late, " if summary.late else ""
    withheld = f"{summary.withheld} withheld, " if summary.withheld else ""
    given_up = f"{summary.offload_given_up} given up by a full queue, " if summary.offload_given_up else ""
    when = "the endpoint was away" if summary.governor is None else "the endpoint was away or the governor spared the board"
    away = f"; {summary.offload_declined} more were uncertain while {when}" if summary.offload_declined else ""
    if summary.offloaded:
        became = f"{summary.revised} revised by the cloud, {late}{withheld}{given_up}{summary.offload_failed} failed"
    else:
        became = "no frame could be asked about" if away else "no frame was to be asked about"
    say(f"offloaded {summary.offloaded}: {became}{away}")
    if summary.spooled or summary.spool_sent or summary.spool_lost or summary.spool_waiting:
        say(
            f"spool: {summary.spooled} frames kept, {summary.spool_sent} sent, {summary.spool_lost} lost, "
            f"{summary.spool_waiting} waiting for the next run"
        )
