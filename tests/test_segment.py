"""Segmentation: logits to a mask without padding, and the mask through regions, events and the picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloud.answers import ANSWERS
from cloud.served import Served
from edge.bundle import open_bundle
from edge.card import ANSWERED_TASKS, InputGeometry
from edge.commands.evaluate import main as edge_eval
from edge.commands.run import main
from edge.errors import BundleError, EngineError, UsageError
from edge.events import encode_event, event_schema, run_lengths
from edge.geometry import prepare
from edge.model import Model, open_model
from edge.policies import LocalOnly
from edge.regions import Chosen, Focus, Region, parse_region
from edge.sinks.caption import caption
from edge.sinks.video import BOX_COLORS, annotate
from edge.tasks.segment import best_classes, one_reading, seen
from edge.types import NOTHING, Frame, Mask, Outputs, Tensor
from tests.conftest import Finished
from tests.samples import encoded, entries_of, event, frame, plain, squares, with_card, write_entries

Command = Callable[..., Finished]
LABELS = ("background", "red", "green", "blue")
VALIDATOR = jsonschema.Draft202012Validator(event_schema())


def mask(ids: Any, area: tuple[float, float, float, float] = (0, 0, 32, 32), scores: Any = 0.5) -> Mask:
    class_ids = np.array(ids, np.int16)
    return Mask(class_ids, np.broadcast_to(np.float32(scores), class_ids.shape), LABELS, area)


SMALL = mask([[-1, 1, 1, 1], [-1, -1, 2, 1]], (10, 20, 50, 40), [[0.5, 0.5, 0.75, 0.75], [0.25, 0.5, 0.5, 1]])

# the value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_ids": np.zeros((2, 4), np.int64)}, r"class_ids: expected int16 \(h, w\), got int64 \(2, 4\)"),
        ({"class_ids": np.zeros(8, np.int16)}, r"got int16 \(8,\)"),
        ({"class_ids": np.zeros((0, 4), np.int16)}, r"got int16 \(0, 4\)"),
        ({"class_ids": np.full((2, 4), 4, np.int16)}, "class_ids: expected -1 to 3, got 4 to 4"),
        ({"class_ids": np.full((2, 4), -2, np.int16)}, "expected -1 to 3, got -2 to -2"),
        ({"scores": np.zeros((4, 2), np.float32)}, r"scores: expected float32 \(2, 4\), got float32 \(4, 2\)"),
        ({"scores": np.zeros((2, 4))}, "got float64"),
    ],
)
def test_a_mask_is_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_segments_are_what_is_there_the_largest_first() -> None:
    red, green = SMALL.segments()
    assert (red.class_id, red.label, red.share, red.score) == (1, "red", 0.5, 0.75)
    assert (green.class_id, green.label, green.share, green.score) == (2, "green", 0.125, 0.5)
    assert red.box_xyxy == (20, 20, 50, 40)
    assert green.box_xyxy == (30, 30, 40, 40)
    assert SMALL.confidence == pytest.approx(0.59375)
    assert mask([[NOTHING]]).segments() == ()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_segments_are_as_a_slow_reference_has_them(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    of = mask(random.integers(-1, 4, (height, width)), (5, 10, 5 + 2 * width, 10 + 3 * height), random.random((height, width)))
    cells = [(y, x, int(of.class_ids[y, x]), float(of.scores[y, x])) for y in range(height) for x in range(width)]
    found = of.segments()
    assert {segment.class_id for segment in found} == {class_id for _, _, class_id, _ in cells} - {NOTHING}
    assert [segment.share for segment in found] == sorted((segment.share for segment in found), reverse=True)
    for segment in found:
        mine = [(y, x, score) for y, x, class_id, score in cells if class_id == segment.class_id]
        ys, xs = [y for y, _, _ in mine], [x for _, x, _ in mine]
        assert segment.share == pytest.approx(len(mine) / len(cells))
        assert segment.score == pytest.approx(sum(score for _, _, score in mine) / len(mine), rel=1e-5)
        assert segment.box_xyxy == pytest.approx(
            (5 + 2 * min(xs), 10 + 3 * min(ys), 5 + 2 * (max(xs) + 1), 10 + 3 * (max(ys) + 1))
        )


def test_what_is_not_kept_is_nothing_and_the_confidence_stays() -> None:
    kept = SMALL.only(SMALL.class_ids == 2)
    assert kept.class_ids.tolist() == [[-1, -1, -1, -1], [-1, -1, 2, -1]]
    assert kept.confidence == SMALL.confidence
    assert SMALL.class_ids[0, 1] == 1
    assert SMALL.moved((1, 2)).area_xyxy == (11, 22, 51, 42)


# the head


@given(st.integers(2, 5), st.integers(1, 6), st.integers(1, 6), st.floats(0.2, 5), st.integers(0, 2**32 - 1))
def test_the_best_class_and_its_probability(classes: int, height: int, width: int, temperature: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, (classes, height, width)).astype(np.float32)
    ids, scores = best_classes(logits, temperature)
    assert (ids.dtype, scores.dtype) == (np.int16, np.float32)
    for y in range(height):
        for x in range(width):
            exponents = [math.exp(value / temperature) for value in logits[:, y, x].tolist()]
            assert ids[y, x] == exponents.index(max(exponents))
            assert scores[y, x] == pytest.approx(max(exponents) / sum(exponents), rel=1e-4)


def test_logits_however_large() -> None:
    ids, scores = best_classes(np.array([[[3e38]], [[-3e38]], [[2e38]]], np.float32), 1.0)
    assert (ids.tolist(), scores.tolist()) == ([[0]], [[1.0]])


@pytest.mark.parametrize(
    ("shape", "reading"),
    [((1, 4, 6, 8), (4, 6, 8)), ((1, 6, 8, 4), (4, 6, 8)), ((1, 6, 8), (6, 8)), ((1, 1, 6, 8), (6, 8)), ((1, 6, 8, 1), (6, 8))],
)
def test_layouts(shape: tuple[int, ...], reading: tuple[int, ...]) -> None:
    values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    found = one_reading(values, 4)
    assert found.shape == reading
    want = values[0] if shape[-1] != 4 else np.moveaxis(values[0], -1, 0)
    np.testing.assert_array_equal(found, want.reshape(reading))


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((1, 4, 6, 4), "two ways"),  # w is as many as there are labels
        ((1, 1, 6, 4), "two ways"),
        ((1, 1, 6, 1), "two ways"),
        ((1, 5, 6, 8), "neither"),
        ((2, 4, 6, 8), "neither"),
        ((2, 6, 8), "neither"),
        ((6, 8), "neither"),
        ((1, 4, 0, 8), "neither"),
        ((), "neither"),
    ],
)
def test_shapes_that_say_nothing_or_too_much(shape: tuple[int, ...], why: str) -> None:
    with pytest.raises(EngineError, match=f"head argmax expects .* the model gives .*{why}"):
        one_reading(np.zeros(shape, np.float32), 4)


@given(
    st.tuples(st.integers(1, 120), st.integers(1, 120)),
    st.tuples(st.integers(1, 32), st.integers(1, 32)),
    st.sampled_from([("letterbox", "center"), ("letterbox", "topleft"), ("stretch", "center"), ("crop", "center")]),
)
def test_the_cells_are_those_whose_centre_shows_the_picture(
    picture_wh: tuple[int, int], cells_wh: tuple[int, int], how: tuple[str, str]
) -> None:
    spec = InputGeometry(width=48, height=32, resize=how[0], letterbox_anchor=how[1])  # type: ignore[arg-type]
    tensor = prepare(frame(plain(0, *picture_wh)), spec)
    rows, columns, area = seen(tensor, cells_wh)
    for axis, cells in ((0, columns), (1, rows)):
        size, scale, offset = picture_wh[axis], tensor.geometry.scale_xy[axis], tensor.geometry.offset_xy[axis]
        edges = [(edge * (48, 32)[axis] / cells_wh[axis] - offset) / scale for edge in range(cells_wh[axis] + 1)]
        centres = [(low + high) / 2 for low, high in pairwise(edges)]
        assume(all(min(abs(centre), abs(centre - size)) > 1e-6 * size for centre in centres))
        inside = [i for i, centre in enumerate(centres) if 0 < centre < size]
        assert 0 <= cells.start < cells.stop <= cells_wh[axis]
        assert list(range(cells.start, cells.stop)) == inside if inside else cells.stop - cells.start == 1
        low, high = edges[cells.start], edges[cells.stop]
        assert (area[axis], area[axis + 2]) == pytest.approx((max(low, 0), min(high, size)), abs=1e-3)
        assert area[axis] < area[axis + 2]


# decoding


@pytest.fixture(scope="module")
def model(tiny_segmenter: Path) -> Model:
    return open_model(open_bundle(tiny_segmenter))


def segmented(model: Model, image: Any, task: Any = None) -> Mask:
    chosen = task or model.task
    tensor = chosen.prepare(frame(image))
    found = chosen.decode(model.engine.infer(tensor), tensor)
    assert isinstance(found, Mask)
    return found


def test_squares_are_painted_and_background_is_nothing(model: Model) -> None:
    found = segmented(model, squares(("red", 1, 2), ("blue", 3, 0)))
    want = np.full((8, 8), NOTHING)
    want[4:6, 2:4], want[0:2, 6:8] = 1, 3
    np.testing.assert_array_equal(found.class_ids, want)
    assert found.area_xyxy == (0, 0, 32, 32)
    assert found.labels == LABELS
    probabilities = np.exp([20, 10, 0, 0]) / np.exp([20, 10, 0, 0]).sum(), np.exp([10, 0, 0, 0]) / np.exp([10, 0, 0, 0]).sum()
    assert found.scores[4, 2] == pytest.approx(probabilities[0][0])
    assert found.scores[7, 7] == pytest.approx(probabilities[1][0])


def test_the_padding_is_not_in_it(model: Model) -> None:
    """64 x 32 is halved and stands between two bars of 8 rows."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:8, 48:, 1] = 255
    found = segmented(model, image)
    assert found.class_ids.shape == (4, 8)
    assert found.area_xyxy == (0, 0, 64, 32)
    [green] = found.segments()
    assert (green.label, green.share, green.box_xyxy) == ("green", 2 / 32, (48, 0, 64, 8))


