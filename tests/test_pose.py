"""Pose: keypoints stay with their objects from the model's output to the event and the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bundle import Bundle, open_bundle
from edge.card import Card, DetectOptions, Golden, InputGeometry, Label, Provenance, TensorInput, Variant
from edge.commands.run import main
from edge.errors import BundleError
from edge.events import encode_event
from edge.geometry import prepare
from edge.model import open_model
from edge.regions import Chosen, Focus, parse_region
from edge.sinks.video import annotate
from edge.tasks.detect import Detect
from edge.tracking import Tracker
from edge.types import Detections
from tests.conftest import Finished
from tests.samples import detections, encoded, entries_of, event, frame, plain, squares, with_card, write_entries

Command = Callable[..., Finished]


def posed(*objects: tuple[str, float, tuple[float, float, float, float]], points: Any) -> Detections:
    return replace(detections(*objects), keypoints=np.array(points, np.float32))


TWO = posed(
    ("cat", 0.9, (10, 10, 50, 50)),
    ("dog", 0.8, (60, 60, 90, 90)),
    points=[[(12, 13, 1.0), (40, 41, 0.5)], [(61, 62, 0.25), (88, 89, 0.75)]],
)

# the value


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((1, 2, 3), np.float32), r"keypoints: expected float32 \(2, k, 3\), got float32 \(1, 2, 3\)"),
        (np.zeros((2, 2, 2), np.float32), r"got float32 \(2, 2, 2\)"),
        (np.zeros((2, 3), np.float32), r"got float32 \(2, 3\)"),
        (np.zeros((2, 2, 3)), r"got float64 \(2, 2, 3\)"),
    ],
)
def test_keypoints_are_checked(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(detections(("a", 0.5, (0, 0, 1, 1)), ("b", 0.5, (0, 0, 1, 1))), keypoints=points)


def test_choosing_objects_chooses_their_keypoints() -> None:
    for chosen in (np.array([False, True]), np.array([1]), slice(1, 2)):
        assert TWO.keypoints is not None
        np.testing.assert_array_equal(TWO[chosen].keypoints, TWO.keypoints[1:])  # type: ignore[arg-type]
    assert detections(("a", 0.5, (0, 0, 1, 1)))[[0]].keypoints is None  # type: ignore[index]


def test_moving_moves_boxes_and_keypoints_and_no_score() -> None:
    moved = TWO.moved((5, -7))
    assert moved.keypoints is not None
    assert moved.boxes_xyxy[0].tolist() == [15, 3, 55, 43]
    assert moved.keypoints[0].tolist() == [[17, 6, 1.0], [45, 34, 0.5]]
    assert (moved.boxes_xyxy.dtype, moved.keypoints.dtype) == (np.float32, np.float32)


# decoding


def card_of(size_wh: tuple[int, int], labels: int, keypoints: int, resize: str) -> Card:
    variant = Variant(
        name="only",
        file="model.onnx",
        engine="onnx",
        precision="float32",
        scheme="float32",
        weight_bits=32,
        sha256="0" * 64,
        bytes=1,
        input=TensorInput(name="x"),
        outputs={"predictions": "y"},
        tolerance=0,
    )
    return Card(
        name="pose",
        task="pose",
        head="yolov8-pose",
        detect=DetectOptions(keypoints=tuple(f"k{i}" for i in range(keypoints)), iou_threshold=1.0),
        labels=tuple(Label(id=str(i), name=str(i)) for i in range(labels)),
        input=InputGeometry(width=size_wh[0], height=size_wh[1], resize=resize),  # type: ignore[arg-type]
        variants=(variant,),
        golden=Golden(sha256="0" * 64, bytes=1),
        provenance=Provenance(source="", license="", created=""),
    )


def decoded_slowly(columns: Any, card: Card, geometry: Any) -> list[tuple[float, int, list[float], list[list[float]]]]:
    """One column after another: score, class, box and keypoints of each that is reported, best first."""
    found = []

    def back(x: float, y: float) -> tuple[float, float]:
        (sx, sy), (ox, oy), (width, height) = geometry.scale_xy, geometry.offset_xy, geometry.original_wh
        return min(max((x - ox) / sx, 0), width), min(max((y - oy) / sy, 0), height)

    classes = len(card.labels)
    for column in columns.T.tolist():
        x, y, width, height = column[:4]
        scores, points = column[4 : 4 + classes], column[4 + classes :]
        score = max(scores)
        left, top = back(x - width / 2, y - height / 2)
        right, bottom = back(x + width / 2, y + height / 2)
        if score >= 0.25 and right > left and bottom > top:
            triples = [[*back(points[i], points[i + 1]), min(max(points[i + 2], 0), 1)] for i in range(0, len(points), 3)]
            found.append((score, scores.index(score), [left, top, right, bottom], triples))
    return sorted(found, key=lambda one: -one[0])


@given(
    st.tuples(st.integers(8, 80), st.integers(8, 80)),
    st.sampled_from(["crop", "letterbox", "stretch"]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_decoding_is_as_a_slow_reference_has_it(
    picture_wh: tuple[int, int], resize: str, labels: int, keypoints: int, transposed: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    card = card_of((48, 32), labels, keypoints, resize)
    task = Detect(card, card.variants[0])
    tensor = task.prepare(frame(plain(0, *picture_wh)))
    columns = random.uniform(-10, 60, (4 + labels + 3 * keypoints, 25)).astype(np.float32)  # 25: no height of a column
    columns[2:4] = random.uniform(6, 30, (2, 25))
    columns[4 : 4 + labels] = random.uniform(0, 1, (labels, 25))
    columns[4 + labels + 2 :: 3] = random.uniform(-0.1, 1.1, (keypoints, 25))
    found = task.decode({"predictions": columns.T[None] if transposed else columns[None]}, tensor)
    want = decoded_slowly(columns, card, tensor.geometry)
    assert found.class_ids.tolist() == [class_id for _, class_id, _, _ in want]
    assert found.keypoints is not None
    assert found.keypoints.shape == (len(want), keypoints, 3)
    np.testing.assert_allclose(found.scores, [score for score, _, _, _ in want])
    np.testing.assert_allclose(found.boxes_xyxy, np.reshape([box for _, _, box, _ in want], (-1, 4)), atol=1e-3)
    np.testing.assert_allclose(found.keypoints, np.reshape([points for *_, points in want], (-1, keypoints, 3)), atol=1e-3)


# the card


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card["detect"].pop("keypoints"), "task pose lacks 'detect.keypoints'"),
        (lambda card: card.pop("detect"), "task pose lacks 'detect'"),
        (lambda card: card["detect"].update(keypoints=["a", "a"]), "the keypoint 'a' stands twice"),
        (lambda card: card["detect"].update(keypoints=[]), "detect.keypoints"),
        (lambda card: card["detect"].update(keypoints=[""]), "detect.keypoints"),
        (lambda card: card.update(task="detect"), "task detect has no head 'yolov8-pose'"),
        (lambda card: card.update(task="detect", head="yolov8"), "task detect has no 'detect.keypoints'"),
    ],
)
def test_cards_that_cannot_be(tiny_pose: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str) -> None:
    path = write_entries(tmp_path / "b.edge", with_card(entries_of(tiny_pose), change))
    with pytest.raises(BundleError, match=says):
        open_bundle(path)


# with the rest of the loop


@pytest.fixture(scope="module")
def bundle(tiny_pose: Path) -> Bundle:
    return open_bundle(tiny_pose)


def test_a_region_and_a_class_filter_keep_keypoints_where_they_are(bundle: Bundle) -> None:
    """The right half of 128 x 64, which the model sees as it is."""
    model = open_model(bundle)
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = squares(("red", 1, 2), ("blue", 3, 0)).repeat(2, axis=0).repeat(2, axis=1)
    task = Focus(Chosen(model.task, frozenset({"red"}), {}, labels=["red", "green", "blue"]), parse_region("0.5,0,1,1"))
    tensor = task.prepare(frame(image))
    found = task.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Detections)
    assert found.labels == ("red",)
    assert found.keypoints is not None
    np.testing.assert_allclose(found.boxes_xyxy, [[80, 32, 96, 48]], atol=1e-3)
    np.testing.assert_allclose(found.keypoints, [[[80, 32, 0.875], [96, 48, 0.25]]], atol=1e-3)


def test_tracking_keeps_keypoints() -> None:
    tracker = Tracker()
    for now_s in (0.0, 0.1):
        found, _ = tracker.update(TWO, now_s)
    assert found.tracks is not None
    assert sorted(found.tracks.tolist()) == [1, 2]
    np.testing.assert_array_equal(found.keypoints, TWO.keypoints)  # type: ignore[arg-type]


def test_an_event_has_them_only_where_there_are_any() -> None:
    def objects(found: Detections) -> Any:
        return json.loads(encode_event(replace(event(), result=found)))["result"]["objects"]

    assert objects(TWO)[1]["keypoints"] == [[61, 62, 0.25], [88, 89, 0.75]]
    assert "keypoints" not in objects(detections(("cat", 0.5, (1, 2, 3, 4))))[0]


def test_visible_keypoints_are_drawn() -> None:
    base = plain(90, 320, 240)
    box = (100.0, 120.0, 200.0, 200.0)
    without = annotate(base.copy(), replace(event(frame(base)), result=detections(("cat", 0.9, box))))
    seen = posed(("cat", 0.9, box), points=[[(150, 160, 0.5), (120, 180, 0.49)]])
    drawn = annotate(base.copy(), replace(event(frame(base)), result=seen))
    ys, xs = np.nonzero((drawn != without).any(axis=2))
    assert (ys.mean(), xs.mean()) == (pytest.approx(160, abs=0.5), pytest.approx(150, abs=0.5))
    assert np.ptp(xs) < 12


def test_edge_run(command: Command, tiny_pose: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(encoded(squares(("red", 1, 2)), ".png"))
    done = command(
        main,
        "--model",
        tiny_pose,
        "--source",
        tmp_path / "in",
        "--track",
        "--score-threshold",
        0.6,
        "--video",
        tmp_path / "v.avi",
    )
    assert done.code == 0, done.err
    results = [json.loads(line)["result"]["objects"] for line in done.out.splitlines()]
    assert results[2] == [
        {
            "label": "red",
            "score": 1.0,
            "box_xyxy": [8.0, 16.0, 16.0, 24.0],
            "track": 1,
            "keypoints": [[8.0, 16.0, 0.875], [16.0, 24.0, 0.25]],
        }
    ]


def test_the_cloud_is_not_asked(command: Command, tiny_pose: Path) -> None:
    line = command(main, "--model", tiny_pose, "--source", "demo", "--offload", "http://127.0.0.1:1").refused(2)
    assert "--offload: an endpoint answers for classify and detect only, the task of corners is pose" in line


def test_the_way_there_and_back(bundle: Bundle) -> None:
    """A keypoint in the middle of the picture is there again, whatever the picture's shape."""
    tensor = prepare(frame(plain(0, 200, 100)), bundle.card.input)
    middle = np.array([[[16.0, 16.0]]], np.float32)
    np.testing.assert_allclose(tensor.geometry.points_to_original(middle), [[[100, 50]]])
