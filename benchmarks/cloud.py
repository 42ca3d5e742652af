"""`edge-cloud` under load, and beside MLServer with the same session, preprocessing and lanes (peer_mlserver.py).

    python benchmarks/cloud.py [--mlserver PYTHON] [--clients 16] [--seconds 10] [--rounds 3] ...

Closed loop: each client, on a connection kept alive, asks again once it is answered. Overload: an open loop of four times
the rate that the closed loop reached. Servers take turns, A B A B ...; the load runs in this process, on the same cores:
what it takes of them, and what everything else on the machine takes, is told beside the overload. CPU of an answer is that
of the server's processes, so it tells its cost also where the machine is not quiet. PYTHON is the interpreter of an
environment with mlserver, onnxruntime, opencv-python-headless, msgspec and click.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import Load, Measured
from edge.oip import NamedTensor, encode_request

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("EDGE_DATA", HERE.parent.parent / "shared" / "data"))
PHOTOS = HERE.parent / "edge" / "data" / "photos"
OVERLOAD = 4.0
CONNECTIONS = 400


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test: where it listens, the path of its model's inference, its process."""

    name: str
    port: int
    path: str
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds of its process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests(path: str, binary: bool) -> list[bytes]:
    """64 requests, of one JPEG each: of imagenette's validation set, or the photographs in the package."""
    pictures = sorted((DATA / "imagenette" / "val").glob("*/*"))[:64] or sorted(PHOTOS.glob("*.jpg"))
    made = []
    for picture in pictures:
        tensor = NamedTensor("image", "BYTES", (1,), [picture.read_bytes()], {} if binary else {"content_type": "base64"})
        body, headers = encode_request([tensor], ("labels", "scores"), binary=binary)
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        made.append("\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode() + body)
    return made


@contextmanager
def edge_cloud(max_wait_s: float) -> Iterator[Server]:
    """Ours, with everything else as it comes."""
    command = [sys.executable, "-m", "cloud.cli", "--port", "0", "--max-wait", str(max_wait_s)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=HERE.parent)
    try:
        assert process.stderr is not None
        port = re.search(r"ready at http://[\d.]+:(\d+)", line := process.stderr.readline())
        if port is None:
            raise SystemExit(f"cloud.py: {line}")
        yield Server("edge-cloud", int(port[1]), "/v2/models/efficientnet-lite0/infer", process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def mlserver(python: Path, lanes: int) -> Iterator[Server]:
    """MLServer with our runtime, in one process, as edge-cloud is."""
    ports = [free_port() for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        model = {"name": "lite0", "implementation": "peer_mlserver.Lite0", "parameters": {"extra": {"lanes": lanes}}}
        settings = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)) | {
            "host": "127.0.0.1",
            "parallel_workers": 0,
            "debug": False,
        }
        Path(folder, "model-settings.json").write_text(json.dumps(model))
        Path(folder, "settings.json").write_text(json.dumps(settings))
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        with open(Path(folder, "log"), "w") as log:
            command = [python.with_name("mlserver"), "start", folder]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(f"http://127.0.0.1:{ports[0]}/v2/models/lite0/ready", process, Path(folder, "log"))
            yield Server("MLServer", ports[0], "/v2/models/lite0/infer", process.pid)
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers; leaves with its log when it ends instead."""
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"cloud.py: mlserver ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"cloud.py: {url} does not answer")


def closed(server: Server, clients: int, seconds: float, binary: bool) -> tuple[Measured, float]:
    """A closed loop, and the server's CPU milliseconds an answer."""
    load = Load("127.0.0.1", server.port, requests(server.path, binary), seconds=seconds)
    before_s = server.cpu_s()
    measured = run(load.closed_loop(clients))
    return measured, (server.cpu_s() - before_s) * 1000 / max(load.answers, 1)


@dataclass(slots=True)
class Cores:
    """Who has used the machine's cores since this was made."""

    server: Server
    begun: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        self.begun = self._now()

    def used(self) -> tuple[float, float, float]:
        """Cores that the server, this process and all others took."""
        seconds, server, load, all_of_them = (now - begun for now, begun in zip(self._now(), self.begun, strict=True))
        return server / seconds, load / seconds, max(0.0, all_of_them - server - load) / seconds

    def _now(self) -> tuple[float, float, float, float]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy_s = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # without idle and iowait: proc(5)
        return time.perf_counter(), self.server.cpu_s(), time.process_time(), busy_s


def run(work: object) -> Measured:
    """On uvloop where it is installed: the load should cost as little as it can."""
    try:
        import uvloop

        return uvloop.run(work)  # type: ignore[no-any-return, arg-type]
    except ImportError:
        return asyncio.run(work)  # type: ignore[arg-type]


def told(what: str, measured: Measured, cpu_ms: float | None = None) -> None:
    """One line of the table."""
    cpu = f", {cpu_ms:.2f} ms CPU an answer" if cpu_ms is not None else ""
    p50, p99 = (measured.percentile_ms(percent) for percent in (50, 99))
    print(f"{what:34} {measured.rate():7.1f}/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms{cpu}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlserver", type=Path, metavar="PYTHON")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-wait", type=float, default=0.25, help="of edge-cloud, as its option [default: %(default)s]")
    args = parser.parse_args()
    lanes = len(os.sched_getaffinity(0))
    load_average = os.getloadavg()[0]
    print(f"{lanes} cores, {args.clients} clients, {args.rounds} rounds of {args.seconds:g} s, load average {load_average:.1f}")
    with ExitStack() as stack:
        ours = stack.enter_context(edge_cloud(args.max_wait))
        peer = stack.enter_context(mlserver(args.mlserver, lanes)) if args.mlserver else None
        ratios, tails, peaks, kept = [], [], [], []
        for _ in range(args.rounds):
            measured, cpu_ms = closed(ours, args.clients, args.seconds, binary=True)
            told("edge-cloud, binary", measured, cpu_ms)
            peaks.append(measured.rate())
            if peer is not None:
                mine, cpu_ms = closed(ours, args.clients, args.seconds, binary=False)
                told("edge-cloud, JSON", mine, cpu_ms)
                theirs, cpu_ms = closed(peer, args.clients, args.seconds, binary=False)
                told("MLServer, JSON", theirs, cpu_ms)
                ratios.append(mine.rate() / theirs.rate())
                tails.append(mine.percentile_ms(99) / theirs.percentile_ms(99))
            load = Load("127.0.0.1", ours.port, requests(ours.path, True), seconds=args.seconds)
            cores = Cores(ours)
            over = run(load.open_loop(OVERLOAD * peaks[-1], CONNECTIONS))
            server, load_itself, others = cores.used()
            told(f"edge-cloud, {OVERLOAD:g} times that rate", over)
            kept.append(over.rate() / peaks[-1])
            print(
                f"{'':34} {over.rate(429):7.1f}/s refused, p50 {over.percentile_ms(50, 429):.1f} ms, "
                f"p99 {over.percentile_ms(99, 429):.1f} ms; {over.unsent} not sent\n"
                f"{'':34} cores: {server:.2f} the server, {load_itself:.2f} the load, {others:.2f} others",
                flush=True,
            )
    print(f"throughput kept at {OVERLOAD:g} times capacity: {statistics.median(kept):.2f}")
    if ratios:
        print(f"against MLServer: {statistics.median(ratios):.2f} times its throughput, {statistics.median(tails):.2f} its p99")


if __name__ == "__main__":
    main()
