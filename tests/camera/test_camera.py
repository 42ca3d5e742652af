"""The headline command on real V4L2 devices: `edge-run --camera 0 --camera 1` as a user starts it.

The devices are the kernel's virtual webcams, in the VM that vm.sh boots (`make camera`). Python is some 15 times slower
in there, so each test starts as few processes as its story needs, and the bounds on time are wide.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.camera.faults import Fault, faults, plug_in, plug_in_if_missing, unplug
from tests.camera.running import SLOW_BUNDLE, Line, Running, edge_run, errors, negotiated, v4l2

pytestmark = [
    pytest.mark.camera,
    pytest.mark.skipif(os.environ.get("CAMERA_VM") != "1", reason="needs a virtual webcam; make camera has one"),
]

ZERO, ONE = "camera:0", "camera:1"
IN_FLIGHT_S = 0.5
"""A frame that the driver had filled when the fault came is still one of the camera's."""
STAYS_S = 2.0
"""For so long after its return a camera has to deliver as it did before."""
TITLES = f"{'fault':26} noticed  back  camera 1: frames/s, gap s  notices about camera 0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from the fault to its notice and from its end to the first fresh frame, and how the other camera fared."""

    fault: Fault
    noticed_s: float | None
    back_s: float
    other_fps: float
    other_gap_s: float
    notices: tuple[str, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        noticed = "" if self.noticed_s is None else f"{self.noticed_s:.1f}"
        told = "; ".join([*self.notices, *(f"PROBLEM: {problem}" for problem in self.problems)])
        return f"{self.fault.name:26} {noticed:>7} {self.back_s:5.1f} {self.other_fps:19.1f} {self.other_gap_s:6.1f}  {told}"


def test_one_run_survives_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary_path = tmp_path / "summary.json"
    outcomes: list[Outcome] = []
    try:
        unplug()
        with edge_run("--camera", "0", "--camera", "1", "--summary", str(summary_path)) as running:
            running.wait("both are missed at the start", lambda: running.notices(ZERO) and running.notices(ONE))
            assert all("does not exist" in running.notices(name)[0].event["text"] for name in (ZERO, ONE))
            plug_in()
            running.wait("both deliver", lambda: len(running.frames(ZERO)) > 5 and len(running.frames(ONE)) > 5)
            assert negotiated(0).startswith("640x480 ")
            assert negotiated(0) in running.notices(ZERO)[1].event["text"]
            usual_fps = _frames_per_second(running, 4.0)
            outcomes.extend(_survive(running, fault, usual_fps) for fault in faults())
            running.process.send_signal(signal.SIGTERM)
            code, said = running.finish()
    finally:
        plug_in_if_missing()
        with capsys.disabled():
            print("", TITLES, *outcomes, sep="\n", flush=True)
    problems = [f"{outcome.fault.name}: {problem}" for outcome in outcomes for problem in outcome.problems]
    assert not problems, "\n".join(problems)
    assert min(usual_fps) > 0.8 * max(usual_fps), f"unfair shares: {usual_fps}"
    assert code == 0, said
    summary = json.loads(summary_path.read_bytes())
    assert "SIGTERM" in summary["ended"]
    assert summary["events_lost"] == 0
    for counts in summary["sources"]:
        frames, notices = running.frames(counts["name"]), running.notices(counts["name"])
        for before, after in pairwise(frames):
            assert after.event["seq"] > before.event["seq"], f"a frame came twice or late: {before}, {after}"
            assert after.at_s > before.at_s, f"a picture came twice or late: {before}, {after}"
        assert counts["frames"] == len(frames)
        assert counts["lost"] == sum(line.event["notice"] == "source-lost" for line in notices)
        assert counts["dropped"] >= _gaps(frames), "frames are missing that the summary does not own up to"


def _survive(running: Running, fault: Fault, usual_fps: tuple[float, float]) -> Outcome:
    """Inject a fault, lift it, see camera 0 come back and stay, and camera 1 go on."""
    since = len(running.lines)
    begun_s = time.time()
    fault.inject(running)
    injected_s = lifting_s = lifted_s = time.time()
    if fault.lift is not None:
        time.sleep(fault.hold_s)
        lifting_s = time.time()
        fault.lift(running)
        lifted_s = time.time()
    names = (ZERO, ONE) if fault.takes_both else (ZERO,)
    back = [_back(running, fault, name, since, lifting_s) for name in names]
    back_s = max(line.arrived_s for line in back)
    until_s = back_s + STAYS_S
    time.sleep(max(0.0, until_s - time.time()))

    notices = running.notices(ZERO, since)
    noticed_s = next((line.arrived_s - begun_s for line in notices if line.event["notice"] == fault.notice), None)
    # nobody lifts a reader that is dead or stopped, or an error that lasts as long as the device is open: a notice does
    from_s = begun_s + noticed_s if fault.lift is None and noticed_s is not None else lifted_s
    others_s = [line.arrived_s for line in running.frames(ONE, since) if line.arrived_s < until_s]
    other_fps = len(others_s) / (until_s - begun_s)
    other_gap_s = max(after - before for before, after in pairwise([begun_s, *others_s, until_s]))

    problems = []
    if fault.notice is None and notices:
        problems.append("was no loss")
    if fault.notice is not None and (noticed_s is None or noticed_s > fault.noticed_s):
        problems.append(f"{fault.notice} not within {fault.noticed_s:g} s")
    if back_s - from_s > fault.back_s:
        problems.append(f"not back within {fault.back_s:g} s")
    if max(line.event["age_ms"] for line in back) > 1000:
        problems.append("came back with an old frame")
    first_s, last_s = injected_s + IN_FLIGHT_S, lifting_s if fault.lift is not None else from_s
    for name in names if first_s < last_s else ():
        shown = [line for line in running.frames(name, since) if first_s < line.at_s < last_s]
        share = len(shown) / ((last_s - first_s) * usual_fps[0])
        if abs(share - fault.share) > fault.share * 0.5:
            problems.append(f"{share:.0%} of the frames of {name} while it lasted")
    stayed = [line for line in running.frames(ZERO, since) if back_s <= line.arrived_s < until_s]
    if len(stayed) < 0.4 * usual_fps[0] * STAYS_S:
        problems.append(f"only {len(stayed)} frames within {STAYS_S:g} s of its return")
    if not fault.takes_both and (other_fps < 0.7 * usual_fps[1] or other_gap_s > 1.5):
        problems.append("camera 1 suffered")
    told = tuple(line.event["text"].partition("; trying again")[0] for line in notices)
    return Outcome(fault, noticed_s, max(0.0, back_s - from_s), other_fps, other_gap_s, told, tuple(problems))


def _back(running: Running, fault: Fault, name: str, since: int, lifting_s: float) -> Line:
    """The first frame of a camera that was captured after the fault, or after the notice of its loss."""

    def found() -> Line | None:
        after_s = lifting_s
        if fault.notice == "source-lost":
            lost = [line for line in running.notices(name, since) if line.event["notice"] == "source-lost"]
            after_s = max(lifting_s, lost[0].at_s) if lost else float("inf")
        return next((line for line in running.frames(name, since) if line.at_s > after_s), None)

    running.wait(f"{fault.name}: {name} is back", found, 30.0)
    line = found()
    assert line is not None
    return line


def _frames_per_second(running: Running, seconds: float) -> tuple[float, float]:
    since = len(running.lines)
    time.sleep(seconds)
    return len(running.frames(ZERO, since)) / seconds, len(running.frames(ONE, since)) / seconds


def _gaps(frames: list[Line]) -> int:
    """How many frames are missing between the first and the last of these."""
    return int(frames[-1].event["seq"]) - int(frames[0].event["seq"]) + 1 - len(frames)


def test_cameras_share_an_engine_that_is_too_slow_for_them_by_turns_and_every_frame_is_the_newest(tmp_path: Path) -> None:
    summary_path = tmp_path / "summary.json"
    with edge_run(
        "--camera", "0", "--camera", "1", "--max-frames", "16", "--summary", str(summary_path), model=SLOW_BUNDLE
    ) as running:
        code, said = running.finish()
    assert code == 0, said
    frames = [line for line in running.lines if line.event["kind"] == "frame"]
    assert len(frames) == 16
    in_turns = [line.event["source"] for line in frames[2:]]  # one camera may have been there first
    assert all(before != after for before, after in pairwise(in_turns)), in_turns
    # the rest of the first one's age, and of the next, is the cameras' and the engine's start
    waited_ms = [line.event["age_ms"] - sum(list(line.event["timings_ms"].values())[1:]) for line in frames[2:]]
    assert max(waited_ms) < 500, f"frames waited, and newer ones were there: {waited_ms}"
    for counts in json.loads(summary_path.read_bytes())["sources"]:
        assert counts["frames"] == len(running.frames(counts["name"]))
        assert counts["dropped"] >= _gaps(running.frames(counts["name"])) > 50


def test_a_size_is_negotiated_a_busy_and_a_missing_camera_are_refused_and_a_silent_one_does_not_hold_up_a_signal() -> None:
    try:
        with edge_run("--camera", "0", "--size", "1280x720", "--pixels", "YUYV") as holder, edge_run("--camera", "9") as absent:
            holder.wait("it delivers", lambda: holder.frames(ZERO))
            assert negotiated(0) == "1280x720 YUYV"
            assert any("1280x720 YUYV" in line.event["text"] for line in holder.notices(ZERO))
            with edge_run("--camera", "0") as second:
                refused = second.finish()
            missing = absent.finish()
            since = len(holder.lines)
            holder.wait("it goes on beside a second opener", lambda: len(holder.frames(ZERO, since)) > 5)
            v4l2(0, "-c", "percentage_of_dropped_buffers=100")
            holder.wait(
                "silence is noticed", lambda: "source-stalled" in (line.event["notice"] for line in holder.notices(ZERO))
            )
            holder.process.send_signal(signal.SIGTERM)
            signalled_s = time.monotonic()
            code, said = holder.finish()
            took_s = time.monotonic() - signalled_s
    finally:
        v4l2(0, "-c", "percentage_of_dropped_buffers=0")
    assert (refused[0], second.lines) == (2, []), refused
    assert errors(refused[1]) == [refused[1][-1]]
    assert "/dev/video0 cannot be opened" in refused[1][-1]
    assert (missing[0], absent.lines) == (2, []), missing
    assert errors(missing[1]) == [missing[1][-1]]
    assert "/dev/video9 does not exist" in missing[1][-1]
    assert "/dev/video0, /dev/video1" in missing[1][-1], "the line should name the cameras there are"
    assert code == 0, said
    assert took_s < 8, f"ended {took_s:.1f} s after SIGTERM"
    assert all("camera:0: no frame for" in line for line in errors(said)), said
    assert any("SIGTERM" in line for line in said), said


def test_whoever_reads_the_events_may_pause_and_what_that_costs_is_counted(tmp_path: Path) -> None:
    summary_path = tmp_path / "summary.json"
    with edge_run("--camera", "0", "--summary", str(summary_path)) as running:
        running.wait("it delivers", lambda: len(running.frames(ZERO)) > 10)
        running.listening.clear()
        running.wait("the queue overflows", lambda: any("events: slow" in line for line in running.said))
        running.listening.set()
        running.wait("it catches up", lambda: any("events: has caught up" in line for line in running.said))
        since = len(running.lines)
        running.wait("it goes on", lambda: len(running.frames(ZERO, since)) > 10)
        fresh_ms = [line.event["age_ms"] for line in running.frames(ZERO, since)]
        running.process.send_signal(signal.SIGTERM)
        code, said = running.finish()
    summary = json.loads(summary_path.read_bytes())
    frames = running.frames(ZERO)
    assert code == 1, said
    assert summary["events_lost"] > 0
    assert summary["frames"] + len(running.notices(ZERO)) == len(running.lines) + summary["events_lost"]
    assert _gaps(frames) <= summary["dropped"] + summary["events_lost"]
    assert statistics.median(fresh_ms) < 1000, "the pause of a reader has made frames wait"
