"""The command blocks of README.md and docs/: which there are, which of them a test runs, and the commands in them.

A fenced `sh` block is run by tests/integration/test_docs_blocks.py unless `<!-- not run: REASON -->` stands before it. A
`text` block with lines that begin with `$ ` is a transcript: what it shows was run once, by hand, and its commands are
still parsed.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

REPOSITORY = Path(__file__).parents[1]
COMMANDS = {
    "edge-run": "edge.commands.run",
    "edge-eval": "edge.commands.evaluate",
    "edge-bench": "edge.commands.bench",
    "edge-doctor": "edge.commands.doctor",
    "edge-train": "train.cli",
    "edge-train check": "train.check_command:check",
    "edge-train pack": "train.pack_command:pack",
    "edge-quantize": "quantize.cli",
    "edge-cloud": "cloud.cli",
    "cloud.kept": "cloud.kept",
    "cloud.kept review": "cloud.kept:review",
}
"""How a command is called → the module of its `main`, or module:name."""
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*?) -->\n\n?)?(?P<mark>```+)(?P<language>\w*)\n(?P<text>.*?)^(?P=mark)$", re.M | re.S
)
HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?(.*?)\n.*?^\1$", re.M | re.S)
BEFORE_A_COMMAND = re.compile(r"^(\w+=.*|sudo|env|exec|time|!)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its page, the line of its fence, and why nobody runs it, where that is said."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        """page:line, as a test's id."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def tracked(*patterns: str) -> list[Path]:
    """The repository's files of these patterns, those included that are not committed yet."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return sorted({path for name in listed.split("\0") if name and (path := REPOSITORY / name).is_file()})


def pages() -> list[Path]:
    """Everything that readers are shown."""
    return tracked("README.md", "CONTRIBUTING.md", "docs/*.md")


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, match.start("mark")) + 1, match["language"], match["text"], match["reason"])
        for match in FENCE.finditer(text)
    ]


def runnable(page: Path) -> list[Block]:
    """Those that a test runs."""
    return [block for block in blocks(page) if block.language == "sh" and block.reason is None]


def commands(block: Block) -> Iterator[list[str]]:
    """The simple commands of a block, as words, without what stands before them (sudo, assignments) and redirections."""
    text = HEREDOC.sub(r"\2", block.text).replace("\\\n", " ")
    lines = text.splitlines()
    if block.language == "text":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(re.sub(r"\s\d?>>?&?\s*[^\s>]+", " ", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&()"):
                if words:
                    yield words
                words = []
            elif words or not BEFORE_A_COMMAND.match(word):
                words.append(word)


def ours(words: list[str]) -> tuple[str, list[str]] | None:
    """Which of our commands this is, and its arguments."""
    if words[0].startswith("python") and words[1:2] == ["-m"]:
        words = words[2:]
    name, arguments = Path(words[0]).name, words[1:]
    if arguments and f"{name} {arguments[0]}" in COMMANDS:
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    return (name, arguments) if name in COMMANDS else None


def parse(name: str, arguments: list[str]) -> None:
    """Have a command's own parser read the arguments, but for a `--config` that only the reader has; raises what it raises."""
    if "--config" in arguments:
        at = arguments.index("--config")
        arguments = arguments[:at] + arguments[at + 2 :]
    module, _, function = COMMANDS[name].partition(":")
    command: click.Command = getattr(importlib.import_module(module), function or "main")
    try:
        command.make_context(name, list(arguments))
    except click.exceptions.Exit as ended:  # --help, --version
        if ended.exit_code:
            raise
