"""What is said while it trains: a bar with the time left on a terminal, a line an epoch everywhere."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from edge import progress as shown
from train.loop import Progress, Row
from train.progress import Meter


def test_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    meter = Meter(said.append, "top-1", shown.Progress("edge-train"))
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
    """Resumed at half after an hour; now a tenth takes 40 s, and the last tenth will, too."""
    monkeypatch.setattr("edge.progress.rewrites", lambda: True)
    now_s = [0.0]
    meter = Meter(lambda line: None, "top-1", shown.Progress("edge-train", clock=lambda: now_s[0]))
    for tenth in range(5, 10):
        meter.step(Progress(10 * tenth, tenth / 10, 0.6, 3600.0 + now_s[0]))
        now_s[0] += 40
    seen = capsys.readouterr().err.split("\r")
    assert "left" not in seen[1]
    assert "edge-train: training 90%, step 90, loss 0.600, 0:40 left" in seen[-1]
    meter.done()
    assert capsys.readouterr().err == "\r\x1b[K"
