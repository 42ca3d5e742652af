"""The values that flow through the loop, one frozen dataclass a hop.

Frame → Tensor → Outputs → Classes, Detections or Mask → Decision → Event; beside them, a Notice of what befell the loop
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

UInt8: TypeAlias = npt.NDArray[np.uint8]
Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int16: TypeAlias = npt.NDArray[np.int16]
Int64: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from a source: `image` is uint8 BGR [height, width, 3], `captured_s` is on the monotonic clock.

    Nobody writes into `image`. `capture_ms` is how long reading and decoding took. `name` is the file it came from,
    when it came from one; `media_s` is its place in a recording, in seconds.
    """

    image: UInt8
    sequence: int
    captured_s: float
    source: str
    capture_ms: float = 0.0
    name: str | None = None
    media_s: float | None = None

    def __repr__(self) -> str:
        """Without the picture: its type and shape."""
        return (
            f"Frame(image={_told(self.image)}, sequence={self.sequence}, captured_s={self.captured_s!r}, "
            f"source={self.source!r}, capture_ms={self.capture_ms!r}, name={self.name!r}, media_s={self.media_s!r})"
        )

    @property
    def scene_s(self) -> float:
        """The time in the scene: a recording's own, which runs faster or slower than ours; else that of the capture."""
        return self.captured_s if self.media_s is None else self.media_s

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The affine map from original to model pixels, per axis: model = original * scale + offset."""

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]
    original_wh: tuple[int, int]

    def to_original(self, boxes_xyxy: Float32) -> Float32:
        """Boxes [n, 4] in model pixels, mapped back to original pixels and clipped to the picture."""
        return self.points_to_original(boxes_xyxy.reshape(-1, 2, 2)).reshape(-1, 4)

    def points_to_original(self, points_xy: Float32) -> Float32:
        """The same of points [..., 2]."""
        scale, offset, limit = (np.array(pair, np.float32) for pair in (self.scale_xy, self.offset_xy, self.original_wh))
        original: Float32 = np.clip((points_xy - offset) / scale, 0, limit).astype(np.float32)
        return original


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """What an engine is fed, uint8 [1, height, width, 3] in the card's colour order, and the geometry that undoes it."""

    data: UInt8
    geometry: Geometry

    def __repr__(self) -> str:
        """Without the values: their type and shape."""
        return f"Tensor(data={_told(self.data)}, geometry={self.geometry!r})"


def _told(array: UInt8) -> str:
    return f"{array.dtype} {list(array.shape)}"


