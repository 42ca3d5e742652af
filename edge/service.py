"""What systemd is told of the loop: that it runs, what it does, that it is alive. Elsewhere, nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from edge.errors import one_line

PATIENCE_S = 0.2


class Service:
    """The sd_notify protocol (man 3 sd_notify). Without systemd each call does nothing, and none ever raises.

    `watchdog_s` is how often systemd wants to hear `alive` at the least (WatchdogSec=), or None.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else None
        self.watchdog_s = _watchdog_s(environ) if self._address else None
        self._last_alive_s: float | None = None

    def ready(self, status: str) -> None:
        """It is up: units that wait for this one may start."""
        self._send(f"READY=1\nSTATUS={one_line(status)}")

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._send(f"STATUS={one_line(text)}")

    def alive(self, now_s: float) -> None:
        """Keep the watchdog quiet, at most once each half of its interval; `now_s` is on the monotonic clock."""
        if self.watchdog_s is None:
            return
        if (self._last_alive_s is None or now_s - self._last_alive_s >= self.watchdog_s / 2) and self._send("WATCHDOG=1"):
            self._last_alive_s = now_s

    def stopping(self) -> None:
        """It is on its way out."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.settimeout(PATIENCE_S)
                to.sendto(message.encode("utf-8", "replace"), self._address)
        except (OSError, ValueError):  # ValueError: a path that is none
            return False
        return True


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """The interval in seconds, if it is meant for this process."""
    try:
        interval_us = int(environ["WATCHDOG_USEC"])
        meant_for = int(environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return interval_us / 1e6 if interval_us > 0 and meant_for == os.getpid() else None
