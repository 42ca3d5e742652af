"""Tracking: which detection of this frame is which object of the frames before, and what entered, left or changed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from edge.boxes import box_iou, xywh_to_xyxy
from edge.types import Bools, Change, Detections, Float32, Int64

MIN_IOU = 0.2
"""Below this overlap with its predicted box a track is not matched by a high-score detection of its class."""
MIN_IOU_LOW = 0.4
"""The same for a low-score one, which is as likely to be of nothing."""
MIN_IOU_OTHER = 0.7
"""The same for a detection of another class: it must be in the very same place to be the same object."""
VOTES = 9
"""The newest labels of a track that are counted."""
TAKEOVER = 6
"""As many of them must agree on another label before a track's label changes; fewer than half then disagree with it."""
GAP = 5.0
"""Without a frame for this many times `lost_s` it is another scene, and every track leaves."""

# ByteTrack's noise in parts of the object's size a frame, at the 30 frames a second it was tuned for, here a second
OBSERVED = (1 / 20) ** 2
WALK = 30 * (1 / 20) ** 2
ACCELERATION = 30 * (30 / 160) ** 2
FIRST_POSITION = (2 / 20) ** 2
FIRST_SPEED = (10 * 30 / 160) ** 2


@dataclass(slots=True, eq=False)
class _Tracks:
    """n tracks as a struct of arrays, the first n rows of which are alive; ids are 0 until confirmed.

    `at` and `speed` are centre, width and height [n, 4] and their changes a second; `p_at`, `p_both` and `p_speed` the
    covariance of the two, coordinate by coordinate; `votes` the newest class ids [n, VOTES], -1 where there are fewer.
    """

    ids: Int64
    class_ids: Int64
    hits: Int64
    matched_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    votes: Int64
    at: Float32
    speed: Float32
    p_at: Float32
    p_both: Float32
    p_speed: Float32

    def __len__(self) -> int:
        return len(self.ids)

    def keep(self, chosen: Bools) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[chosen])

    def append(self, more: _Tracks) -> None:
        for field in fields(self):
            setattr(self, field.name, np.concatenate((getattr(self, field.name), getattr(more, field.name))))

    def predict(self, elapsed_s: float) -> None:
        """Constant velocity with white noise of acceleration and position (Bar-Shalom et al., 2001, section 6.2)."""
        t = np.float32(elapsed_s)
        variance = np.square(self.at[:, [2, 3, 2, 3]])
        self.at += self.speed * t
        np.maximum(self.at[:, 2:], 1, out=self.at[:, 2:])  # a size in pixels
        self.p_at += t * (2 * self.p_both + t * self.p_speed) + variance * (WALK * t + ACCELERATION * t**3 / 3)
        self.p_both += t * self.p_speed + variance * (ACCELERATION * t**2 / 2)
        self.p_speed += variance * (ACCELERATION * t)

    def correct(self, rows: Int64, observed: Float32) -> None:
        """The Kalman update of some tracks with the boxes [m, 4] that were seen."""
        p_at, p_both = self.p_at[rows], self.p_both[rows]
        surprise = observed - self.at[rows]
        total = p_at + np.square(observed[:, [2, 3, 2, 3]]) * np.float32(OBSERVED)
        gain, gain_speed = p_at / total, p_both / total
        self.at[rows] += gain * surprise
        self.speed[rows] += gain_speed * surprise
        self.p_at[rows] = p_at - gain * p_at
        self.p_both[rows] = p_both - gain * p_both
        self.p_speed[rows] -= gain_speed * p_both


