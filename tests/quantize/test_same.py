"""Tensors of a converted model matched to the nodes that they hold the values of."""

from __future__ import annotations

import numpy as np

from quantize.same import matched


def test_values_are_found_again_in_another_layout() -> None:
    random = np.random.default_rng(0)
    nodes = {name: random.normal(size=(1, 4, 5, 6)) for name in "abc"} | {"small": random.normal(size=(1, 7))}
    tensors = {f"t{name}": value.transpose(0, *range(2, value.ndim), 1).astype(np.float32) for name, value in nodes.items()}
    assert matched(tensors, nodes) == {f"t{name}": name for name in nodes}


def test_what_no_node_holds_is_left_out() -> None:
    random = np.random.default_rng(0)
    node = random.normal(size=(1, 4, 5, 6))
    assert not matched({"relu": np.maximum(node, 0), "cut": node[:, :3], "twice": 2 * node}, {"a": node})


def test_of_two_alike_the_nearer_is_taken() -> None:
    node = np.random.default_rng(0).normal(size=(1, 4, 5, 6))
    assert matched({"t": node}, {"far": node * 1.00001, "near": node}) == {"t": "near"}
