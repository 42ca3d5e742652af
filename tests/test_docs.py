"""What the documentation says is what the code does."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
COMMANDS = {
    "edge-run": "edge.commands.run",
    "edge-eval": "edge.commands.evaluate",
    "edge-quantize": "quantize.cli",
    "edge-cloud": "cloud.cli",
    "edge-doctor": "edge.commands.doctor",
    "edge-bench": "edge.commands.bench",
}
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
PAGES = [REPOSITORY / name for name in LISTED.split()]


def shell_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    cells = re.findall(r"^\| `(edge-[^`]+)` \|", README, re.MULTILINE)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()] + cells


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("edge-")])
def test_a_command_in_the_readme_is_one_that_parses(line: str) -> None:
    name, *arguments = shlex.split(line)
    command: click.Command = importlib.import_module(COMMANDS[name]).main
    command.make_context(name, arguments)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?<![:\w])make ([a-z][a-z0-9-]*)", README))))
def test_a_make_target_in_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*##", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_generated_documentation_is_fresh() -> None:
    ran = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
