"""What the live page costs: nothing while nobody looks, some of a core with a viewer, and frames a second with five.

A viewer does what the page does in a browser: it listens to /updates and asks for one picture of 640x480 after the other, on
this same machine, at the lowest priority. Everything is paired, A B A B, and the medians are told:

1. CPU of the process of `edge-run --source demo` (15 frames/s) in windows with and without one viewer;
2. frames/s of whole runs over a video as fast as it goes, with and without five viewers;
3. microseconds that the sink takes of the loop's thread for an event, and milliseconds of CPU that a picture takes.

    python benchmarks/web.py [--windows 8] [--seconds 10] [--runs 6] [--frames 3000]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

EDGE_RUN = Path(sys.executable).with_name("edge-run")
VIEWERS = 5


class Viewer:
    """A browser with the page open, without a screen."""

    def __init__(self, port: int) -> None:
        self.pictures = 0
        self._port = port
        self._gone = threading.Event()
        self._threads = [threading.Thread(target=self._begin, args=(work,), daemon=True) for work in (self._listen, self._look)]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Close the page."""
        self._gone.set()
        for thread in self._threads:
            thread.join()

    def _begin(self, work: Callable[[], None]) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # elsewhere it would take nothing of this machine
        work()

    def _listen(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            client.request("GET", "/updates")
            updates = client.getresponse()
            while not self._gone.is_set() and updates.readline():
                pass
        except OSError:
            pass  # the run is over
        finally:
            client.close()

    def _look(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        after = -1
        try:
            while not self._gone.is_set():
                client.request("GET", f"/frame.jpg?source=1&after={after}")
                answer = client.getresponse()
                body = answer.read()
                if answer.status == 200 and body:
                    after = int(answer.headers["X-Edge-Seq"])
                    self.pictures += 1
        except (OSError, http.client.HTTPException):
            pass
        finally:
            client.close()


class Run:
    """edge-run with the page, as a process."""

    def __init__(self, *arguments: str) -> None:
        command = [str(EDGE_RUN), *arguments, "--web", "127.0.0.1:0", "--events", os.devnull]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said: list[str] = []
        self.port = 0
        for line in self.process.stderr:
            self.said.append(line)
            if "web: http" in line:
                self.port = int(line.strip().rstrip("/").rpartition(":")[2])
                break
        else:
            raise SystemExit(f"web.py: {''.join(self.said)}")
        self._reading = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True)
        self._reading.start()

    def cpu_s(self) -> float:
        """CPU time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Let it come to its end."""
        self.process.terminate()
        self.process.wait(30)


def cpu_shares(windows: int, seconds: float) -> tuple[list[float], list[float], float]:
    """CPU in % of a core in windows without and with one viewer, and the pictures a second that it got."""
    run = Run("--source", "demo", "--threads", "1")
    alone, watched, pictures = [], [], 0
    try:
        time.sleep(5)
        for _ in range(windows):
            for shares in (alone, watched):
                viewer = Viewer(run.port) if shares is watched else None
                time.sleep(0.5)
                begun_s, spent_s = time.monotonic(), run.cpu_s()
                before = viewer.pictures if viewer is not None else 0
                time.sleep(seconds)
                shares.append(100 * (run.cpu_s() - spent_s) / (time.monotonic() - begun_s))
                if viewer is not None:
                    pictures += viewer.pictures - before
                    viewer.leave()
    finally:
        run.end()
    return alone, watched, pictures / (windows * seconds)


def frame_rates(runs: int, frames: int, video: Path) -> tuple[list[float], list[float], float]:
    """Frames/s of runs without and with five viewers, and the pictures a second that each viewer got."""
    alone, watched, seen = [], [], []
    for _ in range(runs):
        for rates in (alone, watched):
            summary = video.with_name("summary.json")
            run = Run("--source", str(video), "--max-frames", str(frames), "--summary", str(summary))
            viewers = [Viewer(run.port) for _ in range(VIEWERS)] if rates is watched else []
            run.process.wait(600)
            for viewer in viewers:
                viewer.leave()
            told = json.loads(summary.read_text())
            rates.append(told["fps"])
            seen += [viewer.pictures / told["seconds"] for viewer in viewers]
    return alone, watched, statistics.median(seen)


def make_video(path: Path, frames: int) -> Path:
    """Frames of the demo's photographs, 640x480."""
    import cv2

    from edge.sources.demo import DemoSource

    demo = DemoSource()
    demo.open()
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (640, 480))
    for number in range(frames):
        writer.write(demo.picture(number))
    writer.release()
    return path


