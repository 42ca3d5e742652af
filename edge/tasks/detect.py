"""Detection and pose: a picture in, boxes with calibrated scores out, and the keypoints in them."""

from __future__ import annotations

import numpy as np

from edge.boxes import box_areas, nms
from edge.card import Card, DetectOptions, Variant
from edge.geometry import prepare
from edge.tasks.heads import HEADS, HeadSpec
from edge.types import Detections, Float32, Float64, Frame, Outputs, Tensor


def calibrated(scores: Float32, temperature: float | Float64) -> Float32:
    """sigmoid(logit(score) / temperature) of scores [n]: Guo et al.'s temperature for one class against none.

    The temperature is one, or each score's own [n].
    """
    if np.all(temperature == 1):
        return scores
    odds = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-12)
    odds = (odds / (1 - odds)) ** (1 / temperature)
    return (odds / (1 + odds)).astype(np.float32)


class Detect:
    """Any head of `HEADS`, then suppression of overlaps within a class; options that are not given are the card's."""

    def __init__(
        self,
        card: Card,
        variant: Variant,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> None:
        options = card.detect or DetectOptions()
        self._card, self._variant = card, variant
        self.score_threshold = options.score_threshold if score_threshold is None else score_threshold
        self._iou_threshold = options.iou_threshold if iou_threshold is None else iou_threshold
        self._max_detections = options.max_detections if max_detections is None else max_detections
        self._head = HEADS[card.head]
        self._spec = HeadSpec(
            size_wh=(card.input.width, card.input.height),
            classes=len(card.labels),
            strides=options.strides,
            class_offset=options.class_offset,
            cell_offset=options.cell_offset,
            keypoints=len(options.keypoints or ()),
        )
        self._labels = tuple(label.name for label in card.labels)
        own = (variant.class_temperatures.get(label.id, variant.temperature) for label in card.labels)
        self._temperatures = np.fromiter(own, np.float64, len(card.labels))
        # the calibration is monotone, so that the threshold of the class that has the least can be applied before it
        thresholds = calibrated(np.full(len(self._temperatures), self.score_threshold), 1 / self._temperatures)
        self._raw_threshold = float(thresholds.min(initial=1.0))

    def replaced(
        self, *, score_threshold: float | None = None, iou_threshold: float | None = None, max_detections: int | None = None
    ) -> Detect:
        """The same task with some options changed."""
        return Detect(
            self._card,
            self._variant,
            score_threshold=self.score_threshold if score_threshold is None else score_threshold,
            iou_threshold=self._iou_threshold if iou_threshold is None else iou_threshold,
            max_detections=self._max_detections if max_detections is None else max_detections,
        )

    def thorough(self, raw_score: float, max_detections: int) -> Detect:
        """The same task down to a score before calibration, so that what it finds does not depend on the temperature."""
        task = self.replaced(score_threshold=0.0, max_detections=max_detections)
        task._raw_threshold = raw_score
        return task

    def prepare(self, frame: Frame) -> Tensor:
        """Resize, pad and order the colours of a frame: uint8 [1, height, width, 3]."""
        return prepare(frame, self._card.input)

    def decode(self, outputs: Outputs, tensor: Tensor) -> Detections:
        """The objects in original pixels, best first. Raises EngineError for outputs that are not this head's."""
        found = self._head(outputs, self._spec, self._raw_threshold)
        kept = nms(found.boxes_xyxy, found.scores, found.class_ids, self._iou_threshold, self._max_detections)
        boxes = tensor.geometry.to_original(found.boxes_xyxy[kept])
        inside = box_areas(boxes) > 0  # a box in the padding is of nothing
        kept, boxes = kept[inside], boxes[inside]
        class_ids = found.class_ids[kept]
        scores = calibrated(found.scores[kept], self._temperatures[class_ids])
        if self._variant.class_temperatures:  # each class's order is what it was, all classes' together is not
            order = np.argsort(-scores, kind="stable")
            order = order[scores[order] >= self.score_threshold]
            kept, boxes, class_ids, scores = kept[order], boxes[order], class_ids[order], scores[order]
        labels = tuple(self._labels[i] for i in class_ids.tolist())
        if found.keypoints is None:
            return Detections(boxes, scores, class_ids, labels)
        points = found.keypoints[kept]
        points[..., :2] = tensor.geometry.points_to_original(points[..., :2])
        return Detections(boxes, scores, class_ids, labels, keypoints=points)