@pytest.mark.parametrize("name", ["background", "Background", "wall"])
def test_the_first_label_is_nothing_only_where_it_is_named_background(tiny_segmenter: Path, tmp_path: Path, name: str) -> None:
    entries = with_card(entries_of(tiny_segmenter), lambda card: card["labels"][0].update(name=name))
    found = segmented(open_model(open_bundle(write_entries(tmp_path / "b.edge", entries))), squares(("red", 0, 0)))
    assert {segment.label for segment in found.segments()} == ({"red", "wall"} if name == "wall" else {"red"})


def test_class_ids_are_certain(model: Model) -> None:
    tensor = model.task.prepare(frame(squares()))
    found = model.task.decode({"logits": np.array([[[0, 1.01], [3, 1]]], np.float32)}, tensor)
    assert isinstance(found, Mask)
    assert found.class_ids.tolist() == [[NOTHING, 1], [3, 1]]
    assert found.confidence == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1, 4, 1e9])
def test_class_ids_without_a_label_are_refused(model: Model, bad: float) -> None:
    tensor = model.task.prepare(frame(squares()))
    with pytest.raises(EngineError, match="there are 4 labels"):
        model.task.decode({"logits": np.array([[[0, bad], [3, 1]]], np.float32)}, tensor)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(model: Model, bad: float) -> None:
    tensor = model.task.prepare(frame(squares()))
    outputs = dict(model.engine.infer(tensor))
    outputs["logits"] = outputs["logits"].copy()
    outputs["logits"][0, 2, 3, 3] = bad
    with pytest.raises(EngineError, match="not finite"):
        model.task.decode(outputs, tensor)


