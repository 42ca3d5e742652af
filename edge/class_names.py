"""The class names of a data.yaml, without a YAML library: the three ways in which its `names` are written."""

from __future__ import annotations

import re

from edge.errors import DataError

KEY = re.compile(r"names\s*:\s*(.*)$")
ENTRY = re.compile(r"\s*(?:-\s+|(\d{1,6})\s*:\s*)(.*)$")
QUOTED = re.compile(r"""\s*(?:(\d{1,6})\s*:\s*)?('(?:[^']|'')*'|"[^"\\]*"|[^,'"\[\]{}]+?)\s*(?:,|$)""")


def yaml_names(text: str, where: str) -> dict[int, str]:
    """Class number → name of `names: [a, b]`, `names: {0: a}`, or a block of `- a` or `0: a` lines.

    Raises DataError naming `where` when there are none or they are written in another way.
    """
    lines = [_without_comment(line).rstrip() for line in text.splitlines()]
    at = next((i for i, line in enumerate(lines) if KEY.match(line)), None)
    if at is None:
        raise DataError(f"{where}: has no 'names' of its classes; add them")
    match = KEY.match(lines[at])
    inline = match.group(1) if match else ""
    names = _flow(" ".join([inline, *lines[at + 1 :]])) if inline else _block(lines[at + 1 :])
    if not names:
        raise DataError(f"{where}, line {at + 1}: 'names' is neither a list nor a map from class number to name")
    return names


def _flow(text: str) -> dict[int, str]:
    end = text.find("]" if text.startswith("[") else "}")
    if text[0] not in "[{" or end < 0:
        return {}
    body = text[1:end].strip().rstrip(",")
    names: dict[int, str] = {}
    at = 0
    while at < len(body):
        match = QUOTED.match(body, at)
        if match is None:
            return {}
        names[int(match.group(1) or len(names))] = _unquoted(match.group(2))
        at = match.end()
    return names


def _block(lines: list[str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for line in lines:
        if not line.strip():
            continue
        match = ENTRY.match(line)
        if match is None:
            break
        names[int(match.group(1) or len(names))] = _unquoted(match.group(2))
    return names


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].replace("''", "'") if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line)
