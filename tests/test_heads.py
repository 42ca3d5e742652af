"""Heads: raw outputs made from known boxes must give them back, and what cannot be is refused in one line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge.card import HEADS_OF_TASK
from edge.errors import EngineError
from edge.tasks.heads import HEADS, HeadSpec, grid
from edge.types import Outputs

SPEC = HeadSpec(size_wh=(64, 32), classes=3, keypoints=2)
OBJECTS = [((8.0, 4.0, 40.0, 28.0), 0.9, 1), ((33.0, 9.0, 47.0, 23.0), 0.5, 2)]
"""Box, score, class: what every head is made to say."""


def logit(value: float) -> float:
    return float(np.log(value / (1 - value)))


def centre(box: tuple[float, ...]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def yolox() -> Outputs:
    cells, strides = grid(SPEC.size_wh, SPEC.strides)
    rows = np.zeros((len(cells), 8), np.float32)
    for row, (box, score, class_id) in zip((5, 40), OBJECTS, strict=True):
        x, y, width, height = centre(box)
        rows[row, :4] = (
            x / strides[row] - cells[row, 0],
            y / strides[row] - cells[row, 1],
            *np.log([width, height] / strides[row]),
        )
        rows[row, 4], rows[row, 5 + class_id] = 0.95, score / 0.95
    return {"predictions": rows[None]}


def yolov8() -> Outputs:
    columns = np.zeros((7, 21), np.float32)
    for column, (box, score, class_id) in zip((2, 9), OBJECTS, strict=True):
        columns[:4, column], columns[4 + class_id, column] = centre(box), score
    return {"predictions": columns[None]}


def yolov8_transposed() -> Outputs:
    return {"predictions": yolov8()["predictions"].transpose(0, 2, 1)}


POINTS = [((9.0, 5.0, 0.75), (39.0, 27.0, 0.25)), ((34.0, 10.0, 1.0), (46.0, 22.0, 0.0))]
"""Keypoints of the objects: x, y, visibility."""


def yolov8_pose() -> Outputs:
    columns = np.concatenate((yolov8()["predictions"], np.zeros((1, 6, 21), np.float32)), axis=1)
    for column, points in zip((2, 9), POINTS, strict=True):
        columns[0, 7:, column] = np.ravel(points)
    return {"predictions": columns}


def yolov8_pose_transposed() -> Outputs:
    return {"predictions": yolov8_pose()["predictions"].transpose(0, 2, 1)}


def end_to_end() -> Outputs:
    rows = np.zeros((1, 20, 6), np.float32)
    for row, (box, score, class_id) in zip((0, 7), OBJECTS, strict=True):
        rows[0, row] = *box, score, class_id
    return {"predictions": rows}


def nanodet() -> Outputs:
    """Each distance as two neighbouring bins whose mean it is."""
    cells, strides = grid(SPEC.size_wh, SPEC.strides)
    rows = np.zeros((len(cells), 3 + 4 * 8), np.float32)
    for row, (box, score, class_id) in zip((17, 21), OBJECTS, strict=True):
        x, y = (cells[row] + 0.5) * strides[row]
        for side, distance in enumerate(np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / strides[row]):
            low, part = int(distance), max(distance - int(distance), 1e-9)
            bins = np.full(8, -50.0)
            bins[low], bins[low + 1] = np.log(1 - part), np.log(part)
            rows[row, 3 + 8 * side : 11 + 8 * side] = bins
        rows[row, class_id] = score
    return {"predictions": rows[None]}


def fastestdet() -> Outputs:
    planes = np.zeros((8, 4, 8), np.float32)
    planes[1:5] = -50
    for box, score, class_id in OBJECTS:
        x, y, width, height = centre(box)
        column, row = int(x / 8), int(y / 8)
        planes[:5, row, column] = (
            score, np.arctanh(x / 8 - column), np.arctanh(y / 8 - row), logit(width / 64), logit(height / 32),
        )  # fmt: skip
        planes[5 + class_id, row, column] = score  # score^0.6 * score^0.4
    return {"predictions": planes[None]}


def ssd() -> Outputs:
    boxes, classes, scores = np.zeros((1, 10, 4), np.float32), np.zeros((1, 10), np.float32), np.zeros((1, 10), np.float32)
    for row, (box, score, class_id) in enumerate(OBJECTS):
        left, top, right, bottom = box
        boxes[0, row] = top / 32, left / 64, bottom / 32, right / 64
        classes[0, row], scores[0, row] = class_id, score
    scores[0, 5] = 0.99  # beyond the count: what an earlier picture left
    return {"boxes": boxes, "classes": classes, "scores": scores, "count": np.array([2], np.float32)}


CASES: dict[str, tuple[str, Callable[[], Outputs]]] = {
    "yolox": ("yolox", yolox),
    "yolov8": ("yolov8", yolov8),
    "yolov8 transposed": ("yolov8", yolov8_transposed),
    "yolov8 end to end": ("yolov8", end_to_end),
    "nanodet": ("nanodet", nanodet),
    "fastestdet": ("fastestdet", fastestdet),
    "ssd": ("ssd", ssd),
    "yolov8-pose": ("yolov8-pose", yolov8_pose),
    "yolov8-pose transposed": ("yolov8-pose", yolov8_pose_transposed),
}


def test_every_head_that_a_card_may_name_is_here_and_in_the_contract() -> None:
    assert set(HEADS) == {*HEADS_OF_TASK["detect"], *HEADS_OF_TASK["pose"]} == {head for head, _ in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_known_boxes_come_back(case: str) -> None:
    head, make = CASES[case]
    found = HEADS[head](make(), SPEC, 0.25)
    order = np.argsort(-found.scores)
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int64)
    np.testing.assert_allclose(found.boxes_xyxy[order], [box for box, _, _ in OBJECTS], atol=1e-2)
    np.testing.assert_allclose(found.scores[order], [score for _, score, _ in OBJECTS], atol=1e-5)
    assert found.class_ids[order].tolist() == [class_id for _, _, class_id in OBJECTS]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("threshold", "count"), [(0.49, 2), (0.51, 1), (0.95, 0), (1.0, 0)])
def test_the_threshold_is_on_the_score(case: str, threshold: float, count: int) -> None:
    head, make = CASES[case]
    found = HEADS[head](make(), SPEC, threshold)
    assert len(found.scores) == len(found.boxes_xyxy) == len(found.class_ids) == count


@pytest.mark.parametrize("case", CASES)
def test_the_outputs_are_not_written_into(case: str) -> None:
    head, make = CASES[case]
    outputs = make()
    kept = {role: value.copy() for role, value in outputs.items()}
    for value in outputs.values():
        value.flags.writeable = False
    HEADS[head](outputs, SPEC, 0.25)
    for role, value in outputs.items():
        np.testing.assert_array_equal(value, kept[role])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("case", CASES)
def test_what_is_not_finite_is_refused(case: str, bad: float) -> None:
    head, make = CASES[case]
    broken = {role: np.full_like(value, bad) for role, value in make().items()}
    with pytest.raises(EngineError, match="not finite"):
        HEADS[head](broken, SPEC, 0.25)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("change", ["another rank", "another number of classes", "a batch of two"])
def test_outputs_of_another_shape_are_refused(case: str, change: str) -> None:
    head, make = CASES[case]
    outputs = make()
    if change == "another number of classes":
        if "end to end" in case or head == "ssd":
            outputs = {role: value[..., :3] if role in ("predictions", "boxes") else value for role, value in outputs.items()}
        spec = HeadSpec(size_wh=(64, 32), classes=12)
    else:
        spec = SPEC
        another = {"another rank": lambda x: x[0], "a batch of two": lambda x: np.concatenate((x, x))}[change]
        outputs = {role: another(value) for role, value in outputs.items()}
    with pytest.raises(EngineError, match=rf"head {head} expects .* g(ives|ot) "):
        HEADS[head](outputs, spec, 0.25)


def test_a_class_without_a_label_is_refused_and_an_offset_mends_it() -> None:
    outputs = dict(ssd()) | {"classes": np.full((1, 10), 3, np.float32)}
    with pytest.raises(EngineError, match="label 3 of 3"):
        HEADS["ssd"](outputs, SPEC, 0.25)
    shifted = HEADS["ssd"](outputs, HeadSpec(size_wh=(64, 32), classes=3, class_offset=-1), 0.25)
    assert shifted.class_ids.tolist() == [2, 2]


def test_a_count_beyond_the_boxes_or_below_none() -> None:
    for count, found in ((99.0, 3), (0.0, 0), (-4.0, 0)):
        outputs = dict(ssd()) | {"count": np.array([count], np.float32)}
        assert len(HEADS["ssd"](outputs, SPEC, 0.25).scores) == found


@pytest.mark.parametrize("make", [yolov8_pose, yolov8_pose_transposed])
def test_known_keypoints_come_back(make: Callable[[], Outputs]) -> None:
    found = HEADS["yolov8-pose"](make(), SPEC, 0.25)
    assert found.keypoints is not None
    assert found.keypoints.dtype == np.float32
    np.testing.assert_array_equal(found.keypoints, np.array(POINTS))
    assert all(HEADS[head](make(), SPEC, 0.25).keypoints is None for head, make in CASES.values() if head != "yolov8-pose")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_keypoints_that_are_not_finite_are_refused_where_an_object_has_them(bad: float) -> None:
    outputs = yolov8_pose()
    outputs["predictions"][0, 7, 0] = bad  # of no object
    HEADS["yolov8-pose"](outputs, SPEC, 0.25)
    outputs["predictions"][0, 11, 9] = bad
    with pytest.raises(EngineError, match="not finite"):
        HEADS["yolov8-pose"](outputs, SPEC, 0.25)


def test_the_grid_goes_row_by_row_and_stride_by_stride() -> None:
    cells, strides = grid((64, 32), (16, 32))
    assert cells.tolist() == [[x, y] for y in (0, 1) for x in range(4)] + [[0, 0], [1, 0]]
    assert strides.tolist() == [16] * 8 + [32] * 2
    assert len(grid((416, 416), (8, 16, 32))[0]) == 3549
    assert len(grid((100, 100), (32,))[0]) == 16  # a cell that is cut off is one, too
