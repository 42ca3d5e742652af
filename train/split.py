"""A validation part for a data set that has none: the same pictures always, and never one that is in train, too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from edge.datasets import Labelled, Sample
from edge.errors import DataError
from train.duplicates import Near, exact_groups, groups, keys_and_fingerprints

SHARE = 0.2
"""Of the pictures, so much is val where nobody says it."""
CAMERA = 10
"""Near copies from which a fixed camera is guessed where most pictures are some."""


def split(
    samples: Sequence[Labelled],
    share: float = SHARE,
    count: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Labelled], list[Labelled]]:
    """The samples as train and val, each in the order given; val is `count` pictures, or `share` of each class.

    Which are in val depends on the pictures' content and the seed alone, not on their names or order. Copies of a
    picture, exact or near, fall into one part: train, where at least twice as many are without a copy as val needs. Where
    near copies leave nothing to choose from (a fixed camera's pictures), only exact ones are kept together, and `say` is
    told. Raises DataError when the samples are too few or all the same picture.
    """
    wanted = round(share * len(samples)) if count is None else count
    if not 0 < wanted < len(samples):
        raise DataError(
            f"{len(samples)} pictures cannot give {wanted} to val and some to train; add pictures, or ask for fewer"
        )
    content = keys_and_fingerprints([sample.path for sample in samples])
    keys = [hashlib.sha256(seed.to_bytes(8, "big", signed=True) + key).digest() for key, _ in content]
    exact = [(group[0], other) for group in exact_groups(keys) for other in group[1:]]
    near = Near([found for _, found in content]).pairs()
    joined = groups(len(samples), [*exact, *near])
    chosen = _choose(samples, keys, joined, wanted)
    if near and not _enough(len(chosen), wanted):
        apart = _choose(samples, keys, groups(len(samples), exact), wanted)
        if len(apart) > len(chosen):  # else the classes are too small, whatever is a copy of what
            say(_flattered(len(chosen), joined))
            chosen = apart
    if not chosen:
        raise DataError(f"{len(samples)} pictures, too few that differ to have a val part; add pictures, or give train and val")
    train = [sample for place, sample in enumerate(samples) if place not in chosen]
    return train, [sample for place, sample in enumerate(samples) if place in chosen]


def _flattered(found: int, joined: Sequence[list[int]]) -> str:
    """What to know where near copies are in both parts; `joined` are the groups of copies."""
    count, copies = sum(map(len, joined)), sum(len(group) for group in joined if len(group) > 1)
    camera = copies >= CAMERA and 2 * copies > count
    why = "a fixed camera?" if camera else f"{copies} have one"
    advice = "give train and val parts taken apart in time" if camera else "edge-train check names them; remove some"
    return (
        f"only {found} of {count} pictures can be val without a near copy in train ({why}): val and train hold near copies of "
        f"each other, and figures will flatter; {advice}"
    )


def _enough(found: int, wanted: int) -> bool:
    return found >= max(1, wanted - max(1, wanted // 10))


def _choose(samples: Sequence[Labelled], keys: Sequence[bytes], members: Sequence[list[int]], wanted: int) -> set[int]:
    """The places of at most `wanted` samples, whole groups each, of every class its share."""
    members = sorted(members, key=lambda group: min(keys[place] for place in group))
    strata: dict[int, list[list[int]]] = {}
    for group in members:
        first = samples[min(group, key=lambda place: keys[place])]
        strata.setdefault(first.class_id if isinstance(first, Sample) else -1, []).append(group)
    chosen: set[int] = set()
    for class_id, quota in _quotas({name: sum(map(len, found)) for name, found in strata.items()}, wanted).items():
        found = strata[class_id]
        if sum(len(group) == 1 for group in found) >= 2 * quota:
            found = sorted(found, key=lambda group: len(group) > 1)
        size = sum(map(len, found))
        taken = 0
        for group in found:
            if taken + len(group) <= quota and taken + len(group) < size:
                chosen.update(group)
                taken += len(group)
    return chosen


def _quotas(sizes: dict[int, int], wanted: int) -> dict[int, int]:
    """`wanted` shared out by size, what is left to the largest remainders; a class of two or more has one at least."""
    total = sum(sizes.values())
    order = sorted(sizes)
    quotas = {name: wanted * sizes[name] // total for name in order}
    left = wanted - sum(quotas.values())
    for name in sorted(order, key=lambda name: (-(wanted * sizes[name] % total), name))[:left]:
        quotas[name] += 1
    for name in order:
        if quotas[name] == 0 and sizes[name] > 1:
            richest = max(order, key=lambda other: (quotas[other], -other))
            if quotas[richest] > 1:
                quotas[richest] -= 1
                quotas[name] = 1
    return quotas
