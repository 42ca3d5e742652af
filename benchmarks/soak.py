"""A long run of edge-run over cameras that keep failing: memory, descriptors, threads and processes must not grow.

    python benchmarks/soak.py [--minutes 30] [--json FILE]

Two HTTP cameras on loopback break off every few seconds, each in its own way (closing, hanging, resetting, repeating a
picture, changing its size), a third address never answers. Exits with 1 and what grew when anything did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from process_tree import descendants

from edge.progress import Progress

EDGE_RUN = Path(sys.executable).with_name("edge-run")
FAULTS = ("close", "hang", "reset", "repeat", "resize")
BY_CHANCE = 1.0
"""Descriptors and processes: whether a sample met both cameras away is chance; a leak is one an outage, of dozens."""
GROWTH_MB = 2.0
SAMPLE_S = 2.0


class Camera(BaseHTTPRequestHandler):
    """Motion JPEG at 20 frames/s, until a fault that comes after two to five seconds; the next connection has another."""

    def do_GET(self) -> None:
        fault, until_s = random.choice(FAULTS), time.monotonic() + random.uniform(2, 5)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        size, picture = (320, 240), b""
        try:
            for number in range(1_000_000):
                failing = time.monotonic() > until_s
                if failing and fault == "hang":
                    time.sleep(6.0)
                if failing and (fault in ("close", "hang") or time.monotonic() > until_s + 6.0):
                    return
                if failing and fault == "reset":
                    linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return
                if failing and fault == "resize":
                    size = (352, 288)
                if not (failing and fault == "repeat" and picture):
                    picture = jpeg(number, size)
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
                self.wfile.write(picture + b"\r\n")
                time.sleep(0.05)
        except OSError:
            return

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def jpeg(number: int, size_wh: tuple[int, int]) -> bytes:
    """A picture that is another one each time."""
    picture = np.full((size_wh[1], size_wh[0], 3), number % 200, np.uint8)
    cv2.putText(picture, str(number), (20, 120), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (255, 255, 255), 3)
    return cv2.imencode(".jpg", picture)[1].tobytes()


@dataclass(frozen=True, slots=True)
class Sample:
    """What edge-run held at one moment, the processes that it had started included in the last two figures."""

    at_s: float
    memory_mb: float
    descriptors: int
    threads: int
    processes: int
    children_mb: float


def sample(process: int, started_s: float) -> Sample:
    children = descendants(process)
    return Sample(
        at_s=round(time.monotonic() - started_s, 1),
        memory_mb=private_mb(process),
        descriptors=len(os.listdir(f"/proc/{process}/fd")),
        threads=len(os.listdir(f"/proc/{process}/task")),
        processes=len(children),
        children_mb=sum(private_mb(child) for child in children),
    )


def private_mb(process: int) -> float:
    """Memory that the process has written to alone, in MB of 2^20 bytes.

    Not frames shared with a reader, nor libraries, which are shared for as long as anyone else here runs them.
    """
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def soak(minutes: float, work: Path) -> tuple[list[Sample], dict[str, object]]:
    """Run edge-run for so long; the samples, and its summary."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Camera) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket() as nobody:  # bound and never listening: connections are refused
        nobody.bind(("127.0.0.1", 0))
        ports = [*(server.server_port for server in servers), nobody.getsockname()[1]]
        sources = [word for port in ports for word in ("--source", f"http://127.0.0.1:{port}/")]
        command = [str(EDGE_RUN), *sources, "--threads", "1", "--frozen-after", "3", "--summary", str(work / "summary.json")]
        command += [
            "--events",
            str(work / "events.jsonl"),
            "--rotate-mb",
            "1",
            "--keep",
            "2",
            "--store",
            str(work / "store.db"),
        ]
        with (work / "said.txt").open("wb") as said:
            process = subprocess.Popen(command, stderr=said, stdout=subprocess.DEVNULL)
        started_s, samples = time.monotonic(), []
        with Progress("soak.py") as progress:
            while time.monotonic() - started_s < minutes * 60:
                time.sleep(SAMPLE_S)
                if process.poll() is not None:
                    raise SystemExit(f"soak.py: edge-run ended by itself: {(work / 'said.txt').read_text()[-1000:]}")
                samples.append(sample(process.pid, started_s))
                progress("edge-run soaks", min(1.0, (time.monotonic() - started_s) / minutes / 60), 1.0)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=20)
    for server in servers:
        server.shutdown()
        server.server_close()
    if code:
        raise SystemExit(f"soak.py: edge-run exited {code}: {(work / 'said.txt').read_text()[-1000:]}")
    return samples, json.loads((work / "summary.json").read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", metavar="FILE", dest="json_path", help="also write every sample")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-soak-") as work:
        samples, summary = soak(args.minutes, Path(work))
    if args.json_path:
        Path(args.json_path).write_text(json.dumps([asdict(one) for one in samples]) + "\n")
    print("| | second quarter | last quarter | growth | allowed |\n|---|---|---|---|---|")
    quarter, failed = len(samples) // 4, []
    for field, allowed in (("memory_mb", GROWTH_MB), ("descriptors", BY_CHANCE), ("threads", 0.0), ("processes", BY_CHANCE)):
        values = [float(getattr(one, field)) for one in samples]
        # readers come and go, so that it is the least count that a leak raises
        typical = statistics.median if field == "memory_mb" else min
        middle, last = typical(values[quarter : 2 * quarter]), typical(values[-quarter:])
        print(f"| {field} | {middle:.1f} | {last:.1f} | {last - middle:+.1f} | {allowed:g} |")
        if last - middle > allowed:
            failed.append(field)
    for source in summary["sources"]:  # type: ignore[attr-defined]
        print(f"{source['name']}: {source['frames']} frames, lost {source['lost']} times")
    if failed:
        raise SystemExit(f"soak.py: grew: {', '.join(failed)}")


if __name__ == "__main__":
    main()