def test_the_outputs_are_not_written_into(model: Model) -> None:
    tensor = model.task.prepare(frame(squares(("red", 1, 1))))
    for outputs in (model.engine.infer(tensor), {"logits": np.zeros((1, 8, 8), np.float32)}):
        kept = outputs["logits"].copy()
        outputs["logits"].flags.writeable = False
        model.task.decode(outputs, tensor)
        np.testing.assert_array_equal(outputs["logits"], kept)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card.update(labels=card["labels"][:1]), "two labels at least, this one 1"),
        (lambda card: card.update(detect={}), "task segment has no 'detect'"),
        (lambda card: card["variants"][0].update(accuracy={"data": "d", "images": 1, "top1": 1, "ece": 0}), "has 'top1'"),
    ],
)
def test_cards_that_cannot_be(
    tiny_segmenter: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    path = write_entries(tmp_path / "b.edge", with_card(entries_of(tiny_segmenter), change))
    with pytest.raises(BundleError, match=says):
        open_bundle(path)


# regions, classes, policies


def test_a_class_filter_leaves_the_cells_of_its_classes(model: Model) -> None:
    image = squares(("red", 1, 2), ("blue", 3, 0))
    chosen = segmented(model, image, Chosen(model.task, frozenset({"blue"}), {}, labels=LABELS))
    whole = segmented(model, image)
    np.testing.assert_array_equal(chosen.class_ids, np.where(whole.class_ids == 3, 3, NOTHING))


def test_a_region_is_where_it_is_in_the_picture_and_nothing_outside_it(model: Model) -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = squares(("red", 1, 2), ("blue", 3, 0)).repeat(2, axis=0).repeat(2, axis=1)
    found = segmented(model, image, Focus(model.task, parse_region("0.5,0,1,1")))
    assert found.area_xyxy == (64, 0, 128, 64)
    assert [segment.box_xyxy for segment in found.segments()] == [(80, 32, 96, 48), (112, 0, 128, 16)]
    triangle = segmented(model, image, Focus(model.task, parse_region("0.5,0,0.5,1,1,1")))  # below the diagonal
    assert [segment.label for segment in triangle.segments()] == ["red"]


POINT = st.tuples(st.floats(0, 1), st.floats(0, 1))


@given(st.lists(POINT, min_size=3, max_size=6), st.tuples(st.integers(1, 12), st.integers(1, 12)), st.sampled_from([0.0, 10.0]))
def test_the_cells_of_a_region_are_those_with_their_centre_inside(
    points: list[tuple[float, float]], cells_wh: tuple[int, int], margin: float
) -> None:
    region, size_wh = Region(tuple(points)), (80, 60)
    area = (margin, margin, 80 - margin, 60 - margin)
    found = region.cells(area, cells_wh, size_wh)
    contour = region.pixels(size_wh)
    cell_w, cell_h = (area[2] - area[0]) / cells_wh[0], (area[3] - area[1]) / cells_wh[1]
    for y in range(cells_wh[1]):
        for x in range(cells_wh[0]):
            centre = (area[0] + (x + 0.5) * cell_w, area[1] + (y + 0.5) * cell_h)
            if abs(distance := cv2.pointPolygonTest(contour, centre, True)) > 1e-3:
                assert found[y, x] == (distance > 0)


def test_a_policy_looks_at_the_mean_score() -> None:
    assert LocalOnly().decide(SMALL, 0.0).confidence == SMALL.confidence


# what becomes of it


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_runs_are_the_cells_row_by_row(height: int, width: int, seed: int) -> None:
    cells = np.random.default_rng(seed).integers(-1, 2, (height, width)).astype(np.int16)
    runs = run_lengths(cells)
    assert [class_id for class_id, length in runs for _ in range(length)] == cells.ravel().tolist()
    assert all(one != other for (one, _), (other, _) in pairwise(runs))
    assert all(length > 0 for _, length in runs)


def test_an_event() -> None:
    line = json.loads(encode_event(replace(event(), result=SMALL)))
    VALIDATOR.validate(line)
    assert line["result"] == {
        "segments": [
            {"label": "red", "class_id": 1, "share": 0.5, "score": 0.75, "box_xyxy": [20, 20, 50, 40]},
            {"label": "green", "class_id": 2, "share": 0.125, "score": 0.5, "box_xyxy": [30, 30, 40, 40]},
        ],
        "mask": {
            "width": 4,
            "height": 2,
            "box_xyxy": [10, 20, 50, 40],
            "runs": [[-1, 1], [1, 3], [-1, 2], [2, 1], [1, 1]],
        },
    }
    del line["result"]["mask"]
    assert not VALIDATOR.is_valid(line)


def test_captions() -> None:
    assert caption(SMALL) == "50% red, 12% green"
    assert caption(mask([[NOTHING]])) == "nothing"


def test_each_class_has_its_colour_over_its_cells() -> None:
    base = plain(90, 320, 240)
    found = mask([[1, -1], [-1, 2]], (0, 120, 320, 240))
    drawn = annotate(base.copy(), replace(event(frame(base)), result=found))
    plainly = annotate(base.copy(), replace(event(frame(base)), result=mask([[NOTHING]])))
    for x, y, color in ((80, 150, BOX_COLORS[1]), (240, 210, BOX_COLORS[2])):
        assert drawn[y, x].tolist() == pytest.approx([(90 + channel) / 2 for channel in color], abs=1)
    np.testing.assert_array_equal(drawn[121:180, 160:], plainly[121:180, 160:])
    np.testing.assert_array_equal(drawn[180:, :160], plainly[180:, :160])
    assert (drawn[125:178, 2:158] != 90).any(axis=2).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (64, 48)])
