"""Which cells of a detector's grids learn which object: those that already find it best (Feng et al., 2021, TOOD)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 13
"""So many cells at most learn an object."""
SCORE_POWER, IOU_POWER = 1.0, 6.0
"""How much the alignment of a cell with an object counts its score and its overlap (the paper's alpha and beta)."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What each cell should say: class probabilities `scores` [n, cells, classes], and the `boxes` [n, cells, 4] of its object.

    `weights` [n, cells] is how much a cell's box counts, 0 where it has none; `counted` [n, cells, classes] is false
    where nobody knows what is right.
    """

    scores: Tensor
    boxes: Tensor
    weights: Tensor
    counted: Tensor


@torch.no_grad()
def assign(
    probabilities: Tensor,
    boxes_xyxy: Tensor,
    centres_xy: Tensor,
    finest: float,
    truth_xyxy: Tensor,
    class_ids: Tensor,
    ignored: Tensor,
) -> Targets:
    """Targets of predictions: `probabilities` [n, cells, classes] and `boxes_xyxy` [n, cells, 4] of cells at `centres_xy`.

    The centres are [cells, 2]. The truth is m boxes a picture [n, m, 4], their `class_ids` [n, m], -1 where there is none,
    and which are `ignored`. A cell is a candidate when its centre lies in the box, which is taken to be `finest` pixels
    wide and high at least. The best cell of an object should say its overlap with it, the others less by their alignment.
    """
    classes = probabilities.shape[2]
    objects = (class_ids >= 0) & ~ignored
    inside = _inside(centres_xy, truth_xyxy, finest)
    iou = pairwise_iou(truth_xyxy, boxes_xyxy)
    known = class_ids.clamp_min(0)
    score = probabilities.transpose(1, 2).gather(1, known[:, :, None].expand(-1, -1, probabilities.shape[1]))
    alignment = (score**SCORE_POWER * iou**IOU_POWER + 1e-12) * (inside & objects[:, :, None])
    best = alignment.topk(min(CANDIDATES, alignment.shape[2]), dim=2)
    chosen = torch.zeros_like(alignment, dtype=torch.bool).scatter_(2, best.indices, best.values > 0)
    # a cell that two objects want learns the one that it overlaps more
    owner = torch.where(chosen, iou, -1.0).argmax(1)
    chosen &= torch.arange(chosen.shape[1], device=owner.device)[None, :, None] == owner[:, None, :]
    alignment, overlap = alignment * chosen, iou * chosen
    share = alignment / alignment.amax(2, keepdim=True).clamp_min(1e-30) * overlap.amax(2, keepdim=True)
    weights = share.sum(1)
    classes_of_cells = known.gather(1, owner)
    scores = torch.zeros_like(probabilities).scatter_(2, classes_of_cells[:, :, None], weights[:, :, None])
    unknown = inside & ignored[:, :, None] & (class_ids >= 0)[:, :, None]
    one_hot = torch.nn.functional.one_hot(known, classes).to(probabilities.dtype)
    counted = ((unknown.to(probabilities.dtype).transpose(1, 2) @ one_hot) == 0) | (scores > 0)
    return Targets(scores, truth_xyxy.gather(1, owner[:, :, None].expand(-1, -1, 4)), weights, counted)


def _inside(centres_xy: Tensor, boxes_xyxy: Tensor, least: float) -> Tensor:
    """Whether each centre [cells, 2] lies in each box [n, m, 4], widened to `least`: [n, m, cells]."""
    middle = (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2
    half = ((boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]) / 2).clamp_min(least / 2)
    away = (centres_xy[None, None] - middle[:, :, None]).abs()
    return (away <= half[:, :, None]).all(3)


def pairwise_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection over union [n, m, k] of boxes [n, m, 4] and [n, k, 4] of the same picture."""
    a, b = a_xyxy[:, :, None], b_xyxy[:, None]
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    intersection = sides[..., 0] * sides[..., 1]
    return intersection / (areas(a) + areas(b) - intersection).clamp_min(1e-9)


def areas(boxes_xyxy: Tensor) -> Tensor:
    """The areas [...] of boxes [..., 4]; one whose corners are swapped has none."""
    sides = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp_min(0)
    return sides[..., 0] * sides[..., 1]
