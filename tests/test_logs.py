"""Lines on standard error: levels, colours, JSON, and that every command has the options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args

import click
import jsonschema
import pytest

from edge.commands import OneLineCommand, Skipped, fail, speaker
from edge.commands.logs import (
    LEVELS,
    NOTICE_LEVELS,
    Style,
    adopt,
    at_level,
    log_schema,
    notice_level,
    restored,
    says,
    style,
)
from edge.errors import EngineError, UsageError
from edge.types import NoticeKind
from tests.conftest import Finished
from tests.screen import written_to_terminal

Command = Callable[..., Finished]
COMMANDS = {
    "edge.commands.run": "main",
    "edge.commands.evaluate": "main",
    "edge.commands.bench": "main",
    "edge.commands.doctor": "main",
    "cloud.cli": "main",
    "cloud.kept": "main review",
    "train.cli": "main",
    "train.check_command": "check",
    "train.pack_command": "pack",
    "quantize.cli": "main",
}
say = speaker("edge-example")


@click.command("edge-example", cls=OneLineCommand)
@click.option("--fails", is_flag=True)
@click.option("--number", type=int)
def example(fails: bool, number: int | None) -> int:
    """Says a line of each level."""
    for level in LEVELS:
        say(f"{level} line", level=level)
    if fails:
        try:
            raise OSError("no such board")
        except OSError as error:
            raise EngineError("the engine fails") from error
    return 0


def records(err: str) -> list[dict[str, Any]]:
    validator = jsonschema.Draft202012Validator(log_schema())
    found = [json.loads(line) for line in err.splitlines()]
    for record in found:
        validator.validate(record)
    return found


# which lines are said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), 3),
        (("--log-level", "error"), 1),
        (("--log-level", "warning"), 2),
        (("--quiet",), 2),
        (("-q",), 2),
        (("--log-level", "info"), 3),
    ],
)
def test_levels(command: Command, arguments: tuple[str, ...], said: int) -> None:
    done = command(example, *arguments)
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [f"edge-example: {level} line" for level in LEVELS[:said]]
    assert style() == Style()  # a command's choice ends with it


def test_debug_tells_versions_and_where_an_error_comes_from(command: Command) -> None:
    done = command(example, "--log-level", "debug", "--fails")
    lines = done.err.splitlines()
    assert re.fullmatch(r"edge-example: \S+, Python \S+, .*", lines[0])
    assert lines[4] == "edge-example: debug line"
    assert re.search(r"EngineError from \S+test_logs.py:\d+, example, after OSError: no such board", lines[5])
    assert lines[6:] == ["edge-example: the engine fails"]
    assert "Traceback" not in done.err


@pytest.mark.parametrize("arguments", [("--quiet", "--log-level", "info"), ("--log-level", "warning", "-q")])
def test_quiet_and_a_level_are_one_too_many(command: Command, arguments: tuple[str, ...]) -> None:
    assert "--quiet is --log-level warning; give one of the two" in command(example, *arguments).refused(2)
    assert style() == Style()


@pytest.mark.parametrize(
    ("arguments", "level"), [((), "warning"), (("--log-level", "debug"), "debug"), (("--log-level", "error"), "error")]
)
def test_the_command_line_goes_before_a_configuration(arguments: tuple[str, ...], level: str) -> None:
    with restored():
        example.make_context("edge-example", list(arguments), default_map={"quiet": True})
        assert style().level == level
        with pytest.raises(UsageError, match="give one of the two"):
            example.make_context("edge-example", [], default_map={"quiet": True, "log_level": "info"})


def test_a_level_that_is_none(command: Command) -> None:
    assert "'loud' is not one of" in command(example, "--log-level", "loud").refused(2)


def test_errors_are_said_however_quiet_it_is(command: Command) -> None:
    done = command(example, "--log-level", "error", "--fails")
    assert (done.code, done.err.splitlines()) == (1, ["edge-example: error line", "edge-example: the engine fails"])


def test_skipped_pictures_are_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    Skipped(lines.append)("a.jpg: torn")  # what knows no levels hears it all the same
    assert lines == ["skipped a.jpg: torn"]
    with restored():
        adopt(Style("error"))
        Skipped(say)("a.jpg: torn")
        assert capsys.readouterr().err == ""
        adopt(Style("warning"))
        Skipped(say)("a.jpg: torn")
        at_level(say, "warning")("spool: full")
        say("ready")
    assert capsys.readouterr().err.splitlines() == ["edge-example: skipped a.jpg: torn", "edge-example: spool: full"]


def test_every_notice_has_a_level() -> None:
    assert set(get_args(NoticeKind)) == set(NOTICE_LEVELS)
    assert notice_level("source-lost") == "warning"
    assert notice_level("endpoint-back") == "info"


# as JSON


def test_json_lines(command: Command) -> None:
    found = records(command(example, "--log-json", "--log-level", "debug", "--fails").err)
    assert [record["level"] for record in found] == ["debug", "error", "warning", "info", "debug", "debug", "error"]
    assert {record["command"] for record in found} == {"edge-example"}
    assert found[-1]["text"] == "the engine fails"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["at"]) for record in found)
    assert style() == Style()


@pytest.mark.parametrize("wrong", [("--bad",), ("--number", "x"), ("stray",), ("--log-level", "loud")])
def test_what_is_wrong_with_the_command_line_is_json_too(command: Command, wrong: tuple[str, ...]) -> None:
    for arguments in ((*wrong, "--log-json"), ("--log-json", *wrong)):
        done = command(example, *arguments)
        assert done.code == 2
        assert [record["level"] for record in records(done.err)] == ["error"]


def test_what_follows_two_dashes_is_no_option() -> None:
    assert example.wants_json(["a", "--log-json"])
    assert not example.wants_json(["--", "--log-json"])


def test_names_that_are_no_unicode_and_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with restored():
        adopt(Style(as_json=True))
        say("bad \udcff name\nand \x1b[2J more")
        say("a  \udcff  table", aligned=True)
    texts = [record["text"] for record in records(capsys.readouterr().err)]
    assert texts == ["bad name and [2J more", "a  ?  table"]


def test_a_table_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say("a   b  ", aligned=True)
    say("a   b  ")
    assert capsys.readouterr().err == "edge-example: a   b\nedge-example: a b\n"


def test_failing_says_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with restored():
        adopt(Style("error", as_json=True))
        with pytest.raises(SystemExit) as ended:
            fail("edge-example", "no", 3)
    assert ended.value.code == 3
    assert records(capsys.readouterr().err)[0]["level"] == "error"


def test_nothing_leaks_from_a_command_that_was_interrupted(command: Command) -> None:
    @click.command("edge-example", cls=OneLineCommand)
    def interrupted() -> None:
        assert not says("info")
        raise KeyboardInterrupt

    done = command(interrupted, "-q", "--log-json")
    assert (done.code, records(done.err)[0]["text"]) == (130, "interrupted")
    assert style() == Style()


# on a terminal


SAY = (
    "from edge.commands import speaker, fail\nsay = speaker('edge-run')\n"
    "say('ready')\nsay('lost', level='warning')\nfail('edge-run', 'broken', 1)"
)


def test_a_terminal_sees_the_prefix_of_what_is_wrong_in_colour() -> None:
    lines = written_to_terminal(SAY).replace("\r\x1b[K", "").splitlines()
    assert lines == [
        "edge-run: ready",
        "\x1b[33medge-run:\x1b[0m lost",
        "\x1b[31medge-run:\x1b[0m broken",
    ]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(environment: dict[str, str]) -> None:
    seen = written_to_terminal(SAY, **environment)
    assert "m" not in re.findall(r"\x1b\[\d*(.)", seen)
    assert seen.replace("\r\x1b[K", "").splitlines() == ["edge-run: ready", "edge-run: lost", "edge-run: broken"]


def test_json_on_a_terminal_is_bare() -> None:
    seen = written_to_terminal(f"from edge.commands.logs import Style, adopt\nadopt(Style(as_json=True))\n{SAY}")
    assert "\x1b" not in seen
    assert [record["text"] for record in records(seen)] == ["ready", "lost", "broken"]


# every command


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in COMMANDS.items() for name in names.split()])
def test_every_command_has_the_options(command: Command, module: str, name: str) -> None:
    main = getattr(import_module(module), name)
    assert isinstance(main, OneLineCommand)
    help_text = command(main, "--help").out
    assert all(option in help_text for option in ("-q, --quiet", "--log-level", "--log-json"))
    done = command(main, "--log-json", "--no-such-option")
    assert done.code == 2
    assert records(done.err)[0]["command"] == main.name
    assert "give one of the two" in command(main, "--quiet", "--log-level", "info").refused(2)
