"""What wheels in a folder are: their tags, what they require on another machine, how large they are unpacked."""

from __future__ import annotations

import ast
import operator
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

MIB = 1 << 20
REQUIREMENT = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[(?P<extras>[^\]]*)\])?\s*\(?(?P<versions>[^;()@]*)\)?\s*(?:;(?P<marker>.*))?$"
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution that another needs, as in `ray[serve]>=2`; the name is normalized (PEP 503)."""

    name: str
    extras: frozenset[str] = frozenset()
    versions: str = ""

    def __str__(self) -> str:
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        return f"{self.name}{extras}{self.versions}"


def normalized(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(wheel: Path) -> str:
    """Whose wheel it is, by the file's name."""
    return normalized(wheel.name.split("-")[0])


def platform_tags(wheel: Path) -> list[str]:
    """Platforms that the wheel is for, by the file's name: `any`, or one or several of one machine."""
    return wheel.stem.rsplit("-", 1)[-1].split(".")


def unpacked_mib(folder: Path) -> float:
    """What the folder's wheels take once they are installed, in MiB, without the byte code that Python adds."""
    return sum(member.file_size for wheel in folder.glob("*.whl") for member in zipfile.ZipFile(wheel).infolist()) / MIB


def extras_of(wheel: Path) -> set[str]:
    """The extras that the wheel offers."""
    return {normalized(name) for name in _metadata(wheel).get_all("Provides-Extra", [])}


def _metadata(wheel: Path) -> Message:
    """The wheel's METADATA; raises zipfile.BadZipFile for what is no wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".dist-info/METADATA")), None)
        if name is None:
            raise zipfile.BadZipFile("no METADATA")
        return HeaderParser().parsestr(archive.read(name).decode("utf-8", "replace"))


def requirements(wheel: Path, extras: Collection[str], environment: Mapping[str, str]) -> list[Requirement]:
    """What the wheel with these extras needs where `environment` holds (names of PEP 508: python_version, platform_machine)."""
    needed = []
    for line in _metadata(wheel).get_all("Requires-Dist", []):
        found = REQUIREMENT.match(line)
        if found is None:  # a URL, which no wheelhouse can serve
            continue
        marker = found["marker"] or ""
        if not marker.strip() or any(holds(marker, {**environment, "extra": extra}) for extra in (*extras, "")):
            wanted = frozenset(part.strip() for part in (found["extras"] or "").split(",") if part.strip())
            needed.append(Requirement(normalized(found["name"]), wanted, found["versions"].replace(" ", "")))
    return needed


def missing(folder: Path, roots: Collection[Requirement], environment: Mapping[str, str]) -> list[Requirement]:
    """What the roots need, at whatever depth, and the folder has no wheel of.

    pip asks the interpreter that it runs on for markers, even when it downloads for another one; this asks `environment`.
    """
    wheels = {distribution(wheel): wheel for wheel in sorted(folder.glob("*.whl"))}
    absent, seen, waiting = [], set(roots), list(roots)
    while waiting:
        one = waiting.pop(0)
        if one.name not in wheels:
            absent.append(one)
            continue
        new = [other for other in requirements(wheels[one.name], one.extras, environment) if other not in seen]
        seen.update(new)
        waiting += new
    return absent


COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: str(left) in str(right),
    ast.NotIn: lambda left, right: str(left) not in str(right),
}


def holds(marker: str, environment: Mapping[str, str]) -> bool:
    """Whether a marker of PEP 508 is true, whose grammar is Python's own; one that cannot be read counts as true."""
    try:
        return _value(ast.parse(marker.strip(), mode="eval").body, environment)
    except (SyntaxError, ValueError, KeyError, TypeError):  # as `~=`: rather a wheel too many
        return True


def _value(node: ast.expr, environment: Mapping[str, str]) -> bool:
    if isinstance(node, ast.BoolOp):
        values = [_value(part, environment) for part in node.values]
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        raise ValueError(ast.dump(node))
    sides = (node.left, node.comparators[0])
    texts = [environment[side.id] if isinstance(side, ast.Name) else _text(side) for side in sides]
    comparison = COMPARISONS[type(node.ops[0])]
    if isinstance(node.ops[0], (ast.In, ast.NotIn)):
        return bool(comparison(*texts))
    if any(isinstance(side, ast.Name) and "version" in side.id for side in sides):
        return bool(comparison(*map(_numbers, texts)))
    return bool(comparison(*texts))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError(ast.dump(node))


def _numbers(version: str) -> list[int]:
    """A version to compare, without the zeros at its end (PEP 440); raises ValueError for a wildcard."""
    if "*" in version:
        raise ValueError(version)
    numbers = [int(number) for number in re.findall(r"(\d+)[^.]*", version)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers
