"""What the values of edge-run's options are, beyond what click knows.

What they become is imported when there is one: it brings OpenCV and NumPy, which --help does without.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from edge.errors import EdgeError
from edge.sizes import parse_size

if TYPE_CHECKING:
    from edge.governor import Quiet
    from edge.policies import Allowance


class RefusedValue(click.BadParameter):
    """A value that its parser refuses; `line` is what a command says of it, with the flag."""

    def __init__(self, message: str, line: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
        super().__init__(message, ctx, param)
        self.line = line


class Checked(click.ParamType[Any]):
    """Text that the parser of a run takes, which raises EdgeError for another; what it becomes is made by the run."""

    name = "text"

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself."""
        text = str(value)
        if ctx is not None and ctx.resilient_parsing:  # a shell asks what could follow
            return text
        try:
            self._check(text)
        except EdgeError as error:
            line = str(error)
            message = re.sub(r"^--[a-z-]+:? +", "", line)
            if message == line and param is not None:
                line = f"{param.opts[0]}: {line}"
            raise RefusedValue(message, line, param, ctx) from None
        return text


class Number(click.FloatRange):
    def __init__(
        self,
        min: float | None = None,
        max: float | None = None,
        min_open: bool = False,
        max_open: bool = False,
        *,
        expected: str = "a number",
    ) -> None:
        super().__init__(min, max, min_open, max_open)
        self._expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number in the range, which neither nan nor infinity is."""
        try:
            finite = math.isfinite(float(value))
        except (TypeError, ValueError):  # TypeError: what edge.run was given
            finite = False
        if not finite:
            self.fail(f"{value!r}: expected {self._expected}", param, ctx)
        number: float = super().convert(value, param, ctx)
        return number


class Celsius(Number):
    name = "C|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A temperature, or the board's own limit."""
        return value if value == "auto" else super().convert(value, param, ctx)


class Hours(click.ParamType[Any]):
    name = "HH:MM-HH:MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Quiet:
        """From when to when."""
        from edge.governor import Quiet

        quiet = value if isinstance(value, Quiet) else Quiet.parse(str(value))
        if quiet is None:
            self.fail(f"{value!r}: expected HH:MM-HH:MM, as 22:00-06:30", param, ctx)
        if quiet.start == quiet.end:
            self.fail(f"{value!r}: expected two different times", param, ctx)
        return quiet


class Size(click.ParamType[Any]):
    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Two numbers of pixels."""
        if isinstance(value, tuple) and len(value) == 2 and all(isinstance(pixels, int) and pixels >= 0 for pixels in value):
            return value
        size_wh = parse_size(str(value))
        if size_wh is None:
            self.fail(f"{value!r}: expected WIDTHxHEIGHT as in 1280x720", param, ctx)
        return size_wh


class Budget(click.ParamType[Any]):
    name = "BUDGET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Allowance:
        """A share of frames, or an amount of frames, money or bytes an hour."""
        from edge.policies import Allowance

        if isinstance(value, Allowance):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(%|(?:MB)?/h)", str(value))
        amount = float(found[1]) if found else 0.0
        if not found or amount == 0 or (found[2] == "%" and amount > 100):
            self.fail(f"{value!r}: expected a share as in 5%, or an amount as in 600/h or 20MB/h", param, ctx)
        if found[2] == "%":
            return Allowance(str(value), per_frame=amount / 100)
        return Allowance(str(value), per_s=amount / 3600, in_bytes=found[2] == "MB/h")


class Pixels(click.ParamType[Any]):
    name = "FOURCC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """A V4L2 pixel format of four letters, or nothing."""
        text = str(value).upper()
        if text and not re.fullmatch(r"[A-Z0-9 ]{4}", text):
            self.fail(f"{value!r}: expected four letters as in MJPG or YUYV", param, ctx)
        return text
