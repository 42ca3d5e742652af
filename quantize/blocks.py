"""A graph of any format as blocks: a weighted operator and what follows it, the unit that is quantized or left in float."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: its name in its format, its kind, the activations it reads and makes, and its layer when it is weighted."""

    name: str
    kind: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """The operators, by name and kind, of one weighted layer and what follows it up to the next."""

    layer: str
    operators: tuple[str, ...]
    kinds: tuple[str, ...]


def blocks(operators: Sequence[Operator]) -> list[Block]:
    """All but the tail, grouped by the weighted operator that came last before each."""
    home: dict[str, int] = {}
    members: list[list[Operator]] = []
    after = tail(operators)
    for operator in operators:
        if operator.layer:
            members.append([])
            index = len(members) - 1
        else:
            before = [home[name] for name in operator.reads if name in home]
            if not before or operator.name in after:
                continue
            index = max(before)
        members[index].append(operator)
        home |= dict.fromkeys(operator.makes, index)
    return [Block(group[0].layer, tuple(o.name for o in group), tuple(o.kind for o in group)) for group in members]


def tail(operators: Sequence[Operator]) -> frozenset[str]:
    """The operators after which no weighted one comes: decoding, mostly, which wants float and costs little."""
    users: dict[str, list[Operator]] = defaultdict(list)
    for operator in operators:
        for name in operator.reads:
            users[name].append(operator)
    leading: set[str] = set()
    for operator in reversed(operators):
        behind = [user for name in operator.makes for user in users[name]]
        if any(user.layer or user.name in leading for user in behind):
            leading.add(operator.name)
    return frozenset(operator.name for operator in operators if not operator.layer and operator.name not in leading)
