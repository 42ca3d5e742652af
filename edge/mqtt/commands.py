"""Commands that come in: which topic turns which control, and what is a value of it."""

from __future__ import annotations

import re
from collections.abc import Callable

from edge.controls import Controls
from edge.errors import one_line

LONGEST_BYTES = 64
SWITCHES = {"on": True, "true": True, "off": False, "false": False}
NUMBER = re.compile(r"[01](\.[0-9]{1,20})?", re.ASCII)
KNOWN_REFUSALS = 100
SHOWN_LETTERS = 80
"""Of a topic that somebody made up."""


class Commands:
    """Turns the controls at the word of whoever may publish below `prefix`: the broker's access list says who that is.

    A retained message is not obeyed, for the broker would say it again after every start. `heard` tells why it did not
    obey, once for each message, or nothing. All that is below `prefix` is listened to, so that a topic that is no
    command is told, too, once.
    """

    def __init__(self, prefix: str, controls: Controls) -> None:
        self._prefix = prefix
        self._refused: set[str] = set()
        self._obey: dict[str, Callable[[str], None]] = {
            f"{prefix}/pause": lambda text: controls.pause(_switch(text), "mqtt"),
            f"{prefix}/gate": lambda text: controls.set_gate(_switch(text), "mqtt"),
            f"{prefix}/threshold": lambda text: controls.set_threshold(_number(text), "mqtt"),
            f"{prefix}/score_threshold": lambda text: controls.set_score_threshold(_number(text), "mqtt"),
        }
        self.subscription = f"{prefix}/#"

    def heard(self, topic: str, payload: bytes, *, retained: bool) -> str:
        """Obey a command; why it cannot be, in a line, or nothing."""
        if topic != self._prefix and not topic.startswith(f"{self._prefix}/"):
            return ""
        obey = self._obey.get(topic)
        try:
            if obey is None:
                topic, known = topic[:SHOWN_LETTERS], ", ".join(self._obey)
                raise ValueError(f"no such command; there are {known}")
            if retained:
                raise ValueError("retained commands are not obeyed, they would be repeated after every start")
            if len(payload) > LONGEST_BYTES:
                raise ValueError(f"longer than {LONGEST_BYTES} bytes")
            obey(payload.decode("ascii", "replace"))
        except ValueError as error:
            refusal = one_line(f"{topic}: {error}")
        else:
            self._refused.clear()
            return ""
        if refusal in self._refused or len(self._refused) >= KNOWN_REFUSALS:
            return ""
        self._refused.add(refusal)
        return refusal


def _switch(text: str) -> bool:
    on = SWITCHES.get(text.lower())
    if on is None:
        raise ValueError(f"{text!r}: expected ON or OFF")
    return on


def _number(text: str) -> float:
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text!r}: expected a number from 0 to 1, as 0.6")
    return float(text)
