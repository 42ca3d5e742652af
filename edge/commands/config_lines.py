"""Where in a TOML text its keys stand, for messages: the parser of the standard library does not tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    r"""
      \"{3} (?: \\. | [^\\] )*? \"{3,5}  # multi-line strings: what looks like a key in them is none
    | '{3} .*? '{3,5}
    | " (?: \\. | [^"\\\n] )* "
    | ' [^'\n]* '
    | \# [^\n]*
    | [^\s\[\]{}=.,#"']+
    | .
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One key or table header at the top of the document; `name` is its first part, `rest` whether more parts follow."""

    name: str
    line: int
    rest: bool
    table: bool


def statements(text: str) -> Iterator[Statement]:
    """The statements outside of tables, and the headers of tables. Lines count from 1.

    The text may be damaged: then what is told holds up to there.
    https://toml.io/en/v1.0.0
    """
    line, depth, within = 1, 0, False
    parts: list[str] | None = []
    header, began = False, 1
    for token in (match[0] for match in TOKEN.finditer(text)):
        if token == "\n" and depth == 0:
            if header and parts:
                yield Statement(_name(parts[0]), began, len(parts) > 1, True)
                within = True
            parts, header = [], False
        elif parts is None:  # within a value
            depth += (token in "[{") - (token in "]}")
            depth = max(depth, 0)
        elif token == "=":
            if parts and not within:
                yield Statement(_name(parts[0]), began, len(parts) > 1, False)
            parts, depth = None, 0
        elif token == "[" and not parts:
            header, began = True, line
        elif not token.isspace() and token not in ".]" and not token.startswith("#"):
            began = began if parts or header else line
            parts.append(token)
        line += token.count("\n")
    if header and parts:
        yield Statement(_name(parts[0]), began, len(parts) > 1, True)


def _name(token: str) -> str:
    if token[0] == "'":
        return token[1:-1]
    if token[0] == '"':
        return re.sub(r"\\u(\w{4})|\\U(\w{8})|\\(.)", _unescaped, token[1:-1])
    return token


def _unescaped(found: re.Match[str]) -> str:
    if found[3]:
        return {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}.get(found[3], found[3])
    try:
        return chr(int(found[1] or found[2], 16))
    except (ValueError, OverflowError):
        return "?"
