"""Malformed requests by the thousand, to a real process: no crash, no fault of ours, bounded memory."""

from __future__ import annotations

import copy
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.oip import HEADER_LENGTH, NamedTensor, encode_request
from tests.cloud.conftest import Process, running
from tests.cloud.test_command import asked
from tests.cloud.test_pictures import jpeg_of_size, png

INFER = "/v2/models/tiny/infer"
MORE_MB = 400
"""Two lanes, each with one picture of the largest size that is accepted, are within it."""
VALUES: tuple[Any, ...] = (
    None,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**64,
    1e308,
    "",
    "x" * 1000,
    "\ud800",
    [],
    {},
    [[]],
    True,
    "BYTES",
    "FP32",
)
HEADS: tuple[bytes, ...] = (
    b"Transfer-Encoding: chunked",
    b"Content-Length: 10",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br",
    b"Expect: 100-continue",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Authorization: Bearer " + b"x" * 5000,
    b"Idempotency-Key: \xff\xfe",
    HEADER_LENGTH.encode() + b": 99999999",
    HEADER_LENGTH.encode() + b": -5",
    b": none",
    b"a" * 70_000 + b": b",
)


class Malformed:
    """Bytes to send on a connection of their own, by a seeded generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        self._pictures = [cv2.imencode(suffix, image)[1].tobytes() for suffix in (".jpg", ".png")]
        self._kinds: tuple[Callable[[], bytes], ...] = (self.json, self.binary, self.picture, self.bomb, self.http)

    def __call__(self) -> bytes:
        return self._random.choice(self._kinds)()

    def json(self) -> bytes:
        """A JSON request in which some value is another."""
        tensor = {"name": "tensor", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072, "parameters": {}}
        request: Any = {"id": "1", "inputs": [tensor], "outputs": [{"name": "logits", "parameters": {}}], "parameters": {}}
        for _ in range(self._random.randint(1, 3)):
            place = self._random.choice([request, tensor])
            place[self._random.choice([*place, "new"])] = copy.deepcopy(self._random.choice(VALUES))
        text = json.dumps(request).encode()
        if self._random.random() < 0.2:
            text = text[: self._random.randrange(len(text))] + self._random.choice([b"", b"[" * 5000, b"\xff", b"1e999"])
        return self._posted(text, {})

    def binary(self) -> bytes:
        """A binary request whose lengths lie, or that is cut short."""
        body, headers = encode_request(
            [NamedTensor.of("image", [self._random.choice(self._pictures)] * self._random.randint(1, 3))]
        )
        at = self._random.randrange(len(body))
        damage = self._random.randbytes(self._random.randint(1, 8))
        body = self._random.choice([body[:at], body[:at] + damage + body[at + len(damage) :], body + damage])
        if self._random.random() < 0.5:
            headers[HEADER_LENGTH] = str(self._random.choice([0, 1, len(body), len(body) + 1, 2**40, at]))
        return self._posted(body, headers)

    def picture(self) -> bytes:
        """A picture that is cut short, or has other bytes in it."""
        raw = bytearray(self._random.choice(self._pictures))
        for _ in range(self._random.randint(0, 4)):
            raw[self._random.randrange(len(raw))] = self._random.randrange(256)
        if self._random.random() < 0.5:
            del raw[self._random.randrange(len(raw)) :]
        return self._posted(*encode_request([NamedTensor.of("image", [bytes(raw)])]))

    def bomb(self) -> bytes:
        """A picture that says it is large, or has absurd lengths within."""
        width, height = (self._random.choice([0, 1, 4999, 5001, 30_000, 65_500]) for _ in range(2))
        raw = self._random.choice(
            [
                jpeg_of_size(self._pictures[0], width, height),
                png(width, height, b"\x78\x9c" + self._random.randbytes(20)),
                self._pictures[1][:33] + struct.pack(">I", self._random.randrange(2**32)) + self._pictures[1][37:],
                self._pictures[0][:-2] + b"\xff\xda" * self._random.choice([5, 40]) + b"\xff\xd9",
            ]
        )
        return self._posted(*encode_request([NamedTensor.of("image", [raw])]))

    def http(self) -> bytes:
        """A request whose head is not as it should be."""
        raw = bytearray(self._posted(*encode_request([NamedTensor.of("image", [self._pictures[0]])])))
        at = raw.index(b"\r\n") + 2
        for _ in range(self._random.randint(1, 3)):
            raw[at:at] = self._random.choice(HEADS) + b"\r\n"
        for _ in range(self._random.randint(0, 3)):
            raw[self._random.randrange(at + 100)] = self._random.randrange(256)
        return bytes(raw)

    def _posted(self, body: bytes, headers: dict[str, str]) -> bytes:
        lines = [f"POST {INFER} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


def answer(endpoint: Process, request: bytes) -> int:
    """The status that came back; 0 when the connection was closed without."""
    host, _, port = endpoint.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=15) as sock:
        try:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            reply = sock.recv(1 << 16)
        except OSError:
            return 0
    return int(reply[9:12]) if reply else 0


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests(bundle: Path, jpeg: bytes, count: int) -> None:
    malformed = Malformed(count)
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])
    with running("--model", bundle) as endpoint:
        assert asked(endpoint.address, "POST", INFER, body, headers) == 200
        before_mb = peak_mb(endpoint.popen.pid)
        seen: Counter[int] = Counter()
        for _ in range(count):
            request = malformed()
            status = answer(endpoint, request)
            assert status < 500 or status == 501, (status, request[:2000])
            seen[status] += 1
        assert asked(endpoint.address, "POST", INFER, body, headers) == 200
        assert peak_mb(endpoint.popen.pid) - before_mb < MORE_MB
        assert endpoint.end() == (0, "")
    assert seen[400] > 0.4 * count, seen
