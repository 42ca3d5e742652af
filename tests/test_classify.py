"""Classification: the only preprocessing, and what is made of the logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.bundle import open_bundle
from edge.engines import infer
from edge.errors import EngineError, UsageError
from edge.model import open_model
from edge.tasks.classify import HALF_STEP, Classify, Look, SecondLook, best_k, looking_twice, middle, softmax
from edge.types import Classes, Geometry, Tensor
from tests.samples import frame, picture

LOGITS = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32))
TEMPERATURES = st.floats(0.05, 20)
TENSOR = Tensor(np.zeros((1, 32, 32, 3), np.uint8), Geometry((1.0, 1.0), (0.0, 0.0), (32, 32)))


def task(tiny_edge: Path, temperature: float = 1.0, k: int = 5, **geometry: Any) -> Classify:
    card = open_bundle(tiny_edge).card
    card = msgspec.structs.replace(card, input=msgspec.structs.replace(card.input, **geometry))
    return Classify(card, msgspec.structs.replace(card.variants[0], temperature=temperature), k)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize(("width", "height"), [(32, 32), (64, 48), (20, 90), (1, 1), (32, 31)])
def test_prepare(tiny_edge: Path, color: str, resize: str, width: int, height: int) -> None:
    image = picture(width, height)
    kept = image.copy()
    image.flags.writeable = False
    tensor = task(tiny_edge, color=color, resize=resize, width=32, height=24).prepare(frame(image))
    assert tensor.data.shape == (1, 24, 32, 3)
    assert tensor.data.dtype == np.uint8
    assert tensor.data.flags.c_contiguous
    assert tensor.geometry.original_wh == (width, height)
    np.testing.assert_array_equal(image, kept)


def test_prepare_orders_the_colours(tiny_edge: Path) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:] = (10, 20, 30)  # blue, green, red
    assert task(tiny_edge, color="bgr").prepare(frame(image)).data[0, 0, 0].tolist() == [10, 20, 30]
    assert task(tiny_edge, color="rgb").prepare(frame(image)).data[0, 0, 0].tolist() == [30, 20, 10]


def test_prepare_takes_pictures_that_are_not_contiguous(tiny_edge: Path) -> None:
    image = picture(96, 80)
    view = image[::-1, ::-1][8:40, 16:64]
    assert not view.flags.c_contiguous
    for resize in ("crop", "letterbox", "stretch"):
        of_view, of_copy = (task(tiny_edge, resize=resize).prepare(frame(given)).data for given in (view, view.copy()))
        np.testing.assert_array_equal(of_view, of_copy)


@given(logits=LOGITS, temperature=TEMPERATURES)
def test_softmax(logits: np.ndarray[Any, Any], temperature: float) -> None:
    probabilities = softmax(logits, temperature)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)
    exponents = np.exp(logits.astype(np.float64) / temperature - logits.max() / temperature)
    np.testing.assert_allclose(probabilities, exponents / exponents.sum(), atol=1e-6)


@given(logits=LOGITS, low=st.floats(0.05, 1), high=st.floats(1, 20))
def test_a_higher_temperature_is_less_sure(logits: np.ndarray[Any, Any], low: float, high: float) -> None:
    assert softmax(logits, high).max() <= softmax(logits, low).max() + 1e-6


@pytest.mark.parametrize("logits", [[1e30, -1e30], [3e38, 3e38], [-3e38, -3e38, -3e38], [0.0], [88.0, 89.0, 1000.0]])
def test_softmax_of_extremes_is_finite(logits: list[float]) -> None:
    found = softmax(np.array(logits, np.float32), 1.0)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-6)


@given(scores=hnp.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])), k=st.integers(1, 50))
def test_best_k_is_a_stable_sort(scores: np.ndarray[Any, Any], k: int) -> None:
    found = best_k(scores, k)
    want = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert scores[found].tolist() == scores[want].tolist()
    assert len(set(found.tolist())) == min(k, len(scores))
    assert found.dtype == np.int64
    if k >= len(scores):
        assert found.tolist() == want


def test_best_k_breaks_ties_by_index() -> None:
    """Also at the border: of equal scores, those with the smaller index are among the best."""
    assert best_k(np.array([0.1, 0.3, 0.3, 0.3], np.float32), 2).tolist() == [1, 2]
    assert best_k(np.full(1000, 0.001, np.float32), 5).tolist() == [0, 1, 2, 3, 4]


def test_decode(tiny_edge: Path) -> None:
    logits = np.zeros((1, 10), np.float32)
    logits[0, 7], logits[0, 2] = 4, 2
    for temperature in (1.0, 2.0):
        found = task(tiny_edge, temperature, k=3).decode({"logits": logits}, TENSOR)
        assert found.class_ids.tolist() == [7, 2, 0]
        assert found.labels == ("class 7", "class 2", "class 0")
        np.testing.assert_allclose(found.scores, softmax(logits[0], temperature)[[7, 2, 0]])
        assert found.confidence == found.scores[0]


def test_decode_does_not_write_into_the_outputs(tiny_edge: Path) -> None:
    logits = np.arange(10, dtype=np.float32)[np.newaxis]
    logits.flags.writeable = False
    assert len(task(tiny_edge, k=99).decode({"logits": logits}, TENSOR)) == 10


@pytest.mark.parametrize("count", [0, 1, 9, 11, 1000])
def test_another_number_of_classes(tiny_edge: Path, count: int) -> None:
    with pytest.raises(EngineError, match=f"the model gives {count} classes, its card names 10"):
        task(tiny_edge).decode({"logits": np.zeros((1, count), np.float32)}, TENSOR)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(tiny_edge: Path, bad: float) -> None:
    logits = np.zeros((1, 10), np.float32)
    logits[0, 3] = bad
    with pytest.raises(EngineError, match="not finite"):
        task(tiny_edge).decode({"logits": logits}, TENSOR)


def test_classes_hold_together() -> None:
    with pytest.raises(ValueError, match="got 2, 1, 1"):
        Classes(np.array([1, 2]), np.array([0.5], np.float32), ("a",))
    nothing = Classes(np.zeros(0, np.int64), np.zeros(0, np.float32), ())
    assert (len(nothing), nothing.confidence) == (0, 0.0)


# probabilities for logits


def of_probabilities(tiny_edge: Path, temperature: float = 1.0) -> Classify:
    card = msgspec.structs.replace(open_bundle(tiny_edge).card, head="probability")
    return Classify(card, msgspec.structs.replace(card.variants[0], temperature=temperature), k=10)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_probabilities_are_tempered_as_their_logarithms_are(tiny_edge: Path, temperature: float) -> None:
    given = np.array([[0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    found = of_probabilities(tiny_edge, temperature).decode({"probabilities": given}, TENSOR)
    powers = (given[0] + HALF_STEP) ** (1 / temperature)
    assert found.class_ids.tolist()[:3] == [0, 1, 2]
    assert found.scores == pytest.approx((powers / powers.sum())[found.class_ids])


def test_what_is_hardly_a_probability_is_no_crash(tiny_edge: Path) -> None:
    found = of_probabilities(tiny_edge).decode({"probabilities": np.full((1, 10), -1, np.float32)}, TENSOR)
    assert found.scores == pytest.approx([0.1] * 10)
    with pytest.raises(EngineError, match="not finite"):
        of_probabilities(tiny_edge).decode({"probabilities": np.full((1, 10), np.nan, np.float32)}, TENSOR)


# a second look


def by_hand(task: Classify, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], look: Look) -> Classes:
    outputs = {"logits": np.stack([first, second]).astype(np.float32)}
    return SecondLook(task, look).decode(outputs, TENSOR)


@given(hnp.arrays(np.float32, (2, 10), elements=st.floats(-20, 20, width=32)))
@pytest.mark.parametrize("look", ["confidence", "answer"])
def test_the_score_is_the_geometric_mean_of_both_looks(tiny_edge: Path, look: Look, logits: np.ndarray[Any, Any]) -> None:
    found = by_hand(task(tiny_edge), *logits, look)
    first, second = softmax(logits[0], 1.0), softmax(logits[1], 1.0)
    judged = first if look == "confidence" else (first + second) / 2
    answer, best = int(judged.argmax()), np.sort(judged)[-2:]
    assume(best[0] == best[1] or best[1] - best[0] > 1e-6 * best[1])  # what float32 can tell apart
    assert found.class_ids[0] == answer
    assert found.confidence == pytest.approx(np.sqrt(first[answer] * second[answer]), rel=1e-4)
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.max(initial=0) <= 1


def test_looks_that_agree_change_nothing(tiny_edge: Path) -> None:
    logits = np.arange(10, dtype=np.float32)
    for look in ("confidence", "answer"):
        found, once = by_hand(task(tiny_edge), logits, logits, look), task(tiny_edge).decode({"logits": logits[None]}, TENSOR)
        assert found.labels == once.labels
        assert found.scores == pytest.approx(once.scores)


def test_a_confident_mistake_is_taken_back(tiny_edge: Path) -> None:
    first, second = np.zeros(10), np.zeros(10)
    first[3], second[4] = 6, 8
    assert by_hand(task(tiny_edge), first, second, "confidence").labels[0] == "class 3"
    assert by_hand(task(tiny_edge), first, second, "answer").labels[0] == "class 4"
    assert by_hand(task(tiny_edge), first, second, "confidence").confidence < 0.05


def test_both_looks_are_prepared_as_the_task_would(tiny_edge: Path) -> None:
    image = picture(100, 80)
    tensor = SecondLook(task(tiny_edge), "answer").prepare(frame(image))
    assert tensor.data.shape[0] == 2
    np.testing.assert_array_equal(tensor.data[:1], task(tiny_edge).prepare(frame(image)).data)
    np.testing.assert_array_equal(tensor.data[1:], task(tiny_edge).prepare(frame(image[14:66, 17:82])).data)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3), (640, 1)])
def test_the_middle_of_a_small_picture_is_not_nothing(width: int, height: int) -> None:
    part = middle(picture(width, height), 0.65)
    assert min(part.shape[:2]) >= 1


def test_an_engine_that_takes_one_picture_is_asked_twice(tiny_edge: Path) -> None:
    model = open_model(open_bundle(tiny_edge), variant="float32")
    twice = looking_twice(model.task, "confidence")
    tensor = twice.prepare(frame(picture(64, 64)))
    both = infer(model.engine, tensor)
    for row in range(2):
        one = model.engine.infer(Tensor(tensor.data[row : row + 1], tensor.geometry))
        np.testing.assert_array_equal(both["logits"][row : row + 1], one["logits"])
    assert twice.decode(both, tensor).confidence > 0


def test_only_a_classifier_looks_twice(tiny_edge: Path, tiny_detector: Path) -> None:
    detector = open_model(open_bundle(tiny_detector)).task
    assert looking_twice(detector, None) is detector
    with pytest.raises(UsageError, match="--second-look is for classifiers"):
        looking_twice(detector, "answer")
