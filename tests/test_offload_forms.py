"""What is sent of a frame and what the answer means: pictures, crops, tensors, parameters, and what is never sent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.card import InputGeometry, TensorInput
from edge.errors import OffloadError
from edge.offload import Answer, Offloader
from edge.offload.forms import CropForm, FrameForm, merged
from edge.offload.pictures import RedactionError, around, encode_part, redacted, whole_pixels
from edge.offload.served import Served, read_served
from edge.offload.tensors import TensorForm
from edge.offload.uplink import LADDER, Rung
from edge.oip import InferRequest, InferResponse, NamedTensor, decode_request, encode_response
from edge.types import Classes, Detections, Event, Opinion, Result
from tests.endpoint import Endpoint, Reply, serving, until
from tests.samples import detections, event, frame, picture, plain

Box = tuple[float, float, float, float]

# pictures


@pytest.mark.parametrize(
    ("size_wh", "rung", "sent_wh"),
    [
        ((64, 48), LADDER[0], (64, 48)),
        ((1280, 720), LADDER[0], (1280, 720)),
        ((1920, 1080), LADDER[0], (1280, 720)),
        ((1080, 1920), LADDER[0], (720, 1280)),
        ((1920, 1080), LADDER[3], (640, 360)),
        ((1, 1), LADDER[-1], (1, 1)),
        ((5000, 1), LADDER[-1], (320, 1)),
    ],
)
def test_jpeg(size_wh: tuple[int, int], rung: Rung, sent_wh: tuple[int, int]) -> None:
    image = picture(*size_wh)
    image.flags.writeable = False
    raw, geometry = encode_part(image, (0, 0, *size_wh), rung)
    found = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert found.shape[1::-1] == sent_wh
    assert not any(word in raw for word in (b"Exif", b"http", b"Photoshop", b"ICC_PROFILE"))
    assert np.abs(found.astype(int) - cv2.resize(image, sent_wh, interpolation=cv2.INTER_AREA)).mean() < 8
    corners = np.array([[0, 0, *sent_wh]], np.float32)
    np.testing.assert_allclose(geometry.to_original(corners), [[0, 0, *size_wh]], atol=1e-3)


def test_a_part_of_a_picture_and_the_way_back() -> None:
    raw, geometry = encode_part(picture(200, 100), (50, 20, 150, 80), Rung(50, 90, 1.0))
    found = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert found.shape[1::-1] == (50, 30)
    boxes = geometry.to_original(np.array([[0, 0, 50, 30], [10, 10, 20, 20]], np.float32))
    np.testing.assert_allclose(boxes, [[50, 20, 150, 80], [70, 40, 90, 60]])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10.5, 10.5, 20.5, 20.5), (10, 10, 21, 21)),
        ((-5, -5, 500, 500), (0, 0, 100, 50)),
        ((99.9, 49.9, 120, 60), (99, 49, 100, 50)),
        ((30, 30, 30, 30), (30, 30, 31, 31)),
        ((-9, -9, -3, -3), (0, 0, 1, 1)),
        ((200, 200, 300, 300), (99, 49, 100, 50)),
    ],
)
def test_whole_pixels(box: Box, expected: tuple[int, int, int, int]) -> None:
    assert whole_pixels(box, (100, 50)) == expected


def test_the_rectangle_around_objects_is_grown_by_a_tenth() -> None:
    seen = detections(("a", 0.9, (20, 20, 40, 30)), ("b", 0.5, (60, 10, 70, 20)), ("c", 0.4, (95, 45, 100, 50)))
    assert around(seen, (0,), (100, 50)) == (18, 19, 42, 31)
    assert around(seen, (0, 1), (100, 50)) == (15, 8, 75, 32)
    assert around(seen, (2,), (100, 50)) == (94, 44, 100, 50)
    assert around(seen, (), (100, 50)) == (0, 0, 100, 50)
    assert around(event().result, (), (100, 50)) == (0, 0, 100, 50)


# crops

LOCAL = replace(
    detections(("cat", 0.9, (0, 0, 10, 10)), ("dog", 0.4, (20, 20, 40, 40)), ("cow", 0.3, (50, 50, 60, 60))),
    tracks=np.array([1, 2, 3]),
)


def named(result: Detections) -> list[tuple[str, float, int | None]]:
    tracks = [None] * len(result) if result.tracks is None else result.tracks.tolist()
    return list(zip(result.labels, [round(score, 2) for score in result.scores.tolist()], tracks, strict=True))


def test_an_answer_about_a_crop_keeps_what_was_not_asked_about() -> None:
    both = merged(LOCAL, (1,), detections(("wolf", 0.8, (21, 21, 41, 41)), ("flea", 0.5, (30, 22, 31, 23))))
    assert named(both) == [("cat", 0.9, 1), ("wolf", 0.8, 2), ("flea", 0.5, 0), ("cow", 0.3, 3)]


@pytest.mark.parametrize(
    ("about", "answer", "expected"),
    [
        ((1,), [], [("cat", 0.9, 1), ("cow", 0.3, 3)]),
        ((0, 1, 2), [], []),
        ((0, 1, 2), [("x", 0.5, (50, 50, 60, 60))], [("x", 0.5, 3)]),
        # each track is given once, to the object that overlaps it best
        (
            (1,),
            [("x", 0.7, (20, 20, 40, 30)), ("y", 0.6, (20, 20, 40, 40))],
            [("cat", 0.9, 1), ("x", 0.7, 0), ("y", 0.6, 2), ("cow", 0.3, 3)],
        ),
        # one that is a neighbour which nobody asked about: the local one stands
        (
            (1,),
            [("x", 0.7, (20, 20, 40, 40)), ("ox", 0.6, (50, 50, 61, 60))],
            [("cat", 0.9, 1), ("x", 0.7, 2), ("cow", 0.3, 3)],
        ),
    ],
)
def test_objects_of_an_answer(about: tuple[int, ...], answer: list[tuple[str, float, Box]], expected: Any) -> None:
    assert named(merged(LOCAL, about, detections(*answer))) == expected


def test_without_a_tracker_there_are_no_tracks() -> None:
    both = merged(replace(LOCAL, tracks=None), (1,), detections(("wolf", 0.8, (21, 21, 41, 41))))
    assert named(both) == [("cat", 0.9, None), ("wolf", 0.8, None), ("cow", 0.3, None)]


def test_what_the_cloud_was_not_shown_stands_in_the_whole_frame_s_answer() -> None:
    hidden = np.array([[19, 19, 41, 41]], np.float32)
    local = replace(detections(("person", 0.4, (20, 20, 40, 40)), ("dog", 0.6, (60, 20, 80, 40))), private_xyxy=hidden)
    one = replace(event(), result=local)
    question = FrameForm().question(one, one.frame.image, LADDER[0], None)
    outputs = {
        "labels": NamedTensor("labels", "BYTES", (1, 1), [b"wolf"]),
        "scores": NamedTensor.of("scores", np.array([[0.9]], np.float32)),
        "boxes": NamedTensor.of("boxes", np.array([[[60, 20, 80, 40]]], np.float32)),
    }
    answer = FrameForm().answer(one, question, InferResponse("m", "", "", outputs))
    assert isinstance(answer, Detections)
    assert answer.labels == ("wolf", "person")


# through an endpoint

DETECTOR: Reply = (
    200,
    json.dumps(
        {
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("boxes", "labels", "scores")],
        }
    ).encode(),
    {},
)


def finds(*objects: tuple[str, float, Box]) -> Callable[[Endpoint, bytes, dict[str, str]], Reply]:
    """An endpoint that finds these, in pixels of the picture that came, and keeps what it was sent."""
    boxes = NamedTensor.of("boxes", np.array([[box for _, _, box in objects]], np.float32).reshape(1, -1, 4))
    scores = NamedTensor.of("scores", np.array([[score for _, score, _ in objects]], np.float32))
    labels = NamedTensor("labels", "BYTES", (1, len(objects)), [label.encode() for label, _, _ in objects])

    def answer(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        request = decode_request(body, headers)
        endpoint.pictures.append(request)
        return 200, *encode_response("big", [boxes, labels, scores])

    return answer


def decoded(request: InferRequest) -> Any:
    return cv2.imdecode(np.frombuffer(request.inputs["image"].data[0], np.uint8), cv2.IMREAD_COLOR)


def asked(endpoint: Endpoint, about: Event, **options: Any) -> tuple[list[Answer], Offloader, list[str]]:
    said: list[str] = []
    offloader = Offloader(endpoint.url, "tiny", say=said.append, **options)
    offloader.submit(replace(about, frame=replace(about.frame, captured_s=time.monotonic())))
    assert until(lambda: offloader.idle)
    answers = offloader.answers()
    offloader.close()
    return answers, offloader, said


def seeing(result: Result, about: tuple[int, ...] = (), size_wh: tuple[int, int] = (200, 100)) -> Event:
    image = picture(*size_wh)
    image.flags.writeable = False  # leased memory, that nobody writes to
    one = event(frame(image), action="offload")
    return replace(one, result=result, decision=replace(one.decision, about=about))


def test_a_crop_is_sent_and_its_answer_is_put_where_it_was() -> None:
    seen = replace(detections(("cat", 0.9, (0, 0, 10, 10)), ("dog", 0.4, (100, 20, 160, 60))), tracks=np.array([7, 8]))
    with serving(finds(("wolf", 0.8, (6, 4, 66, 44))), DETECTOR) as endpoint:
        answers, _, said = asked(endpoint, seeing(seen, (1,)), form=CropForm())
        assert said == []
        assert decoded(endpoint.pictures[0]).shape == (48, 72, 3)  # 60 x 40 and a tenth on each side
        result = answers[0].result
        assert isinstance(result, Detections)
        assert named(result) == [("cat", 0.9, 7), ("wolf", 0.8, 8)]
        np.testing.assert_allclose(result.boxes_xyxy[1], (100, 20, 160, 60), atol=1e-3)
        assert endpoint.pictures[0].parameters == {}  # an endpoint of unknown kind is told nothing


def test_a_decision_about_no_object_sends_the_whole_frame() -> None:
    with serving(finds(("wolf", 0.8, (6, 4, 66, 44))), DETECTOR) as endpoint:
        answers, _, _ = asked(endpoint, seeing(LOCAL), form=CropForm())
        assert decoded(endpoint.pictures[0]).shape == (100, 200, 3)
        assert answers[0].result.labels == ("wolf",)


def test_edge_cloud_is_told_the_local_result_in_pixels_of_what_is_sent() -> None:
    seen = detections(("cat", 0.9, (0, 0, 10, 10)), ("dog", 0.4, (100, 20, 160, 60)))
    with serving(finds(), DETECTOR) as endpoint:
        endpoint.server = (200, b'{"name": "edge-cloud", "version": "1"}', {})
        asked(endpoint, seeing(seen, (1,)), form=CropForm())
        told = endpoint.pictures[0].parameters
        assert set(told) == {"local", "source", "captured_at", "key"}
        assert json.loads(told["local"]) == {
            "objects": [{"label": "dog", "score": 0.4, "box_xyxy": [6.0, 4.0, 66.0, 44.0], "track": None}]
        }
        assert told["source"] == "test"
        assert told["captured_at"] == "2023-11-14T22:13:20.000Z"
        assert told["key"] == endpoint.headers[0]["Idempotency-Key"]


@pytest.mark.parametrize("form", [FrameForm, CropForm])
def test_edge_cloud_is_told_what_was_greyed_out(form: type[FrameForm]) -> None:
    with serving(finds(), DETECTOR) as endpoint:
        endpoint.server = (200, b'{"name": "edge-cloud", "version": "1"}', {})
        for seen in (private((20, 10, 60, 40)), private()):
            asked(endpoint, seeing(seen, (0,)), form=form(["dog", "person"]), redact=True)
        assert endpoint.pictures[0].parameters["redacted"] == "dog,person"
        assert "redacted" not in endpoint.pictures[1].parameters  # there was nothing to grey out


def test_a_stored_frame_says_what_was_greyed_out(tmp_path: Path) -> None:
    from edge.offload.spool import Spool

    spool = Spool(str(tmp_path), print, quota_bytes=10**6, days=1)
    with serving(lambda *_: (500, b"", {}), DETECTOR) as endpoint:
        _, offloader, _ = asked(endpoint, seeing(private((0, 0, 5, 5))), form=FrameForm(["dog"]), redact=True, spool=spool)
    assert offloader.spooled == 1
    again = Spool(str(tmp_path), print, quota_bytes=10**6, days=1)
    kept = again.best(time.time())
    again.close()
    assert kept is not None
    assert kept.parameters["redacted"] == "dog"


def test_edge_cloud_is_not_told_what_the_cloud_said() -> None:
    with serving(finds(), DETECTOR) as endpoint:
        endpoint.server = (200, b'{"name": "edge-cloud", "version": "1"}', {})
        seen = replace(LOCAL, tracks=np.arange(1, len(LOCAL) + 1))
        asked(endpoint, replace(seeing(seen), opinions={1: Opinion("fox", 0.9)}))
        assert "fox" not in endpoint.pictures[0].parameters["local"]


def test_the_answer_to_a_whole_frame_has_the_local_tracks() -> None:
    seen = replace(detections(("cat", 0.9, (0, 0, 10, 10)), ("dog", 0.4, (100, 20, 160, 60))), tracks=np.array([7, 8]))
    with serving(finds(("wolf", 0.8, (102, 20, 160, 58))), DETECTOR) as endpoint:
        answers, _, _ = asked(endpoint, seeing(seen, (1,)))
    assert named(answers[0].result) == [("wolf", 0.8, 8)]


def test_the_picture_shrinks_with_the_uplink_and_boxes_still_fit() -> None:
    """An endpoint that is given 1.2 s and takes longer the more it gets."""

    def slow(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> Reply:
        time.sleep(len(body) / 1.2e6)
        return finds(("wolf", 0.8, (0, 0, 64, 36)))(endpoint, body, headers)

    picture_of_noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    with serving(slow, DETECTOR) as endpoint:
        offloader = Offloader(endpoint.url, "tiny", deadline_s=1.2)
        one = replace(event(frame(picture_of_noise), action="offload"), result=LOCAL)
        answers: list[Answer] = []
        for _ in range(5):
            offloader.submit(replace(one, frame=replace(one.frame, captured_s=time.monotonic())))
            assert until(lambda: offloader.idle)
            answers += offloader.answers()
        offloader.close()
    widths = [decoded(request).shape[1] for request in endpoint.pictures]
    sizes = [len(request.inputs["image"].data[0]) for request in endpoint.pictures]
    assert widths[0] == 1280
    assert sizes[-1] < 0.7 * sizes[0]
    for answer, width in zip(answers[-2:], widths[-2:], strict=True):
        assert isinstance(answer.result, Detections)
        np.testing.assert_allclose(answer.result.boxes_xyxy[0], np.array([0, 0, 64, 36]) * 1280 / width, rtol=0.02)


# what is private


def private(*boxes: Box) -> Detections:
    return replace(LOCAL, private_xyxy=np.array(boxes, np.float32).reshape(-1, 4))


def test_what_is_private_is_one_grey_in_the_copy_and_as_it_was_in_the_frame() -> None:
    image = picture(200, 100)
    before = image.copy()
    image.flags.writeable = False
    copy = redacted(image, private((20.5, 10.5, 60, 40), (190, 90, 250, 130)))
    assert (copy[10:40, 20:60] == 128).all()
    assert (copy[90:, 190:] == 128).all()
    copy[10:40, 20:60] = before[10:40, 20:60]
    copy[90:, 190:] = before[90:, 190:]
    np.testing.assert_array_equal(copy, before)
    np.testing.assert_array_equal(image, before)


def test_nothing_of_what_was_there_is_left() -> None:
    """Two pictures that differ only where it is private make the same bytes."""
    dark, bright = picture(200, 100), picture(200, 100)
    dark[10:40, 20:60], bright[10:40, 20:60] = 0, 255
    seen = private((20, 10, 60, 40))
    whole = (0, 0, 200, 100)
    for rung in LADDER:
        assert encode_part(redacted(dark, seen), whole, rung)[0] == encode_part(redacted(bright, seen), whole, rung)[0]


@pytest.mark.parametrize(
    "unknown",
    [LOCAL, event().result, private((float("nan"), 0, 5, 5))],
    ids=["nobody looked", "a classifier", "a box that is none"],
)
def test_where_redaction_fails_nothing_is_sent(unknown: Result) -> None:
    with serving(finds(), DETECTOR) as endpoint:
        said: list[str] = []
        offloader = Offloader(endpoint.url, "tiny", redact=True, say=said.append, form=SameKind())
        for _ in range(3):
            one = seeing(unknown)
            offloader.submit(replace(one, frame=replace(one.frame, captured_s=time.monotonic())))
            assert until(lambda: offloader.idle)
        offloader.close()
        assert endpoint.requests == ["/v2/models/tiny"]
        assert (offloader.withheld, offloader.failed, offloader.submitted) == (3, 0, 3)
        assert len(said) == 1
        assert "could not be redacted and is not sent" in said[0]


class SameKind(FrameForm):
    """Asks a detector whatever the local model is."""

    def check(self, served: Served, local: Result) -> None:
        """Anything goes."""


def test_a_redaction_that_raises_sends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edge.offload import endpoint as endpoint_module
    from edge.offload.spool import Spool

    def broken(*arguments: object) -> None:
        raise MemoryError("no room for a copy")

    monkeypatch.setattr(endpoint_module, "redacted", broken)
    with serving(finds(), DETECTOR) as endpoint:
        spool = Spool(str(tmp_path), print, quota_bytes=10**6, days=1)
        _, offloader, said = asked(endpoint, seeing(private((0, 0, 5, 5))), redact=True, spool=spool)
        assert endpoint.headers == []
        assert (offloader.withheld, offloader.spooled) == (1, 0)  # and nothing is kept, either
        assert "no room for a copy" in said[0]


def test_a_redacted_frame_is_sent_without_what_is_private() -> None:
    with serving(finds(), DETECTOR) as endpoint:
        _, offloader, said = asked(endpoint, seeing(private((20, 10, 120, 80))), redact=True)
        assert (said, offloader.withheld) == ([], 0)
        found = decoded(endpoint.pictures[0])
        assert np.abs(found[32:64, 48:96].astype(int) - 128).max() <= 3  # beside an edge JPEG rings


def test_a_picture_without_anything_private_is_not_copied() -> None:
    image = picture()
    assert redacted(image, private()) is image
    with pytest.raises(RedactionError):
        redacted(image, LOCAL)


# tensors


def served(inputs: list[tuple[str, str, list[int]]], outputs: list[tuple[str, str, list[int]]]) -> Served:
    def specs(tensors: list[tuple[str, str, list[int]]]) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in tensors]

    return read_served("http://x", json.dumps({"inputs": specs(inputs), "outputs": specs(outputs)}).encode(), None)


OURS = [("labels", "BYTES", [-1, 5]), ("scores", "FP32", [-1, 5])]
LOGITS = [("out", "FP32", [-1, 10])]
TENSOR = TensorForm(InputGeometry(width=32, height=24), TensorInput(name="x"), [f"class {i}" for i in range(10)])
FLOATS = TensorForm(
    InputGeometry(width=32, height=24, color="bgr", resize="stretch"),
    TensorInput(name="x", dtype="float32", layout="nchw", mean=(1.0, 2.0, 3.0), scale=(0.5, 0.25, 0.125)),
    [f"class {i}" for i in range(10)],
)


@pytest.mark.parametrize(
    ("shape", "datatype", "sent_shape"),
    [
        ([-1, 24, 32, 3], "UINT8", (1, 24, 32, 3)),
        ([1, 3, 24, 32], "UINT8", (1, 3, 24, 32)),
        ([1, 3, 48, 64], "FP32", (1, 3, 48, 64)),
        ([-1, -1, -1, 3], "FP32", (1, 24, 32, 3)),
        ([-1, 3, -1, -1], "UINT8", (1, 3, 24, 32)),
    ],
)
def test_a_tensor_is_as_the_metadata_says(shape: list[int], datatype: str, sent_shape: tuple[int, ...]) -> None:
    there = served([("pixels", datatype, shape)], LOGITS)
    one = event(frame(plain(90, 64, 48)))
    TENSOR.check(there, one.result)
    question = TENSOR.question(one, one.frame.image, LADDER[0], there)
    assert (question.tensor.name, question.tensor.datatype, question.tensor.shape) == ("pixels", datatype, sent_shape)
    assert set(np.unique(question.tensor.data)) == {90}
    assert question.outputs == ["out"]


def test_floats_are_normalized_as_the_local_file_s() -> None:
    there = served([("pixels", "FP32", [1, 3, 24, 32])], LOGITS)
    one = event(frame(plain(90, 64, 48)))
    tensor = FLOATS.question(one, one.frame.image, LADDER[0], there).tensor
    assert isinstance(tensor.data, np.ndarray)
    assert tensor.data[0, :, 0, 0].tolist() == [44.5, 22.0, 10.875]


@pytest.mark.parametrize("outputs", [LOGITS, [("p", "FP32", [1, 10])], [("a", "FP32", [1, 7]), ("b", "FP32", [10])], OURS])
def test_outputs_that_are_understood(outputs: list[tuple[str, str, list[int]]]) -> None:
    TENSOR.check(served([("x", "UINT8", [1, 24, 32, 3])], outputs), event().result)


@pytest.mark.parametrize(
    ("inputs", "outputs", "part"),
    [
        ([("x", "FP16", [1, 24, 32, 3])], LOGITS, "takes no single UINT8 or FP32 tensor"),
        ([("x", "FP32", [1, 24, 32, 4])], LOGITS, "takes no single"),
        ([("x", "FP32", [8, 24, 32, 3])], LOGITS, "takes no single"),
        ([("x", "FP32", [1, 1000])], LOGITS, "takes no single"),
        ([("x", "FP32", [1, 24, 32, 3]), ("y", "INT64", [1])], LOGITS, "takes no single"),
        ([], LOGITS, "takes no single"),
        (
            [("x", "FP32", [1, 24, 32, 3])],
            [("out", "FP32", [-1, 9])],
            "gives neither 'labels' and 'scores' nor one FP32 [1, 10]",
        ),
        ([("x", "FP32", [1, 24, 32, 3])], [("out", "INT64", [-1, 10])], "gives neither"),
        ([("x", "FP32", [1, 24, 32, 3])], [*LOGITS, ("more", "FP32", [1, 10])], "gives neither"),
    ],
)
def test_models_that_cannot_be_asked(inputs: Any, outputs: Any, part: str) -> None:
    with pytest.raises(OffloadError) as error:
        TENSOR.check(served(inputs, outputs), event().result)
    assert part in str(error.value)


def test_a_detector_asks_a_detector() -> None:
    classifier = served([("x", "UINT8", [1, 24, 32, 3])], LOGITS)
    with pytest.raises(OffloadError, match="names no 'boxes'"):
        TENSOR.check(classifier, LOCAL)


TENSOR_METADATA: Reply = (
    200,
    json.dumps(
        {
            "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 24, 32, 3]}],
            "outputs": [{"name": "out", "datatype": "FP32", "shape": [-1, 10]}],
        }
    ).encode(),
    {},
)


@pytest.mark.parametrize("probabilities", [True, False])
def test_logits_and_probabilities_become_local_labels(probabilities: bool) -> None:
    logits = np.linspace(-1, 3, 10, dtype=np.float32)
    values = np.exp(logits) / np.exp(logits).sum() if probabilities else logits
    reply = 200, *encode_response("m", [NamedTensor.of("out", values.astype(np.float32).reshape(1, 10))])
    with serving(lambda *_: reply, TENSOR_METADATA) as endpoint:
        answers, _, said = asked(endpoint, event(frame(), action="offload"), form=TENSOR)
        assert said == []
        result = answers[0].result
        assert isinstance(result, Classes)
        assert result.labels == ("class 9", "class 8", "class 7", "class 6", "class 5")
        assert result.class_ids.tolist() == [9, 8, 7, 6, 5]
        np.testing.assert_allclose(result.scores, (np.exp(logits) / np.exp(logits).sum())[:4:-1], rtol=1e-5)


def test_another_number_of_scores_makes_no_sense() -> None:
    reply = 200, *encode_response("m", [NamedTensor.of("out", np.zeros((1, 9), np.float32))])
    with serving(lambda *_: reply, TENSOR_METADATA) as endpoint:
        answers, offloader, _ = asked(endpoint, event(frame(), action="offload"), form=TENSOR)
        assert (answers, offloader.failed) == ([], 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_scores_that_are_not_finite_make_no_sense(value: float) -> None:
    values = np.array([[value, *[0.5] * 9]])
    one = event(frame(plain(90, 64, 48)))
    question = TENSOR.question(one, one.frame.image, LADDER[0], served([("x", "UINT8", [1, 24, 32, 3])], LOGITS))
    with pytest.raises(ValueError, match="not finite"):
        TENSOR.answer(one, question, InferResponse("m", "", "", {"out": NamedTensor.of("out", values)}))


def test_objects_in_a_tensor_come_back_in_pixels_of_the_frame() -> None:
    metadata = {
        "inputs": [{"name": "tensor", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("boxes", "labels", "scores")],
    }
    letterbox = InputGeometry(width=32, height=32, resize="letterbox")
    form = TensorForm(letterbox, TensorInput(name="x"), ["a"])
    boxes = NamedTensor.of("boxes", np.array([[[0, 8, 32, 24]]], np.float32))
    scores, labels = NamedTensor.of("scores", np.array([[0.9]], np.float32)), NamedTensor("labels", "BYTES", (1, 1), [b"a"])
    reply = 200, *encode_response("m", [boxes, scores, labels])
    with serving(lambda *_: reply, (200, json.dumps(metadata).encode(), {})) as endpoint:
        answers, _, said = asked(endpoint, seeing(LOCAL), form=form)
        assert said == []
        assert isinstance(answers[0].result, Detections)
        np.testing.assert_allclose(answers[0].result.boxes_xyxy, [[0, 0, 200, 100]], atol=1e-3)
