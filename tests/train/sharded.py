"""Shards that tests make, and a server for them."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edge.card import Label
from tests.train.pictured import jpeg, put, scene

LABELS = (Label(id="a", name="a"), Label(id="b", name="b"))


def tar_of(files: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return held.getvalue()


def shard(first: int, count: int) -> bytes:
    """Samples whose class is their number's parity."""
    files = {}
    for i in range(first, first + count):
        files[f"{i:04d}.jpg"] = jpeg(scene(i))
        files[f"{i:04d}.cls"] = str(i % 2).encode()
    return tar_of(files)


def ten_shards(folder: Path) -> Path:
    """Ten shards of three samples each."""
    for i in range(10):
        put(folder / f"train-{i:04d}.tar", shard(3 * i, 3))
    return folder


def places(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def index_of(counts: Mapping[str, int], labels: Mapping[str, list[int]] | None = None) -> str:
    """An index.json of shards by their names, with counts of each class number where they are given."""
    listed: list[dict[str, object]] = [{"url": name, "nsamples": count} for name, count in counts.items()]
    for item, row in zip(listed, (labels or {}).values(), strict=labels is not None):
        item["label_counts"] = row
    return json.dumps({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed})


class Server:
    """Files over HTTP: counts requests, and answers `faults` before it does what it is asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        self.faults: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                fault = outer.faults.pop(0) if outer.faults else ""
                content = files.get(self.path.lstrip("/"))
                if fault == "busy" or content is None:
                    self.send_response(503 if fault else 404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:700] if fault == "short" else content)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is no news."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
