"""What a question costs by HTTP and by gRPC: one client in this process against edge-cloud, in turns A B A B.

    python benchmarks/offload_grpc.py [--pairs 10] [--requests 100] [--width 640]

Each turn sends the same JPEG so many times, one after another, by the transports of `edge-run --offload`. The columns are
medians of the turns: p50 and p99 of a turn's requests, and the processor time of this process and of edge-cloud a request.
Memory is what a process of its own holds more after one turn than before it loaded the client.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from edge.oip import NamedTensor
from edge.progress import Progress

PHOTO = Path(__file__).parents[1] / "edge" / "data" / "photos"
KINDS = ("http", "grpc")
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def edge_cloud() -> Iterator[tuple[int, dict[str, str]]]:
    """Its process id, and the packaged classifier's URL by each transport."""
    command = [sys.executable, "-m", "cloud.cli", "--name", "big", "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        address = ready.split("http://")[1].split(",")[0]
        grpc_port = int(ready.rpartition(" ")[2])
        yield process.pid, {"http": f"http://{address}/v2/models/big", "grpc": f"grpc://127.0.0.1:{grpc_port}/big"}
    finally:
        process.kill()
        process.communicate()


def picture(width: int) -> bytes:
    """A photo of the package, as edge-run sends it."""
    image = cv2.imread(str(sorted(PHOTO.iterdir())[0]))
    assert image is not None
    height = round(image.shape[0] * width / image.shape[1])
    return cv2.imencode(".jpg", cv2.resize(image, (width, height)), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


class Client:
    """One transport, opened when it is first asked."""

    def __init__(self, url: str, jpeg: bytes) -> None:
        from edge.offload.address import parse_address
        from edge.offload.credentials import Credentials
        from edge.offload.endpoint import open_transport

        self._jpeg = jpeg
        self._transport = open_transport(parse_address(url, "big"), Credentials(), 1, 10.0)

    def turn(self, requests: int) -> list[float]:
        """The seconds of each request."""
        from edge.offload.transport import Request

        seconds = []
        for number in range(requests):
            request = Request(NamedTensor.of("image", [self._jpeg]), ("labels", "scores"), str(number), f"{time.time()}", {})
            begun_s = time.perf_counter()
            reply = self._transport.infer(request, time.monotonic() + 10, binary=True)
            reply.response()
            seconds.append(time.perf_counter() - begun_s)
        return seconds


def cpu_s(pid: int) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def held_mb() -> float:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--memory", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    jpeg = picture(args.width)
    if args.memory:
        before_mb = held_mb()
        Client(args.memory, jpeg).turn(args.requests)
        print(held_mb() - before_mb)
        return
    rows: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in KINDS}
    with Progress("offload_grpc.py") as progress, edge_cloud() as (pid, urls):
        clients = {kind: Client(urls[kind], jpeg) for kind in KINDS}
        for client in clients.values():
            client.turn(args.requests // 2)
        for _ in progress.over(range(args.pairs), "pairs"):
            for kind, client in clients.items():
                ours_s, theirs_s = time.process_time(), cpu_s(pid)
                seconds = sorted(client.turn(args.requests))
                ours_s, theirs_s = time.process_time() - ours_s, cpu_s(pid) - theirs_s
                middle, late = statistics.median(seconds), seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))]
                rows[kind].append((middle * 1e3, late * 1e3, ours_s / args.requests * 1e3, theirs_s / args.requests * 1e3))
        progress("memory of the client")
        memory = {kind: run_for_memory(urls[kind], args) for kind in KINDS}
    print(f"{len(jpeg) / 1e3:.0f} kB a picture, {args.pairs} pairs of turns of {args.requests}")
    print("| | p50, ms | p99, ms | CPU ms of the client | CPU ms of edge-cloud | MB the client holds |")
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        columns = " | ".join(f"{statistics.median(column):.2f}" for column in zip(*rows[kind], strict=True))
        print(f"| {kind} | {columns} | {memory[kind]:.1f} |")
    ratios = [[g / h for g, h in zip(*pair, strict=True)] for pair in zip(rows["grpc"], rows["http"], strict=True)]
    print("gRPC / HTTP: " + ", ".join(f"{statistics.median(column):.2f}" for column in zip(*ratios, strict=True)))


def run_for_memory(url: str, args: argparse.Namespace) -> float:
    """The median of three processes."""
    command = [sys.executable, __file__, "--memory", url, "--requests", str(args.requests), "--width", str(args.width)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
    return statistics.median(float(run.stdout) for run in runs)


if __name__ == "__main__":
    main()