Outputs: TypeAlias = Mapping[str, Float32]
"""An engine's answer: output name → float32 array, owned by whoever receives it."""


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The k most probable classes, best first: `class_ids` int64 [k], `scores` calibrated probability float32 [k]."""

    class_ids: Int64
    scores: Float32
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.class_ids) == len(self.scores) == len(self.labels):
            raise ValueError(
                f"expected as many ids, scores and labels, got {len(self.class_ids)}, {len(self.scores)}, {len(self.labels)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def confidence(self) -> float:
        """The best score in [0, 1]; 0 when there is no class."""
        return float(self.scores[0]) if len(self.scores) else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The n objects found, best first as a task gives them.

    `boxes_xyxy` is float32 [n, 4], left, top, right, bottom in pixels of the original picture, whose left edge is 0 and
    whose right edge is its width; `scores` calibrated probability float32 [n]; `class_ids` int64 [n]; `labels` n names;
    `tracks` int64 [n], the identity that a tracker gave each object, or 0 for one that it does not follow (yet);
    `keypoints` float32 [n, k, 3], x and y like the boxes' and a score in [0, 1], where the model gives any.
    `private_xyxy` float32 [m, 4] are the parts of the picture that may not leave the device, whichever objects are
    chosen; None: nobody looked for them.
    """

    boxes_xyxy: Float32
    scores: Float32
    class_ids: Int64
    labels: tuple[str, ...]
    tracks: Int64 | None = None
    keypoints: Float32 | None = None
    private_xyxy: Float32 | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        for name, expected, actual in (
            ("boxes_xyxy", (count, 4), self.boxes_xyxy.shape),
            ("scores", (count,), self.scores.shape),
            ("class_ids", (count,), self.class_ids.shape),
        ):
            if actual != expected:
                raise ValueError(f"{name}: expected shape {expected} for {count} labels, got {actual}")
        for name, kind, array in (
            ("boxes_xyxy", np.float32, self.boxes_xyxy),
            ("scores", np.float32, self.scores),
            ("class_ids", np.int64, self.class_ids),
        ):
            if array.dtype != kind:
                raise ValueError(f"{name}: expected {np.dtype(kind)}, got {array.dtype}")
        if self.tracks is not None and (self.tracks.shape != (count,) or self.tracks.dtype != np.int64):
            raise ValueError(f"tracks: expected int64 {(count,)}, got {self.tracks.dtype} {self.tracks.shape}")
        points = self.keypoints
        if points is not None and (points.ndim != 3 or points.shape[::2] != (count, 3) or points.dtype != np.float32):
            raise ValueError(f"keypoints: expected float32 ({count}, k, 3), got {points.dtype} {points.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Bools | Int64 | slice) -> Detections:
        """Those that a mask [n], an array of indices or a slice chooses, in its order."""
        kept = np.arange(len(self))[chosen]
        if kept.ndim != 1:
            raise IndexError(f"expected a mask, an array of indices or a slice, got {chosen!r:.80}")
        labels = tuple(self.labels[i] for i in kept.tolist())
        tracks = None if self.tracks is None else self.tracks[kept]
        keypoints = None if self.keypoints is None else self.keypoints[kept]
        scores, class_ids = self.scores[kept], self.class_ids[kept]
        return Detections(self.boxes_xyxy[kept], scores, class_ids, labels, tracks, keypoints, self.private_xyxy)

    def moved(self, by_xy: tuple[float, float]) -> Detections:
        """The same objects in a picture whose origin lies so many pixels further left and up."""
        by = np.array(by_xy * 2, np.float32)
        keypoints = None if self.keypoints is None else self.keypoints + np.array((*by_xy, 0), np.float32)
        private = None if self.private_xyxy is None else self.private_xyxy + by
        return replace(self, boxes_xyxy=self.boxes_xyxy + by, keypoints=keypoints, private_xyxy=private)

    @property
    def hidden(self) -> Bools:
        """Which objects [n] lie within what may not be shown, so that nobody can be asked about them."""
        if self.private_xyxy is None:
            return np.zeros(len(self), np.bool_)
        boxes, private = self.boxes_xyxy[:, None], self.private_xyxy[None]
        inside = (private[..., :2] <= boxes[..., :2] + 0.5) & (boxes[..., 2:] <= private[..., 2:] + 0.5)
        covered: Bools = np.logical_or.reduce(np.logical_and.reduce(inside, axis=2), axis=1)
        return covered

    @property
    def confidence(self) -> float:
        """The score of the least certain object in [0, 1]; 1 when there is none (docs/decisions/0007)."""
        return float(self.scores.min()) if len(self.scores) else 1.0


NOTHING = -1
"""The class id of a mask's cell of which no class is reported."""


@dataclass(frozen=True, slots=True)
class Segment:
    """All cells of one class: their `share` of the mask, mean `score`, and the box around them in original pixels."""

    class_id: int
    label: str
    share: float
    score: float
    box_xyxy: Box


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The class of each cell of a grid [h, w] that lies over `area_xyxy` of the original picture, in its pixels.

    `class_ids` int16 [h, w] are indices of `labels`, all that the model knows, or NOTHING for background and what was
    filtered out; `scores` float32 [h, w] are the calibrated probability of the class that the model saw there, whatever
    became of it.
    """

    class_ids: Int16
    scores: Float32
    labels: tuple[str, ...]
    area_xyxy: Box

    def __post_init__(self) -> None:
        if self.class_ids.ndim != 2 or not self.class_ids.size or self.class_ids.dtype != np.int16:
            raise ValueError(f"class_ids: expected int16 (h, w), got {self.class_ids.dtype} {self.class_ids.shape}")
        if self.scores.shape != self.class_ids.shape or self.scores.dtype != np.float32:
            expected = f"float32 {self.class_ids.shape}"
            raise ValueError(f"scores: expected {expected}, got {self.scores.dtype} {self.scores.shape}")
        low, high = int(self.class_ids.min()), int(self.class_ids.max())
        if low < NOTHING or high >= len(self.labels):
            raise ValueError(f"class_ids: expected {NOTHING} to {len(self.labels) - 1}, got {low} to {high}")

    @property
    def confidence(self) -> float:
        """The mean score of all cells in [0, 1], of background and of what was filtered out, too."""
        return float(self.scores.mean(dtype=np.float64))

    def segments(self) -> tuple[Segment, ...]:
        """The classes that are there, the largest first."""
        seen = self.class_ids != NOTHING
        ids = self.class_ids[seen]
        counts = np.bincount(ids, minlength=len(self.labels))
        sums = np.bincount(ids, weights=self.scores[seen], minlength=len(self.labels))
        largest = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
        size = self.class_ids.size
        return tuple(
            Segment(i, self.labels[i], float(counts[i]) / size, float(sums[i] / counts[i]), self._box(self.class_ids == i))
            for i in largest
        )

    def only(self, kept: Bools) -> Mask:
        """The same mask with NOTHING in the cells that `kept` [h, w] does not have."""
        return replace(self, class_ids=np.where(kept, self.class_ids, np.int16(NOTHING)))

    def moved(self, by_xy: tuple[float, float]) -> Mask:
        """The same mask in a picture whose origin lies so many pixels further left and up."""
        left, top, right, bottom = self.area_xyxy
        return replace(self, area_xyxy=(left + by_xy[0], top + by_xy[1], right + by_xy[0], bottom + by_xy[1]))

    def _box(self, cells: Bools) -> Box:
        """Around those cells, in original pixels."""
        columns, rows = np.flatnonzero(cells.any(axis=0)), np.flatnonzero(cells.any(axis=1))
        left, top, right, bottom = self.area_xyxy
        width, height = (right - left) / cells.shape[1], (bottom - top) / cells.shape[0]
        return (
            left + width * int(columns[0]),
            top + height * int(rows[0]),
            left + width * (int(columns[-1]) + 1),
            top + height * (int(rows[-1]) + 1),
        )


Result: TypeAlias = Classes | Detections | Mask
Action: TypeAlias = Literal["accept", "offload", "skip"]
ServedBy: TypeAlias = Literal["local", "cloud"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a result and why; `confidence` in [0, 1] is what the decision looked at.

    `about` are the places, in the result, of the objects that it is about; none: the frame as a whole.
    """

    action: Action
    reason: str
    confidence: float
    about: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds that each stage took for one frame."""

    capture: float = 0.0
    prepare: float = 0.0
    infer: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a tracked object in this frame: it entered, it left, or its label changed; `track` is its identity."""

    kind: Literal["enter", "leave", "change"]
    track: int
    label: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the cloud has answered about a tracked object: its best label and score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A frame's identity, its result, the decision, who served it and how long each stage took.

    `emitted_s` is on the monotonic clock like `frame.captured_s`, so `age_ms` is the end-to-end latency; `captured_at_s`
    is the capture in seconds since 1970, by the wall clock at the first event of the frame. `revises` marks a late
    answer from the cloud to a frame that already has an event. A `decision` to skip marks a result that was carried
    over from an earlier frame because the scene was still. `changes` are those of the tracked objects; `opinions` are what
    the cloud has answered, for earlier frames, about some of them, by track.
    """

    frame: Frame
    result: Result
    decision: Decision
    model: str
    variant: str
    emitted_s: float
    captured_at_s: float
    served_by: ServedBy = "local"
    timings: Timings = field(default_factory=Timings)
    revises: bool = False
    changes: tuple[Change, ...] = ()
    opinions: Mapping[int, Opinion] = field(default_factory=dict)

    @property
    def age_ms(self) -> float:
        """Milliseconds from capture to this event."""
        return (self.emitted_s - self.frame.captured_s) * 1e3


NoticeKind: TypeAlias = Literal[
    "source-open",
    "source-stalled",
    "source-lost",
    "source-ended",
    "source-done",
    "engine-failed",
    "engine-reopened",
    "variant-changed",
    "frame-failed",
    "guarantee-withdrawn",
    "endpoint-lost",
    "endpoint-back",
    "governor",
    "control",
]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to the loop rather than to a frame: a camera lost or back, an engine reopened.

    `about` is the source's or the variant's name, the endpoint's URL, the limit that the governor holds, or who turned
    a control; `at_s` is in seconds since 1970, `text` one line for people.
    """

    kind: NoticeKind
    about: str
    text: str
    at_s: float
