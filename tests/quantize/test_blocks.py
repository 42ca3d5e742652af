"""Operators grouped by layer: what is left in float together, and what comes after the last weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.blocks import Operator, blocks, tail


def graph(text: str) -> list[Operator]:
    """`made = kind reads...` a line; a layer is a capitalized kind and is called after what it makes."""
    operators = []
    for line in text.strip().splitlines():
        makes, _, rest = line.partition(" = ")
        kind, *reads = rest.split()
        layer = makes.strip() if kind[0].isupper() else ""
        operators.append(Operator(f"op_{makes.strip()}", kind, tuple(reads), (makes.strip(),), layer))
    return operators


CHAIN = """
    a = Conv x
    b = relu a
    c = pool b
    d = Conv c
    e = softmax d
    """
RESIDUAL = """
    a = Conv x
    b = Conv a
    s = sigmoid b
    m = mul b s
    t = add m a
    c = Conv t
    """
TWO_HEADS = """
    a = Conv x
    b = Conv a
    c = Conv a
    r = reshape b
    s = sigmoid c
    y = concat r s
    """


@pytest.mark.parametrize(
    ("text", "expected", "after"),
    [
        (CHAIN, {"a": "a b c", "d": "d"}, {"op_e"}),
        (RESIDUAL, {"a": "a", "b": "b s m t", "c": "c"}, set()),
        (TWO_HEADS, {"a": "a", "b": "b", "c": "c"}, {"op_r", "op_s", "op_y"}),
        ("p = exp x\na = Conv p", {"a": "a"}, set()),  # what comes before the first layer is nobody's
        ("p = exp x\nq = neg p", {}, {"op_p", "op_q"}),
    ],
)
def test_each_operator_belongs_to_the_layer_that_came_last(text: str, expected: dict[str, str], after: set[str]) -> None:
    operators = graph(text)
    found = blocks(operators)
    assert {block.layer: " ".join(name.removeprefix("op_") for name in block.operators) for block in found} == expected
    assert all(len(block.kinds) == len(block.operators) for block in found)
    assert tail(operators) == after


@st.composite
def random_graphs(draw: st.DrawFn) -> list[Operator]:
    """Graphs of up to twelve operators, each reading one or two earlier tensors."""
    names = ["x"]
    operators = []
    for index in range(draw(st.integers(1, 12))):
        reads = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)))
        layer = f"t{index}" if draw(st.booleans()) else ""
        operators.append(Operator(f"op{index}", "kind", reads, (f"t{index}",), layer))
        names.append(f"t{index}")
    return operators


@given(random_graphs())
def test_blocks_and_tail_share_nothing_and_hold_every_layer(operators: list[Operator]) -> None:
    found = blocks(operators)
    members = [name for block in found for name in block.operators]
    assert len(members) == len(set(members))
    assert set(members).isdisjoint(tail(operators))
    assert [block.layer for block in found] == [operator.layer for operator in operators if operator.layer]
    assert all(block.operators[0] == f"op{block.layer[1:]}" for block in found)


@given(random_graphs())
def test_no_layer_comes_after_the_tail(operators: list[Operator]) -> None:
    after = tail(operators)
    makes = {operator.makes[0]: operator for operator in operators}
    for operator in operators:
        if operator.name not in after:
            continue
        assert not operator.layer
        users = [user for user in makes.values() if operator.makes[0] in user.reads]
        assert all(user.name in after for user in users)
