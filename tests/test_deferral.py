"""The accuracy that asking about the least certain brings, against definitions that can be counted by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.deferral import accuracy_curve, deferral_efficiency


def test_a_curve_counted_by_hand() -> None:
    value = np.array([0.9, 0.1, 0.5, 0.7], np.float32)
    local = np.array([False, True, True, False])
    remote = np.array([True, True, False, True])
    assert accuracy_curve(value, local, remote).tolist() == [0.5, 0.75, 1.0, 0.75, 0.75]


def test_equal_values_are_asked_in_any_order() -> None:
    value = np.array([1, 1, 1], np.float32)
    local, remote = np.array([False, False, True]), np.array([True, False, False])
    curves = [accuracy_curve(np.array(order, np.float32), local, remote) for order in permutations([1, 2, 3])]
    assert accuracy_curve(value, local, remote) == pytest.approx(np.mean(curves, axis=0))


RIGHTS = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=50)


@given(RIGHTS)
def test_it_begins_with_the_local_accuracy_and_ends_with_the_remote(rows: list[tuple[bool, bool, float]]) -> None:
    local, remote, value = (np.array(column) for column in zip(*rows, strict=True))
    curve = accuracy_curve(value.astype(np.float32), local, remote)
    assert (curve[0], curve[-1]) == (pytest.approx(local.mean()), pytest.approx(remote.mean()))
    assert len(curve) == len(rows) + 1
    assert deferral_efficiency(value.astype(np.float32), local, remote) <= 1 + 1e-9


def test_who_knows_is_one_who_does_not_is_nothing_and_who_is_wrong_is_less() -> None:
    source = np.random.default_rng(0)
    local, remote = source.random(4000) < 0.5, source.random(4000) < 0.8
    gain = (remote.astype(np.float32) - local).astype(np.float32)
    assert deferral_efficiency(gain, local, remote) == pytest.approx(1)
    assert deferral_efficiency(np.zeros(4000, np.float32), local, remote) == pytest.approx(0)
    assert deferral_efficiency(-gain, local, remote) < -0.5
    assert deferral_efficiency(gain, local, local) == 0
