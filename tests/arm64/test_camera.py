"""The headline command on an emulated ARM board with a webcam: Debian's arm64 kernel, its vivid driver, the wheel."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from edge.bundle import open_bundle
from edge.packaged import DEFAULT_BUNDLE
from tests.arm64.conftest import REPOSITORY
from tests.arm64.emulation import SITE
from tests.camera.running import errors

# camera, too: whoever leaves out what needs a V4L2 device leaves this out
pytestmark = [pytest.mark.arm64_camera, pytest.mark.camera]
VM = REPOSITORY / "tests" / "camera" / "vm.sh"
LIMIT_S = 240
FRAMES = 5
PARTS = "=-=-= parts =-=-="
"""A line between what the VM prints: it has no other way out than its console."""
FORMAT = """
import fcntl, struct
wanted = bytearray(struct.pack("<I204x", 1))
with open("/dev/video0", "rb", 0) as camera:
    fcntl.ioctl(camera, 0xC0D05604, wanted)
width, height, pixels = struct.unpack_from("<II4s", wanted, 8)
print(f"{width}x{height} {pixels.decode()}")
"""
"""The driver's own word for what it delivered last (VIDIOC_G_FMT)."""
SCRIPT = f"""
export PYTHONPATH={SITE} PYTHONDONTWRITEBYTECODE=1
cut -d ' ' -f 1 /proc/uptime
echo '{PARTS}'
python3 {SITE}/bin/edge-run --camera 0 --max-frames {FRAMES} --threads 1 --events /tmp/events --summary /tmp/summary
code=$?
for part in /tmp/events /tmp/summary; do echo '{PARTS}'; cat $part; done
echo '{PARTS}'
python3 -c {shlex.quote(FORMAT)}
exit $code
"""


def test_edge_run_camera_0_on_an_arm_kernel(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No deadline is extended: the camera has to open, and to deliver, within those of a real board."""
    (root / "tmp" / "camera.sh").write_text(SCRIPT)
    begun_s = time.monotonic()
    ran = subprocess.run(
        ["bash", VM, "sh", "/tmp/camera.sh"],
        env=os.environ | {"ARCH": "arm64", "ROOT": str(root), "TIMEOUT": str(LIMIT_S)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S + 120,  # the first time, the kernel is fetched
        check=False,
    )
    took_s = time.monotonic() - begun_s
    told = f"{ran.stdout}\n{ran.stderr}"
    assert ran.returncode == 0, told
    parts = ran.stdout.split(f"{PARTS}\n")
    assert len(parts) == 5, told
    uptime, said, events_text, summary_text, negotiated = parts
    events = [json.loads(line) for line in events_text.splitlines()]
    summary = json.loads(summary_text)

    # a variant that disagrees with its golden check is passed over, and that is said
    assert errors(said.splitlines()) == []
    variants = {variant.name for variant in open_bundle(DEFAULT_BUNDLE).card.variants}
    frames = [event for event in events if event["kind"] == "frame"]
    assert len(frames) == FRAMES
    assert {frame["source"] for frame in frames} == {"camera:0"}
    assert {frame["variant"] for frame in frames} == {summary["variant"]}
    assert summary["variant"] in variants
    assert all(frame["result"]["classes"] for frame in frames)
    numbers = [frame["seq"] for frame in frames]
    assert numbers == sorted(set(numbers))

    [opened] = [event for event in events if event["kind"] == "notice"]
    assert (opened["notice"], opened["about"]) == ("source-open", "camera:0")
    assert negotiated.startswith("640x480 ")
    assert opened["text"].startswith(f"{negotiated.strip()} "), f"{opened['text']!r}, and the driver says {negotiated!r}"

    assert summary["frames"] == FRAMES
    assert [counts["lost"] for counts in summary["sources"]] == [0]
    assert summary["events_lost"] == 0
    with capsys.disabled():
        print(
            f"\narm64 camera: {float(uptime):.0f} s to the command, {summary['first_result_s']:.0f} s to the first event, "
            f"{summary['latency_ms']['end_to_end']['p50']:.0f} ms a frame, {took_s:.0f} s in all"
        )