def _new(observed: Float32, class_ids: Int64, now_s: float) -> _Tracks:
    """Tracks of boxes seen for the first time; none for no boxes."""
    count = len(observed)
    variance = np.square(observed[:, [2, 3, 2, 3]])
    votes = np.full((count, VOTES), -1, np.int64)
    votes[:, 0] = class_ids
    return _Tracks(
        ids=np.zeros(count, np.int64),
        class_ids=class_ids.copy(),
        hits=np.ones(count, np.int64),
        matched_s=np.full(count, now_s),
        votes=votes,
        at=observed.copy(),
        speed=np.zeros((count, 4), np.float32),
        p_at=variance * np.float32(FIRST_POSITION),
        p_both=np.zeros((count, 4), np.float32),
        p_speed=variance * np.float32(FIRST_SPEED),
    )


class Tracker:
    """ByteTrack (Zhang et al., 2022) for the detections of one source, on the real time between its frames.

    Detections of at least `high` are matched with the tracks by overlap, then the others with the tracks that are left.
    A high one that remains starts a track, which enters after `confirm` hits in a row and leaves when nothing matched it
    for more than `lost_s` seconds, though not before a frame could have: frames may be further apart than that. The
    detector's own least score is the tracker's lower threshold.

    The motion filter is ByteTrack's Kalman filter with width and height for aspect and height, as in BoT-SORT (Aharon
    et al., 2022). Its matrices never mix the coordinates, so that eight dimensions are four filters of two, in closed
    form, and its noise is scaled to elapsed seconds.

    Pairs are matched greedily, best overlap first, where ByteTrack solves the assignment exactly: SciPy, which has that,
    is 100 MB on a board, and the two differ only where several boxes overlap several tracks: in 8 of 7,563 pairs on
    vtest.avi, none on bottle-detection.mp4, and 58 of 4,863 in the crowd of people.mp4 (62 identities against 60).
    """

    def __init__(self, *, high: float = 0.5, confirm: int = 2, lost_s: float = 1.0) -> None:
        self._high, self._confirm, self._lost_s = high, confirm, lost_s
        self._tracks = _new(np.empty((0, 4), np.float32), np.empty(0, np.int64), 0.0)
        self._now_s: float | None = None
        self._last_id = 0
        self._names: dict[int, str] = {}

    @property
    def created(self) -> int:
        """How many objects have been given an identity."""
        return self._last_id

    def update(self, found: Detections, now_s: float) -> tuple[Detections, tuple[Change, ...]]:
        """The detections of a frame captured at `now_s` in their order, with `tracks`, and what became of the objects."""
        self._names.update(zip(found.class_ids.tolist(), found.labels, strict=True))
        changes = self._advance(now_s)
        tracks, observed = self._tracks, _centred(found.boxes_xyxy)
        high = found.scores >= self._high
        rows, columns = self._match(found, high)
        tracks.correct(rows, observed[columns])
        missed = np.ones(len(tracks), np.bool_)
        missed[rows] = False
        tracks.speed[missed, 2:] = 0  # an object out of sight would grow or shrink without end
        tracks.matched_s[rows] = now_s
        tracks.hits[rows] += 1
        tracks.votes[rows, 1:] = tracks.votes[rows, :-1]
        tracks.votes[rows, 0] = found.class_ids[columns]
        changes += self._relabel(rows)
        unmatched = high.copy()
        unmatched[columns] = False
        born = np.flatnonzero(unmatched)
        places = np.concatenate((rows, len(tracks) + np.arange(len(born))))
        seen = np.concatenate((columns, born))
        tracks.append(_new(observed[born], found.class_ids[born], now_s))
        changes += self._enter()
        ids = np.zeros(len(found), np.int64)
        ids[seen] = tracks.ids[places]
        missed = np.concatenate((missed, np.zeros(len(born), np.bool_)))
        gone = missed & ((tracks.ids == 0) | (now_s - tracks.matched_s > self._lost_s))
        changes += self._leave(gone)
        return replace(found, tracks=ids), tuple(changes)

    def _advance(self, now_s: float) -> list[Change]:
        """Move the tracks to where they should be by now, without trusting a speed for longer than `lost_s`."""
        elapsed_s = 0.0 if self._now_s is None else max(0.0, now_s - self._now_s)
        self._now_s = now_s
        if elapsed_s > GAP * self._lost_s:
            return self._leave(np.ones(len(self._tracks), np.bool_))
        if elapsed_s and len(self._tracks):
            self._tracks.predict(min(elapsed_s, self._lost_s))
        return []

    def _match(self, found: Detections, high: Bools) -> tuple[Int64, Int64]:
        """Rows of the tracks and of the detections that belong together.

        One greedy pass over all pairs in order of rank is one after another of: high scores with confirmed tracks, high
        scores with tentative ones, low scores with confirmed ones; within each the track's own class goes first.
        """
        tracks = self._tracks
        if not len(tracks) or not len(found):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        iou = box_iou(xywh_to_xyxy(tracks.at), found.boxes_xyxy)
        same = (tracks.class_ids[:, None] == found.class_ids) | (tracks.votes[:, :1] == found.class_ids)
        least = np.where(high, np.where(same, MIN_IOU, MIN_IOU_OTHER), np.where(same, MIN_IOU_LOW, np.inf))
        tentative = tracks.ids == 0
        allowed = (iou >= least) & ~(tentative[:, None] & ~high)
        rows, columns = np.nonzero(allowed)
        stage = np.where(high[columns], np.where(tentative[rows], 1, 0), 2)
        rank = 4 * stage + 2 * ~same[rows, columns] - iou[rows, columns]
        pairs: list[tuple[int, int]] = []
        taken_rows: set[int] = set()
        taken_columns: set[int] = set()
        order = np.argsort(rank, kind="stable")
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            if row not in taken_rows and column not in taken_columns:
                taken_rows.add(row)
                taken_columns.add(column)
                pairs.append((row, column))
        matched = np.array(pairs, np.int64).reshape(-1, 2)
        return matched[:, 0], matched[:, 1]

    def _relabel(self, rows: Int64) -> list[Change]:
        """Let a clear majority of the newest labels overrule a track's label; a tentative track has the newest of all."""
        tracks = self._tracks
        doubtful = rows[(tracks.votes[rows] != tracks.class_ids[rows, None]).any(axis=1)]
        changes: list[Change] = []
        for row in doubtful.tolist():
            votes = tracks.votes[row]
            if tracks.ids[row] == 0:
                tracks.class_ids[row] = votes[0]
                continue
            classes, counts = np.unique(votes[votes >= 0], return_counts=True)
            best = int(counts.argmax())
            if classes[best] != tracks.class_ids[row] and counts[best] >= TAKEOVER:
                tracks.class_ids[row] = classes[best]
                changes.append(Change("change", int(tracks.ids[row]), self._names[int(classes[best])]))
        return changes

    def _enter(self) -> list[Change]:
        """Give the tracks that have been hit often enough an identity."""
        tracks = self._tracks
        changes: list[Change] = []
        for row in np.flatnonzero((tracks.ids == 0) & (tracks.hits >= self._confirm)).tolist():
            self._last_id += 1
            tracks.ids[row] = self._last_id
            changes.append(Change("enter", self._last_id, self._names[int(tracks.class_ids[row])]))
        return changes

    def _leave(self, gone: Bools) -> list[Change]:
        """Forget some tracks; those that had entered leave."""
        if not gone.any():
            return []
        tracks = self._tracks
        left = np.flatnonzero(gone & (tracks.ids > 0)).tolist()
        changes = [Change("leave", int(tracks.ids[row]), self._names[int(tracks.class_ids[row])]) for row in left]
        tracks.keep(~gone)
        return changes


def _centred(boxes_xyxy: Float32) -> Float32:
    """Corners [n, 4] as centre, width and height [n, 4], no side of which is less than a pixel."""
    sizes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    centred: Float32 = np.concatenate((boxes_xyxy[:, :2] + sizes / 2, np.maximum(sizes, 1)), axis=1)
    return centred
