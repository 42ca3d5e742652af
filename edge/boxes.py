"""Boxes: areas, overlaps and non-maximum suppression, as pure functions of arrays."""

from __future__ import annotations

import numpy as np

from edge.types import Bools, Float32, Int64

BLOCK = 256
"""Boxes that are compared with each other at a time: memory stays bounded however many candidates there are."""


def box_areas(boxes_xyxy: Float32) -> Float32:
    """The areas [n] of boxes [n, 4]; a box whose corners are swapped has none."""
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    areas: Float32 = sides[:, 0] * sides[:, 1]
    return areas


def box_iou(a_xyxy: Float32, b_xyxy: Float32) -> Float32:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4]; 0 where neither has an area (Everingham et al., 2010)."""
    a = np.ascontiguousarray(a_xyxy.T)[:, :, None]
    b = np.ascontiguousarray(b_xyxy.T)[:, None, :]
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    intersection = np.maximum(width, 0, out=width) * np.maximum(height, 0, out=height)
    union = box_areas(a_xyxy)[:, None] + box_areas(b_xyxy) - intersection
    iou: Float32 = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return iou


def xywh_to_xyxy(boxes_xywh: Float32) -> Float32:
    """Centre, width and height [n, 4] as corners [n, 4]."""
    half = boxes_xywh[:, 2:] / 2
    corners: Float32 = np.concatenate((boxes_xywh[:, :2] - half, boxes_xywh[:, :2] + half), axis=1)
    return corners


def nms(boxes_xyxy: Float32, scores: Float32, class_ids: Int64, iou_threshold: float, limit: int | None = None) -> Int64:
    """Indices of the boxes that greedy non-maximum suppression keeps, best first, `limit` at most.

    A box goes when it overlaps a better one of its class that is kept by more than `iou_threshold`; equal scores keep
    the order they came in. Boxes [n, 4], scores [n], class_ids [n].
    """
    order = np.argsort(-scores, kind="stable").astype(np.int64)
    limit = len(order) if limit is None else limit
    kept = order[:0]
    for start in range(0, len(order), BLOCK):
        if len(kept) >= limit:
            break
        block = order[start : start + BLOCK]
        if len(kept):
            block = block[~_beats(kept, block, boxes_xyxy, class_ids, iou_threshold).any(axis=0)]
        beats = np.triu(_beats(block, block, boxes_xyxy, class_ids, iou_threshold), 1)
        kept = np.concatenate((kept, block[_survivors(beats)]))
    return kept[:limit]


def _beats(better: Int64, worse: Int64, boxes_xyxy: Float32, class_ids: Int64, iou_threshold: float) -> Bools:
    """Whether each of `better` [n] would suppress each of `worse` [m]: [n, m]."""
    overlap: Bools = box_iou(boxes_xyxy[better], boxes_xyxy[worse]) > iou_threshold
    overlap &= class_ids[better][:, None] == class_ids[worse]
    return overlap


def _survivors(beats: Bools) -> Bools:
    """Who is beaten by no survivor, [n], where `beats` [n, n] is above the diagonal only.

    Repeating the question of all at once settles at least one more row each time, usually all in two or three (Zheng et
    al., 2020, Cluster-NMS), and ends at what asking row by row gives.
    """
    alive = np.ones(len(beats), np.bool_)
    while True:
        now: Bools = np.logical_not((beats & alive[:, None]).any(axis=0))
        if np.array_equal(now, alive):
            return now
        alive = now
