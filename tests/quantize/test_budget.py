"""The search has what preparing it has left of --budget-minutes."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch")

from quantize.build import Plan, _Build
from quantize.search import Gates


def test_preparing_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class BegunError(Exception):
        """The search begins."""

    def search(self: object, name: str, until_s: float, hints: object) -> None:
        raise BegunError(until_s)

    monkeypatch.setattr(_Build, "_search", search)
    build = object.__new__(_Build)
    build._plan = Plan(("int8-x86",), Gates(), minutes=2, threads=1)
    build._started_s = time.monotonic() - 50
    with pytest.raises(BegunError) as begun:
        build.run()
    assert begun.value.args[0] == pytest.approx(build._started_s + 120)
