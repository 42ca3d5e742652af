"""What is sent of an event, and what the answer to it means: the whole frame, the objects asked about, or a raw tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import numpy as np

from edge.answers import read_answer, wanted
from edge.boxes import box_iou
from edge.errors import OffloadError
from edge.events import event_record
from edge.offload.pictures import around, encode_part
from edge.offload.served import Served
from edge.offload.uplink import Rung
from edge.oip import InferResponse, NamedTensor
from edge.tracking import MIN_IOU
from edge.types import Detections, Event, Float32, Geometry, Int64, Result, UInt8

SAME_OBJECT_IOU = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is sent about an event: one input, the outputs to ask for, the map from the frame to the picture in the input,
    and the places, in the local result, of the objects that are asked about (none: all). `redacted` are the classes whose
    objects were greyed out in the picture, where something was.
    """

    tensor: NamedTensor
    outputs: Sequence[str]
    geometry: Geometry
    about: tuple[int, ...] = ()
    redacted: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Roughly what the input takes in a request's body."""
        return bytes_of(self.tensor)


def bytes_of(tensor: NamedTensor) -> int:
    """Roughly what a tensor takes in a request's body."""
    return sum(len(item) for item in tensor.data) if isinstance(tensor.data, list) else tensor.data.nbytes


class Form(Protocol):
    """One way to ask."""

    def check(self, served: Served, local: Result) -> None:
        """Raise OffloadError, without naming the endpoint, for a model that cannot be asked in this way."""

    def question(self, event: Event, image: UInt8, rung: Rung, served: Served | None) -> Question:
        """What to send of an event; `image` is what of its frame may be sent. `served` is None where it is not known yet."""

    def answer(self, event: Event, question: Question, response: InferResponse) -> Result:
        """The result in pixels of the frame. Raises KeyError, ValueError and TypeError for one that makes no sense."""


class FrameForm:
    """The whole frame, as JPEG; `redacted` are the classes that are greyed out in it before."""

    def __init__(self, redacted: Sequence[str] = ()) -> None:
        self._redacted = tuple(redacted)

    def check(self, served: Served, local: Result) -> None:
        """The model takes pictures and is of the kind that ours is."""
        if not served.takes_pictures or not served.gives("labels", "scores"):
            raise OffloadError(
                "takes no encoded 'image' or names no 'labels'; serve it with edge-cloud, or --offload-send tensor"
            )
        check_kind(served, local)

    def question(self, event: Event, image: UInt8, rung: Rung, served: Served | None) -> Question:
        """One JPEG."""
        return self._pictured(event, image, (), rung)

    def answer(self, event: Event, question: Question, response: InferResponse) -> Result:
        """The endpoint's result instead of ours, but for the objects that it was not shown."""
        result, local = read_answer(response, event.result, question.geometry), event.result
        if not isinstance(result, Detections) or not isinstance(local, Detections) or not local.hidden.any():
            return result
        return merged(local, np.flatnonzero(~local.hidden).tolist(), result)

    def _pictured(self, event: Event, image: UInt8, about: tuple[int, ...], rung: Rung) -> Question:
        jpeg, geometry = encode_part(image, around(event.result, about, event.frame.size_wh), rung)
        private = event.result.private_xyxy if isinstance(event.result, Detections) else None
        redacted = self._redacted if private is not None and len(private) else ()
        return Question(NamedTensor.of("image", [jpeg]), wanted(event.result), geometry, about, redacted)


class CropForm(FrameForm):
    """The part of the frame around the objects that the decision is about, as JPEG; the whole of it where it names none."""

    def question(self, event: Event, image: UInt8, rung: Rung, served: Served | None) -> Question:
        """One JPEG of the part."""
        about = event.decision.about if isinstance(event.result, Detections) else ()
        return self._pictured(event, image, about, rung)

    def answer(self, event: Event, question: Question, response: InferResponse) -> Result:
        """The local objects that were not asked about, and the endpoint's in place of the others."""
        if not question.about:
            return super().answer(event, question, response)
        result = read_answer(response, event.result, question.geometry)
        if not isinstance(result, Detections) or not isinstance(event.result, Detections):
            return result
        return merged(event.result, question.about, result)


