"""The commands of docs/install.md and of the unit file are ones that parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from devices.wheelhouse import target
from tests.docs_blocks import parse

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "install.md").read_text()
UNIT = (REPOSITORY / "docs" / "edge-run.service").read_text()
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
LINES = [line.split("  #")[0].strip() for line in BLOCKS.splitlines()]
CALLS = re.findall(r"(?:^|/bin/)(edge-(?:run|bench|doctor)\b(?! *=)[^&\n]*)", "\n".join(LINES), re.MULTILINE)
OPTIONS = re.findall(r"OPTIONS=(--[^'\"`\n]*)", PAGE + UNIT)


@pytest.mark.parametrize("call", CALLS)
def test_a_command_of_the_page_parses(call: str) -> None:
    name, *arguments = shlex.split(call)
    parse(name, arguments)


@pytest.mark.parametrize("options", sorted(set(OPTIONS)))
def test_options_of_the_service_parse(options: str) -> None:
    line = re.search(r"^ExecStart=/opt/edge/bin/(edge-run .*)$", UNIT, re.MULTILINE)
    assert line is not None
    name, *arguments = shlex.split(line[1].replace("$OPTIONS", options).replace("${STATE_DIRECTORY}", "/var/lib/edge-run"))
    parse(name, arguments)


@pytest.mark.parametrize("line", re.findall(r"make wheelhouse ([A-Z][^\n#`]*)", PAGE))
def test_a_wheelhouse_of_the_page_can_be(line: str) -> None:
    given = dict(word.split("=", 1) for word in shlex.split(line))
    extras = [extra for extra in given.get("EXTRAS", "").split(",") if extra]
    target(given["BOARD"], extras, given.get("PYTHON_VERSION", ""), given.get("SYSTEM", ""))


def test_a_new_bundle_is_checked_before_it_is_current() -> None:
    chain = next(line for line in BLOCKS.splitlines() if "edge-doctor --model" in line)
    assert re.search(r"edge-doctor --model /opt/edge-models/garden-2\.edge [^|;]*&&.*mv -T .*current\.edge +&&", chain)


def test_the_page_was_read() -> None:
    assert len(CALLS) >= 6
    assert len(OPTIONS) >= 4
    assert re.search(r"^wheelhouse:.*##", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
