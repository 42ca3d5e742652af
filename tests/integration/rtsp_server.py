"""rtsp://127.0.0.1:PORT/live: H.264 whose pictures tell when they were made. Runs with the system's python3, which has gi.

    python3 rtsp_server.py PORT [--fps 25] [--size 640x480]

Along the top edge are 32 blocks, white for a 1: time.monotonic() in milliseconds modulo 2^32, the highest bit first.
Below, a pattern moves. "listening" on standard output says that it can be connected to.
"""

from __future__ import annotations

import argparse
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS = 32
BLACK, WHITE, GREY = b"\x10", b"\xeb", b"\x80"
STAMP_SHARE = 16  # the stamp has one sixteenth of the height


class Pictures:
    """I420 pictures of one size, as bytes."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.stamp_rows = height // STAMP_SHARE
        self.ramp = bytes(32 + abs(96 - x * 2 % 192) for x in range(3 * width))
        self.colour = GREY * (width * height // 2)

    def picture(self, number: int, stamp_ms: int) -> bytes:
        bits = (WHITE if stamp_ms >> (BITS - 1 - place) & 1 else BLACK for place in range(BITS))
        stamp = b"".join(bit * (self.width // BITS) for bit in bits).ljust(self.width, BLACK) * self.stamp_rows
        shift = number * 4 % self.width
        return stamp + self.ramp[shift : shift + self.width] * (self.height - self.stamp_rows) + self.colour


class Feed:
    """Pushes a picture into the pipeline each frame period, from the moment that someone watches."""

    def __init__(self, source: Gst.Element, pictures: Pictures, fps: int) -> None:
        self.source, self.pictures, self.number = source, pictures, 0
        GLib.timeout_add(1000 // fps, self.push)

    def push(self) -> bool:
        stamp_ms = int(time.monotonic() * 1e3) % (1 << BITS)
        data = Gst.Buffer.new_wrapped(self.pictures.picture(self.number, stamp_ms))
        self.number += 1
        return self.source.emit("push-buffer", data) == Gst.FlowReturn.OK


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--size", default="640x480")
    chosen = parser.parse_args()
    width, height = map(int, chosen.size.split("x"))
    Gst.init(None)
    pictures = Pictures(width, height)
    caps = f"video/x-raw,format=I420,width={width},height={height},framerate={chosen.fps}/1"
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(
        f"( appsrc name=pictures is-live=true do-timestamp=true format=time max-bytes=0 caps={caps}"
        f" ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={chosen.fps} bitrate=1500"
        " ! rtph264pay name=pay0 config-interval=1 )"
    )
    feeds = []  # kept from the garbage collector
    factory.connect(
        "media-configure",
        lambda _, media: feeds.append(Feed(media.get_element().get_by_name_recurse_up("pictures"), pictures, chosen.fps)),
    )
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(chosen.port)
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        raise SystemExit(f"port {chosen.port} cannot be listened on")
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
