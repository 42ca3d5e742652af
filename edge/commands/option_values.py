"""What the texts of some options of edge-run are made of: thresholds by class, names of classes, regions by source."""

from __future__ import annotations

import math

from edge.errors import UsageError


def score_thresholds(given: tuple[str, ...]) -> tuple[float | None, dict[str, float]]:
    """`--score-threshold`: the one for all classes, and those of single ones. Raises UsageError."""
    general, single = None, {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise UsageError(f"--score-threshold {text}: expected a number from 0 to 1, or CLASS=NUMBER")
        if name:
            single[name] = value
        else:
            general = value
    return general, single


def class_names(given: str | None) -> frozenset[str] | None:
    """The names between the commas; None where the option was not given."""
    return None if given is None else frozenset(name.strip() for name in given.split(","))


def for_source(given: tuple[str, ...], flag: str, number: int, sources: int) -> list[str]:
    """The polygons of `flag` that concern source `number`, from 1. Raises UsageError for a source that is not there."""
    chosen = []
    for text in given:
        prefix, colon, polygon = text.partition(":")
        if not colon:
            chosen.append(text)
        elif not prefix.isdecimal() or not 1 <= int(prefix) <= sources:
            raise UsageError(f"{flag} {text}: there is no source {prefix!r}, they are numbered from 1 to {sources}")
        elif int(prefix) == number:
            chosen.append(polygon)
    return chosen