@pytest.mark.parametrize("area", [(0, 0, 1, 1), (0, 0, 200, 200), (199.9, 199.9, 200, 200)])
def test_masks_anywhere_in_pictures_of_any_size(size: tuple[int, int], area: tuple[float, float, float, float]) -> None:
    image = plain(90, 200, 200)
    drawn = annotate(plain(90, *size), replace(event(frame(image)), result=mask([[1, 2], [-1, 3]], area)))
    assert drawn.shape == (size[1], size[0], 3)


def test_edge_run(command: Command, tiny_segmenter: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(encoded(squares(("red", 1, 2), ("red", 1, 3), ("blue", 3, 0)), ".png"))
    (tmp_path / "in" / "1.png").write_bytes(encoded(squares(), ".png"))
    arguments = ("--model", tiny_segmenter, "--source", tmp_path / "in", "--motion-gate", "--store", tmp_path / "e.db")
    done = command(main, *arguments, "--video", tmp_path / "v.avi")
    assert done.code == 0, done.err
    first, second = (json.loads(line) for line in done.out.splitlines())
    VALIDATOR.validate(first)
    assert [(one["label"], one["share"]) for one in first["result"]["segments"]] == [("red", 0.125), ("blue", 0.0625)]
    assert first["result"]["segments"][0]["box_xyxy"] == [8, 16, 16, 32]
    assert second["result"]["mask"]["runs"] == [[-1, 64]]
    done = command(main, "--model", tiny_segmenter, "--source", tmp_path / "in", "--classes", "blue", "--roi", "0,0,1,0.5")
    first = json.loads(done.out.splitlines()[0])
    assert [one["label"] for one in first["result"]["segments"]] == ["blue"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--track"], "--track is for detectors, paint is none"),
        (["--score-threshold", "0.5"], "--score-threshold is for detectors, paint is none"),
        (["--classes", "rde"], "did you mean red or green?"),
        (
            ["--offload", "http://127.0.0.1:1"],
            "--offload: an endpoint answers for classify and detect only, the task of paint is",
        ),
    ],
)
def test_what_makes_no_sense_with_a_mask_is_refused(
    command: Command, tiny_segmenter: Path, flags: list[str], says: str
) -> None:
    assert says in command(main, "--model", tiny_segmenter, "--source", "demo", *flags).refused(2)