def check_kind(served: Served, local: Result) -> None:
    """Raise OffloadError where one is a detector and the other is not."""
    if served.gives("boxes") != isinstance(local, Detections):
        there, here = ("a detector", "a classifier") if served.gives("boxes") else ("a classifier", "a detector")
        raise OffloadError(f"is {there}, the local one {here}; name another with --offload URL/v2/models/NAME")


def merged(local: Detections, about: Sequence[int], answer: Detections) -> Detections:
    """The local objects not in `about` and those of the answer, best first; the latter get the tracks of those asked about.

    An object of the answer is the local one that it overlaps best, if that is by half at least; is that one that was not
    asked about, the local object stands. Each track is given once, to the object that overlaps it best at all.
    """
    asked = np.zeros(len(local), np.bool_)
    asked[list(about)] = True
    kept = replace(local[~asked], keypoints=None)
    others = box_iou(answer.boxes_xyxy, kept.boxes_xyxy).max(axis=1, initial=0.0)
    overlaps = box_iou(answer.boxes_xyxy, local.boxes_xyxy[asked])
    news = (others < SAME_OBJECT_IOU) | (others < overlaps.max(axis=1, initial=0.0))
    answer, overlaps = answer[news], overlaps[news]
    tracks = None
    if local.tracks is not None:
        tracks = np.concatenate((local.tracks[~asked], _tracks_of(overlaps, local.tracks[asked])))
    both = Detections(
        np.concatenate((kept.boxes_xyxy, answer.boxes_xyxy)),
        np.concatenate((kept.scores, answer.scores)),
        np.concatenate((kept.class_ids, answer.class_ids)),
        kept.labels + answer.labels,
        tracks,
    )
    return both[np.argsort(-both.scores, kind="stable")]


def _tracks_of(overlaps: Float32, tracks: Int64) -> Int64:
    """For each row of overlaps [n, m] the track of the column it overlaps best, the best pairs first; else 0: too little."""
    given = np.zeros(len(overlaps), np.int64)
    left = overlaps.copy()
    while left.size and left.max() >= MIN_IOU:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        given[row] = tracks[column]
        left[row, :] = left[:, column] = 0
    return given


def with_tracks(answer: Result, local: Result) -> Result:
    """The answer with the tracks of the local objects that its own overlap best, where there are tracks and it has none."""
    if not isinstance(answer, Detections) or not isinstance(local, Detections):
        return answer
    if local.tracks is None or answer.tracks is not None:
        return answer
    return replace(answer, tracks=_tracks_of(box_iou(answer.boxes_xyxy, local.boxes_xyxy), local.tracks))


def parameters(event: Event, question: Question, key: str) -> Mapping[str, str]:
    """What a server that collects hard pictures wants to know besides: the local result, in pixels of what is sent, and
    which classes are greyed out in a picture where something is.
    """
    record = event_record(replace(event, result=_as_sent(event.result, question), opinions={}))
    local = msgspec.json.encode(record.result).decode()
    told = {"local": local, "source": record.source, "captured_at": record.captured_at, "key": key}
    return told | {"redacted": ",".join(question.redacted)} if question.redacted else told


def _as_sent(result: Result, question: Question) -> Result:
    if not isinstance(result, Detections):
        return result
    chosen = result[np.array(question.about, np.int64)] if question.about else result
    scale, offset = (np.array(pair * 2, np.float32) for pair in (question.geometry.scale_xy, question.geometry.offset_xy))
    points = chosen.keypoints
    if points is not None:
        points = np.concatenate((points[..., :2] * scale[:2] + offset[:2], points[..., 2:]), axis=2)
    return replace(chosen, boxes_xyxy=chosen.boxes_xyxy * scale + offset, keypoints=points)
