"""A check: its name, how it went, what was found and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from edge.errors import EdgeError, one_line

Status = Literal["ok", "warn", "fail"]


class Check(msgspec.Struct, frozen=True):
    """One line of edge-doctor: `warn` may hurt, `fail` keeps edge-run from its work; `mend` is a command or deed."""

    name: str
    status: Status
    text: str
    mend: str = ""


def guarded(name: str, examine: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of `examine`, on one line each; an error that nobody expected is one, too, after those before it."""
    found: list[Check] = []
    try:
        found.extend(examine())
    except EdgeError as error:
        found.append(failure(name, str(error)))
    except Exception as error:
        text = f"could not be examined: {type(error).__name__}: {error}"
        found.append(Check(name, "warn", text, "report this line to edge-run"))
    return [Check(one_line(check.name), check.status, one_line(check.text), one_line(check.mend)) for check in found]


def failure(name: str, line: str) -> Check:
    """A failed check of an error's one line, whose end after a semicolon is what mends it."""
    text, _, mend = line.rpartition("; ")
    return Check(name, "fail", text, mend) if text else Check(name, "fail", line)


def doctor_schema() -> dict[str, Any]:
    """The published JSON Schema of `edge-doctor --json`."""
    schema = msgspec.json.schema(list[Check])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edge-doctor checks"} | schema