def test_edge_eval_and_edge_cloud_say_what_they_can(
    command: Command, tiny_segmenter: Path, tiny_pose: Path, tmp_path: Path
) -> None:
    for path, task in ((tiny_segmenter, "segment"), (tiny_pose, "pose")):
        line = command(edge_eval, "--model", path, "--data", tmp_path).refused(2)
        assert f"accuracy is measured for classify and detect only, its task is {task}" in line
        bundle = open_bundle(path)
        assert set(ANSWERS) == set(ANSWERED_TASKS)
        with pytest.raises(UsageError, match=f"its task is {task}, edge-cloud serves classify and detect"):
            Served(open_model(bundle), bundle.card)


class Fixed:
    """A task that always gives the same mask."""

    def prepare(self, frame: Frame) -> Tensor:
        raise NotImplementedError

    def decode(self, outputs: Outputs, tensor: Tensor) -> Mask:
        return SMALL


def test_of_labels_with_one_name_all_are_chosen() -> None:
    twice = replace(SMALL, labels=("background", "red", "red", "blue"))
    task = Fixed()
    task.decode = lambda outputs, tensor: twice  # type: ignore[method-assign]
    found = Chosen(task, frozenset({"red"}), {}, labels=twice.labels).decode({}, None)  # type: ignore[arg-type]
    assert isinstance(found, Mask)
    np.testing.assert_array_equal(found.class_ids, SMALL.class_ids)
