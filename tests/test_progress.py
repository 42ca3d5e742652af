"""Progress: a line with the time left on a terminal, a plain one now and then elsewhere, and an estimate to believe."""

from __future__ import annotations

import threading

import pytest

from edge.commands import speaker
from edge.commands.logs import Style, adopt, restored
from edge.progress import Estimate, Progress, clock, told
from tests.screen import Screen, written_to_terminal


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.progress.rewrites", lambda: True)
    monkeypatch.setattr("edge.commands.logs.has_terminal", lambda: True)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00"), (7322, "2:02:02")])
def test_time_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# the estimate


def estimated(steps_s: list[float], of: int) -> float | None:
    estimate, now_s = Estimate(), 0.0
    estimate.add(now_s, 0)
    for done, step_s in enumerate(steps_s, 1):
        now_s += step_s
        estimate.add(now_s, done)
    return estimate.left_s(now_s, of)


def test_nothing_is_told_before_there_is_something_to_go_by() -> None:
    assert Estimate().left_s(0.0, 10) is None
    assert estimated([1.0], 10) is None
    assert estimated([1.0, 1.0], 10) is None
    assert estimated([1.0, 1.0, 1.0], 10) == pytest.approx(7.0)
    assert estimated([0.001] * 50, 100) is None  # 50 ms in all


def test_one_step_that_took_a_minute_does_not_count() -> None:
    assert estimated([60.0] + [1.0] * 9, 20) == pytest.approx(10.0)


def test_many_quick_steps_are_taken_together() -> None:
    assert estimated([0.001] * 5000, 10_000) == pytest.approx(5.0, rel=0.05)


def test_what_comes_every_hundred_steps_is_counted_in() -> None:
    """As the measuring at the end of each epoch: 100 steps of 0.1 s and then 10 s more."""
    steps = ([0.1] * 99 + [10.1]) * 20
    assert estimated(steps, 4000) == pytest.approx(400, rel=0.2)


def test_a_change_of_speed_is_followed() -> None:
    assert estimated([1.0] * 100 + [3.0] * 100, 300) == pytest.approx(300, rel=0.1)


def test_it_counts_down_between_steps_and_never_below_zero() -> None:
    estimate = Estimate()
    for done in range(5):
        estimate.add(float(done), done)
    assert estimate.left_s(4.0, 10) == pytest.approx(6.0)
    assert estimate.left_s(6.0, 10) == pytest.approx(4.0)
    assert estimate.left_s(60.0, 10) == 0.0


def test_fewer_than_before_begins_again() -> None:
    estimate = Estimate()
    for done in (0, 1, 2, 3, 4, 0):
        estimate.add(float(done), done)
    assert estimate.left_s(0.0, 10) is None


# on a terminal


def test_a_line_that_is_rewritten(on_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    with Progress("edge-quantize", clock=now) as progress:
        for done in range(1, 13):
            now.s += 1
            progress("candidates", done, 40)
        shown = Screen().feed(capsys.readouterr().err)
        assert shown.lines == ["edge-quantize: candidates 12 of 40, 0:28 left"]
        progress("figures", 0.3, 1.0, "layer 7")
        assert shown.feed(capsys.readouterr().err).lines == ["edge-quantize: figures 30%, layer 7"]
    assert shown.feed(capsys.readouterr().err).lines == []
    assert len(shown.rows) == 1


def test_what_is_over_soon_shows_nothing(on_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    with Progress("x", clock=now) as progress:
        for number in progress.over(range(10), "pictures"):
            assert number == round(now.s / 0.1)
            now.s += 0.1
    assert capsys.readouterr().err == ""


def test_what_gives_no_sign_is_shown_at_once_and_its_time_goes_on(
    on_terminal: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.progress.TICK_S", 0.005)
    now = Clock()
    with Progress("x", clock=now) as progress:
        progress("exporting", note="at most 2 min")
        seen = capsys.readouterr().err
        assert seen == "\rx: exporting, 0:00, at most 2 min\x1b[K"
        now.s = 12.0
        while "x: exporting, 0:12, at most 2 min" not in seen:
            seen += capsys.readouterr().err
        progress("pictures", 3, 5)
        seen += capsys.readouterr().err
    ended = Screen().feed(seen + capsys.readouterr().err)
    assert ended.lines == []
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_it_ends_its_thread_when_the_work_fails(on_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with Progress("x") as progress:
            progress("exporting")
            raise ValueError

    with pytest.raises(ValueError):
        work()
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_at_most_four_times_a_second(on_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    progress = Progress("x", clock=now)
    for done in range(1000):
        progress("pictures", done, 2000)
        now.s += 0.01
    assert 35 <= capsys.readouterr().err.count("\r") <= 41


def test_lines_stand_above_it(on_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    progress = Progress("x", clock=now)
    for done in range(3):
        now.s += 2
        progress("pictures", done, 9)
        speaker("x")(f"skipped {done}")
    progress.done()
    assert Screen().feed(capsys.readouterr().err).lines == ["x: skipped 0", "x: skipped 1", "x: skipped 2"]


def test_through_a_terminal() -> None:
    code = (
        "import time\nfrom edge import progress\nfrom edge.commands import speaker\nprogress.PATIENCE_S = 0.0\n"
        "progress.PERIOD_S = progress.TICK_S = 0.001\n"
        "with progress.Progress('x') as shown:\n"
        "    for number in shown.over(range(20), 'pictures'):\n"
        "        time.sleep(0.002)\n"
        "        if number == 7: speaker('x')('skipped 7')\n"
        "    shown('writing')\n    time.sleep(0.05)\n"
        "speaker('x')('done')"
    )
    seen = written_to_terminal(code)
    assert "x: pictures 5 of 20" in seen
    assert "x: writing, 0:00" in seen
    assert Screen().feed(seen).lines == ["x: skipped 7", "x: done"]
    assert "pictures" not in written_to_terminal(code, TERM="dumb")


# elsewhere


def test_a_plain_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    progress = Progress("x", clock=now)
    for done in range(1, 3601):
        now.s += 1
        progress("pictures", done, 3600)
    progress.done()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "x: pictures 30 of 3600, 59:30 left"
    assert lines[1] == "x: pictures 60 of 3600, 59:00 left"
    assert 30 <= len(lines) <= 40  # rarer and rarer: an hour is not 120 lines


@pytest.mark.parametrize(("style", "count"), [(Style("warning"), 0), (Style("info", as_json=True), 1)])
def test_quiet_has_none_and_json_has_plain_lines(style: Style, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    with restored():
        adopt(style)
        progress = Progress("x", clock=now)
        now.s += 31
        progress("pictures", 1, 2)
    said = capsys.readouterr().err
    assert said.count('"text":"pictures 1 of 2"') == count
    assert len(said.splitlines()) == count


def test_shares_of_what_is_gone_through() -> None:
    shares: list[float] = []
    assert list(told("abcd", shares.append)) == ["a", "b", "c", "d"]
    assert shares == [0.25, 0.5, 0.75, 1.0]
