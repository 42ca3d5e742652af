"""make demo: an endpoint on loopback, the loop on the packaged photographs with the live page, the endpoint dying half-way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("out")
FRAMES = 240
BIN = Path(sys.executable).parent


def tell(line: str) -> None:
    """Print at once, so that our lines and our children's stand in the order they happened."""
    print(line, flush=True)


def start_endpoint() -> tuple[subprocess.Popen[bytes], str]:
    """Start edge-cloud on a free loopback port; the process and its URL, once it is ready."""
    log = OUT / "endpoint.log"
    with log.open("wb") as file:
        endpoint = subprocess.Popen([BIN / "edge-cloud", "--port", "0"], stderr=file)
    while endpoint.poll() is None:
        said = log.read_text()
        if ready := re.search(r"http://[\w.:\[\]]+", said):
            tell(f"   {said.strip()}")
            return endpoint, ready[0]
        time.sleep(0.05)
    raise SystemExit(f"the endpoint did not start: {log.read_text().strip()}")


def answered(events: Path) -> int:
    """How many frames have a local answer by now."""
    return events.read_bytes().count(b'"revises":false') if events.exists() else 0


def main() -> None:
    """Run the demo and say what happened."""
    OUT.mkdir(exist_ok=True)
    events = OUT / "events.jsonl"
    events.unlink(missing_ok=True)
    tell("1. The endpoint: edge-cloud on loopback.")
    endpoint, url = start_endpoint()
    command = ["edge-run", "--source", "demo", "--offload", url, "--threshold", "0.6", "--max-frames", str(FRAMES)]
    command += ["--events", str(events), "--video", str(OUT / "demo.mp4"), "--summary", str(OUT / "summary.json")]
    command += ["--web", "0"]
    tell(f"2. The loop; while it runs, open the page that it serves: {' '.join(command)}")
    loop = subprocess.Popen([BIN / command[0], *command[1:]], env=os.environ | {"TERM": "dumb"})  # lines, no status line
    try:
        while loop.poll() is None and answered(events) < FRAMES // 2:
            time.sleep(0.1)
        tell("3. Half-way: the endpoint is stopped, the loop goes on.")
        endpoint.send_signal(signal.SIGTERM)
        if loop.wait() != 0:
            raise SystemExit(f"edge-run ended with exit code {loop.returncode}")
    finally:
        for process in (loop, endpoint):
            if process.poll() is None:
                process.kill()
            process.wait()
    report([json.loads(line) for line in events.read_text().splitlines()])


def report(events: list[dict]) -> None:
    """Say what the events show."""
    events = [event for event in events if event["kind"] == "frame"]  # the others are notices
    local = [event for event in events if not event["revises"]]
    revised = [event for event in events if event["revises"]]
    tell("4. What happened.")
    tell(f"   Every frame has a local answer: {len({event['seq'] for event in local})} of {FRAMES}.")
    for name, half in (("First half", local[: FRAMES // 2]), ("Second half", local[FRAMES // 2 :])):
        asked = sum(event["decision"]["action"] == "offload" for event in half)
        alone = sum("unavailable" in event["decision"]["reason"] for event in half)
        age_ms = sorted(event["age_ms"] for event in half)[len(half) // 2]
        tell(f"   {name}: {asked} frames sent to the cloud, {alone} kept because it was gone, median age {age_ms:.1f} ms.")
    tell(f"   {len(revised)} answers of the cloud came as later events with revises: true. For example:")
    for seq in [event["seq"] for event in revised[:1]]:
        for event in (event for event in events if event["seq"] == seq):
            best = event["result"]["classes"][0]
            tell(f"   frame {seq}, {event['served_by']}, after {event['age_ms']:.0f} ms: {best['label']} {best['score']:.0%}")
    tell("   (The endpoint serves the same small model here, so it is hardly wiser; in earnest, give it a larger one.)")
    away = sum("unavailable" in event["decision"]["reason"] for event in local)
    if len(local) != FRAMES or not revised or not away:
        raise SystemExit(
            f"not as it should be: {len(local)} of {FRAMES} frames, {len(revised)} revised, {away} while it was away"
        )
    tell(f"Look at {OUT}/demo.mp4, {OUT}/events.jsonl and {OUT}/summary.json.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
