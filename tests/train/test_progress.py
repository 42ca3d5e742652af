"""What is said while it trains: a bar with the time left on a terminal, a line an epoch everywhere."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from train import progress
from train.loop import Progress, Row
from train.progress import Meter, clock


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00"), (7322, "2:02:02")])
def test_time_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    meter = Meter(said.append, "top-1")
    meter.step(Progress(1, 0.1, 0.7, 2.0))
    meter.epoch(Row(2, 76, 0.31234, 1e-4, 0.98666, 185.0, 12.345))
    meter.epoch(Row(3, 114, 0.3, 1e-4, None, 200.0, 12.3))
    meter.done()
    assert said == [
        "epoch 2: loss 0.3123, top-1 0.9867, 12.3 pictures/s, 3:05",
        "epoch 3: loss 0.3000, 12.3 pictures/s, 3:20",
    ]
    assert capsys.readouterr().err == ""


def test_a_terminal_sees_how_much_is_left_by_the_speed_of_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed at half after an hour, and a quarter more in 100 s: the last quarter takes as long."""
    monkeypatch.setattr(progress, "has_terminal", lambda: True)
    monkeypatch.setattr(progress, "PERIOD_S", 0.0)
    meter = Meter(lambda line: None, "top-1")
    meter.step(Progress(50, 0.5, 0.7, 3600.0))
    assert "left" not in capsys.readouterr().err
    meter.step(Progress(75, 0.75, 0.6, 3700.0))
    shown = capsys.readouterr().err
    assert "[###############.....] step 75, loss 0.600, 1:40 left" in shown
