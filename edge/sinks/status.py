"""One calm line on a terminal, rewritten in place."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress

from edge.errors import one_line
from edge.sinks.caption import caption
from edge.types import Event, Notice

PERIOD_S = 0.2


class StatusSink:
    """Shows the newest result at most five times a second on standard error; for terminals only."""

    wants_images = False

    def __init__(self) -> None:
        self.lost = 0
        self._shown_s = 0.0
        self._revised = 0

    def emit(self, event: Event | Notice) -> None:
        """Rewrite the line when it is due; notices are said elsewhere."""
        if isinstance(event, Notice):
            return
        self._revised += event.revises
        if event.emitted_s - self._shown_s < PERIOD_S:
            return
        self._shown_s = event.emitted_s
        line = f"frame {event.frame.sequence}  {caption(event.result)}  {event.served_by}  {event.age_ms:.0f} ms"
        if self._revised:
            line += f"  cloud answers {self._revised}"
        _show(one_line(line)[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        """Clear the line."""
        _show("")


def _show(line: str) -> None:
    with suppress(OSError, ValueError):  # the terminal may be gone
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
