"""Take the screenshots of the live page: edge-run with a detector, a camera that shows the packaged photographs, edge-cloud.

    docs/screenshots.py build/yolox-nano.edge

Everything in them is real: the camera goes away and comes back, the endpoint dies, edge-run ends. Needs playwright and
/usr/bin/chromium.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).parent
PHOTOS = [cv2.imread(str(path)) for path in sorted((DOCS.parent / "edge/data/photos").glob("*.jpg"))]
BIN = Path(sys.executable).parent
FPS, SIZE, SHOWN_S, QUALITY = 10, (640, 360), 12.0, 88


class Camera(BaseHTTPRequestHandler):
    """Photographs, one after another, under a hand that is not quite steady."""

    plugged = True

    def do_GET(self) -> None:
        self.send_response(200 if Camera.plugged else 503)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while Camera.plugged:
            picture = _picture(time.monotonic())
            try:
                self.wfile.write(
                    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture + b"\r\n"
                )
            except OSError:
                return
            time.sleep(1 / FPS)

    def log_message(self, *arguments: object) -> None:
        pass


def _picture(now_s: float) -> bytes:
    photo = PHOTOS[int(now_s / SHOWN_S) % len(PHOTOS)]
    height, width = photo.shape[:2]
    scale = max(SIZE[0] / width, SIZE[1] / height) * 1.1
    shift = [(SIZE[i] - scale * (width, height)[i]) / 2 * (1 + 0.5 * math.sin(now_s / (2 + i))) for i in (0, 1)]
    moved = cv2.warpAffine(photo, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), SIZE, flags=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def start(*command: str) -> tuple[subprocess.Popen[str], str]:
    """Start a command; its first URL that it says."""
    process = subprocess.Popen([BIN / command[0], *command[1:]], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"https?://[\w.:\[\]]+", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[0]
    raise SystemExit(f"{command[0]} ended before it was up")


def pages(browser: Browser, url: str) -> Iterator[tuple[str, Page]]:
    """The page as a desktop and a phone see it, each with its name."""
    for name, size, scheme, scale in (
        ("desktop-dark", (1280, 800), "dark", 1),
        ("desktop-light", (1280, 800), "light", 1),
        ("phone", (390, 844), "dark", 2),
    ):
        viewport = {"width": size[0], "height": size[1]}
        page = browser.new_context(viewport=viewport, color_scheme=scheme, device_scale_factor=scale).new_page()
        page.goto(url)
        yield name, page


def take(page: Page, name: str) -> None:
    """Write docs/images/NAME.jpg."""
    image = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    path = DOCS / "images" / f"{name}.jpg"
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    print(path, path.stat().st_size)


def main(bundle: str) -> None:
    """Take them all."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    camera = f"http://127.0.0.1:{server.server_address[1]}/entrance"
    started = []
    try:
        cloud, endpoint = start("edge-cloud", "--model", bundle, "--port", "0", "--threads", "1")
        started.append(cloud)
        options = ["--offload", endpoint, "--threshold", "0.55", "--track", "--threads", "1", "--web", "127.0.0.1:0"]
        run, url = start("edge-run", "--source", camera, "--model", bundle, *options, "--events", "/dev/null")
        started.append(run)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            shown = dict(pages(browser, url))
            desktop = shown["desktop-dark"]
            desktop.wait_for_timeout(100_000)
            while int(time.monotonic() / SHOWN_S) % len(PHOTOS) or time.monotonic() % SHOWN_S < SHOWN_S / 2:
                desktop.wait_for_timeout(200)  # the first photograph, which the detector knows
            for name, page in shown.items():
                page.bring_to_front()
                page.wait_for_timeout(800)
                take(page, f"live-page-{name}")
            desktop.bring_to_front()
            Camera.plugged = False
            cloud.kill()
            desktop.wait_for_timeout(12_000)
            take(desktop, "live-page-camera-lost")
            Camera.plugged = True
            desktop.wait_for_timeout(20_000)
            run.kill()
            desktop.wait_for_timeout(8000)
            take(desktop, "live-page-disconnected")
            demo, url = start("edge-run", "--source", "demo", "--web", "127.0.0.1:0", "--events", "/dev/null")
            started.append(demo)
            page = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
            page.goto(url)
            page.wait_for_timeout(30_000)
            take(page, "first-ten-minutes")
            browser.close()
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
