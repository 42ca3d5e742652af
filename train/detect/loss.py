"""What a detector's predictions are pulled towards: the quality of a cell's box as its score, and the box itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edge.tasks.heads import grid
from train.detect.assign import Targets, areas, assign

SCORE_WEIGHT, BOX_WEIGHT, DISTRIBUTION_WEIGHT = 1.0, 4.0, 0.25
"""Generalized Focal Loss's (Li et al., 2020), but boxes twice as much: on 160 raccoons for 8 epochs, AP was 0.34, not 0.31."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The centres [cells, 2] and strides [cells] of a detector's cells, in pixels of its input."""

    centres_xy: Tensor
    strides: Tensor

    @classmethod
    def of(cls, size_wh: tuple[int, int], strides: tuple[int, ...], device: torch.device) -> Grid:
        """The grids of these strides for an input of this size, in the order of the predictions."""
        cells, widths = (torch.tensor(values, device=device) for values in grid(size_wh, strides))
        return cls((cells + 0.5) * widths[:, None], widths)

    def boxes(self, distances: Tensor) -> Tensor:
        """Corners [n, cells, 4] from distances in strides to the left, top, right and bottom [n, cells, 4]."""
        reach = distances * self.strides[:, None]
        return torch.cat([self.centres_xy - reach[..., :2], self.centres_xy + reach[..., 2:]], -1)

    def distances(self, boxes_xyxy: Tensor) -> Tensor:
        """The inverse: how many strides away each side of a cell's box [n, cells, 4] is."""
        sides = torch.cat([self.centres_xy - boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - self.centres_xy], -1)
        return sides / self.strides[:, None]


def detection_loss(rows: Tensor, cells: Grid, classes: int, truth_xyxy: Tensor, class_ids: Tensor, ignored: Tensor) -> Tensor:
    """The loss [n] of each picture of a batch, per object where there are some.

    `rows` float32 [n, cells, classes + 4 bins] are class logits and distance distributions; the truth is padded to m
    boxes a picture, [n, m, 4], with class -1.
    """
    logits, distributions = rows[..., :classes], rows[..., classes:].reshape(*rows.shape[:2], 4, -1)
    bins = torch.arange(distributions.shape[-1], dtype=rows.dtype, device=rows.device)
    boxes = cells.boxes(distributions.softmax(-1) @ bins)
    finest = float(cells.strides.min())
    targets = assign(logits.sigmoid(), boxes, cells.centres_xy, finest, truth_xyxy, class_ids, ignored)
    overlap = 1 - generalized_iou(boxes, targets.boxes)
    distribution = _distribution_loss(distributions, cells.distances(targets.boxes))
    per_box = (BOX_WEIGHT * overlap + DISTRIBUTION_WEIGHT * distribution) * targets.weights
    return SCORE_WEIGHT * _score_loss(logits, targets).sum((1, 2)) + per_box.sum(1)


def _score_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Quality focal loss [n, cells, classes] (Li et al., 2020): cross entropy, weighted by the square of how wrong it is."""
    wrong = (targets.scores - logits.sigmoid()).abs()
    entropy = functional.binary_cross_entropy_with_logits(logits, targets.scores, reduction="none")
    return wrong.square() * entropy * targets.counted


def _distribution_loss(distributions: Tensor, distances: Tensor) -> Tensor:
    """Cross entropy [n, cells] with the two whole strides around each distance (Li et al., 2020), the four sides' mean."""
    last = distributions.shape[-1] - 1
    distances = distances.clamp(0, last - 1e-3)
    left = distances.floor().long()
    share = distances - left
    logs = distributions.log_softmax(-1)
    nearer = logs.gather(-1, left[..., None])[..., 0] * (1 - share)
    farther = logs.gather(-1, left[..., None] + 1)[..., 0] * share
    return -(nearer + farther).mean(-1)


def generalized_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Generalized intersection over union [...] of boxes [..., 4], pair by pair (Rezatofighi et al., 2019)."""
    sides = (torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])).clamp_min(0)
    intersection = sides[..., 0] * sides[..., 1]
    union = areas(a_xyxy) + areas(b_xyxy) - intersection
    hull = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    enclosing = (hull[..., 0] * hull[..., 1]).clamp_min(1e-9)
    return intersection / union.clamp_min(1e-9) - (enclosing - union) / enclosing