def microseconds(events: int = 20_000) -> tuple[float, float]:
    """Medians of what `wants` takes of the loop's thread: for a classifier's event and for one of eight tracked objects."""
    import numpy as np

    from edge.types import Classes, Decision, Detections, Event, Frame, Result
    from edge.web.moments import Moments
    from edge.web.preview import Preview
    from edge.web.sink import WebSink

    sink = WebSink.__new__(WebSink)  # without a server
    sink._numbers, sink.preview, sink.moments = {"a": 0}, Preview(1, 5.0), Moments(["a"])
    sink.server = type("Server", (), {"alive": True})()  # type: ignore[assignment]
    frame = Frame(np.zeros((480, 640, 3), np.uint8), 0, 0.0, "a")
    classes = Classes(np.arange(5), np.full(5, 0.2, np.float32), tuple("abcde"))
    boxes = np.array([(0, 0, 9, 9)] * 8, np.float32)
    objects = Detections(boxes, np.full(8, 0.5, np.float32), np.zeros(8, np.int64), ("cat",) * 8, np.arange(8))
    medians = []
    results: Sequence[Result] = (classes, objects)
    for result in results:
        event = Event(frame, result, Decision("accept", "", 0.5), "m", "v", 0.0, 0.0)
        took = []
        for _ in range(events):
            begun_ns = time.perf_counter_ns()
            sink.wants(event)
            took.append(time.perf_counter_ns() - begun_ns)
        medians.append(statistics.median(took) / 1e3)
    return medians[0], medians[1]


def milliseconds(size_wh: tuple[int, int], pictures: int = 60) -> tuple[float, float]:
    """Medians of the CPU that a preview and a thumbnail take."""
    import cv2

    from edge.sources.demo import DemoSource
    from edge.types import Classes, Decision, Event, Frame
    from edge.web import moments, preview

    cv2.setNumThreads(1)
    demo = DemoSource()
    demo.open()
    import numpy as np

    classes = Classes(np.zeros(1, np.int64), np.full(1, 0.5, np.float32), ("coffee mug",))
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(pictures):
        image = cv2.resize(demo.picture(number), size_wh)
        event = Event(Frame(image, number, 0.0, "a"), classes, Decision("accept", "", 0.5), "m", "v", 0.0, 0.0)  # type: ignore[arg-type]
        for times, side, quality in zip(
            took, (preview.LONGEST_SIDE, moments.LONGEST_SIDE), (preview.QUALITY, moments.QUALITY), strict=True
        ):
            begun_s = time.thread_time()
            preview.encoded(preview.drawn(event, side), quality)
            times.append(1e3 * (time.thread_time() - begun_s))
    return statistics.median(took[0]), statistics.median(took[1])


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--frames", type=int, default=3000)
    args = parser.parse_args()
    classifier_us, detector_us = microseconds()
    print("| of the loop's thread, nobody looks | median |\n|---|---:|")
    print(
        f"| an event of a classifier | {classifier_us:.2f} µs |\n| an event of eight tracked objects | {detector_us:.2f} µs |\n"
    )
    print("| CPU of a picture, one thread | preview | thumbnail |\n|---|---:|---:|")
    for size_wh in ((640, 480), (1280, 720), (1920, 1080)):
        preview_ms, thumbnail_ms = milliseconds(size_wh)
        print(f"| {size_wh[0]}x{size_wh[1]} | {preview_ms:.2f} ms | {thumbnail_ms:.2f} ms |")
    alone, watched, pictures = cpu_shares(args.windows, args.seconds)
    more = statistics.median(b - a for a, b in zip(alone, watched, strict=True))
    print(f"\n| {args.windows} pairs of {args.seconds:g} s, demo, 15 frames/s | CPU, % of a core |\n|---|---:|")
    print(f"| nobody looks | {statistics.median(alone):.1f} |")
    print(f"| one viewer, {pictures:.1f} pictures/s | {statistics.median(watched):.1f} |")
    print(f"| median of the differences | {more:+.1f} |\n", flush=True)
    with tempfile.TemporaryDirectory() as work:
        video = make_video(Path(work, "demo.mp4"), args.frames)
        alone, watched, pictures = frame_rates(args.runs, args.frames, video)
    ratio = statistics.median(b / a for a, b in zip(alone, watched, strict=True))
    print(f"| {args.runs} pairs of {args.frames} frames, as fast as it goes | frames/s |\n|---|---:|")
    print(f"| nobody looks | {statistics.median(alone):.1f} |")
    print(f"| {VIEWERS} viewers, {pictures:.1f} pictures/s each | {statistics.median(watched):.1f} |")
    print(f"| median of the ratios | {ratio:.3f} |")


if __name__ == "__main__":
    main()
