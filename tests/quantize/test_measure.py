"""What is fitted to a finished file: temperatures, of a class where there is enough of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from edge.boxes_data import BoxSample
from edge.types import Detections
from quantize.measure import FEWEST_DETECTIONS, _score_temperature


def pictures(count: int, temperature: float) -> tuple[list[BoxSample], list[Detections]]:
    """Pictures of one object each, which a detector finds with a score that is right after `temperature`, else beside it."""
    source = np.random.default_rng(0)
    truth, found = [], []
    for number in range(count):
        right = source.uniform(0.1, 0.9)
        logit = np.log(right / (1 - right)) * temperature
        box = np.array([[0, 0, 10, 10]], np.float32)
        seen = box if source.random() < right else box + 100
        truth.append(BoxSample(Path(f"{number}.jpg"), box, np.zeros(1, np.int64), np.zeros(1, np.bool_)))
        score = np.array([1 / (1 + np.exp(-logit))], np.float32)
        found.append(Detections(seen, score, np.zeros(1, np.int64), ("a",)))
    return truth, found


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_a_temperature_is_found_again(temperature: float) -> None:
    assert _score_temperature(*pictures(4000, temperature)) == pytest.approx(temperature, rel=0.15)


def test_too_few_say_nothing() -> None:
    truth, found = pictures(FEWEST_DETECTIONS, 1.0)
    assert _score_temperature(truth, found) is None
