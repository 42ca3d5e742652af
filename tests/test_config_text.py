"""edge.toml written out: --print-config reads back to the same, the example and the schema have every option."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.commands.config import Setting, options_by_key, read_file
from edge.commands.config_text import EXAMPLES, HEADINGS, config_schema, config_text, example, example_value, toml
from edge.commands.configured import SETTINGS
from edge.commands.logs import restored
from edge.commands.option_types import Budget, Celsius, Checked, Hours, Pixels, Size
from edge.commands.run import main
from edge.commands.run_options import check_idle, check_options
from edge.errors import UsageError
from tests.conftest import Finished

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

Command = Callable[..., Finished]
OPTIONS = options_by_key(main)
VALIDATOR = jsonschema.Draft202012Validator(config_schema(main))
TEXT = example(main)
SETTING_LINES = [line for line in TEXT.splitlines() if re.match(r"#[a-z]", line)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory, an environment without variables of ours; and --log-json of a test ends with it."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EDGE_RUN_")]:
        monkeypatch.delenv(name)
    with restored():
        yield


# what is in effect


def test_each_value_says_where_it_comes_from(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("edge.toml").write_text('camera = 0\n\nmotion-gate = true\nquiet-hours = "22:00-06:30"\nspin = true\n')
    monkeypatch.setenv("EDGE_RUN_RATE", "15")
    monkeypatch.setenv("EDGE_RUN_SPIN", "no")
    done = command(main, "--print-config", "--config", "edge.toml", "--refresh", "1e-1", "--store", 'a"b', "--classes", "ü")
    assert (done.code, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if not line.startswith("#")] == [
        "camera = [0]  # edge.toml:1",
        "rate = 15  # EDGE_RUN_RATE",
        "spin = false  # EDGE_RUN_SPIN",
        'classes = "ü"  # command line',
        "motion-gate = true  # edge.toml:3",
        "refresh = 0.1  # command line",
        'store = "a\\"b"  # command line',
        'quiet-hours = "22:00-06:30"  # edge.toml:4',
    ]
    assert "#keep = 5" in done.out.splitlines()
    assert "#threads: not given  [default: the board's profile]" in done.out.splitlines()
    assert {"#size: not given  [default: the camera's]", "#pixels: not given  [default: MJPG from 800 wide]"} < set(
        done.out.splitlines()
    )
    assert len(done.out.splitlines()) == len(OPTIONS)


def test_printing_opens_nothing_but_checks(command: Command) -> None:
    done = command(main, "--print-config", "--source", "/none", "--model", "/none", "--video", "/none/none.mp4")
    assert (done.code, done.err) == (0, "")
    assert "does nothing without --offload" in command(main, "--print-config", "--threshold", "0.5").refused(2)
    assert "--rate" in command(main, "--print-config", "--rate", "fast").refused(2)


def test_a_text_that_toml_cannot_hold_is_one_line(command: Command) -> None:
    assert "is not UTF-8" in command(main, "--print-config", "--store", "a\udcff").refused(2)


def test_a_name_of_a_file_cannot_end_the_comment(command: Command) -> None:
    name = "a\nrate = 7 #.toml"
    Path(name).write_text("keep = 3")
    Path("events.toml").write_text("")
    done = command(main, "--print-config", "--config", name, "--rotate-mb", "1", "--events", "e")
    assert done.code == 0
    assert "rate" not in tomllib.loads(done.out)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


REGIONS = ["0,0,1,1", "2:0,0,1,0.5,0,1"]
TEXTS = {
    "camera": ["0", "97", "/dev/v4l/by-id/ü"],
    "source": ["demo", 'a "b".mp4', "rtsp://h/1", "gst:a ! b", "camera:1"],
    "score-threshold": ["0.5", "1", "ü=0.25"],
    "roi": REGIONS,
    "mask": REGIONS,
    "video": ["a.mp4", 'ü "b".AVI'],
    "webhook": ["https://h/a?b=c"],
    "offload": ["http://h:8000", "grpc://h:1/m"],
    "offload-pin": [f"sha256:{'0' * 64}"],
    "web": ["0", "8080", "[::1]:80"],
    "mqtt": ["mqtts://h", "mqtt://h:1"],
    "mqtt-topic": ["1", "a/ü"],
    "mqtt-user": ["a b", "1"],
    "mqtt-commands": ["do"],
    "home-assistant-prefix": ["ha"],
    "mqtt-qos": ["1", "events=2"],
}


def values(key: str, option: click.Option) -> st.SearchStrategy[Any]:
    """Texts of the command line that an option takes."""
    kind = option.type
    if isinstance(kind, Checked):
        return st.sampled_from(TEXTS[key])
    if option.is_flag:
        return st.booleans() if option.secondary_opts else st.just(True)
    if isinstance(kind, click.Choice):
        return st.sampled_from(list(kind.choices))
    if isinstance(kind, Budget):
        return st.sampled_from(["5%", "0.5%", "600/h", "20MB/h"])
    if isinstance(kind, Hours):
        return st.sampled_from(["22:00-06:30", "00:00-23:59"])
    if isinstance(kind, Pixels):
        return st.sampled_from(["MJPG", "yuyv", ""])
    if isinstance(kind, Size):
        return st.tuples(st.integers(16, 4096), st.integers(16, 4096)).map(lambda size: f"{size[0]}x{size[1]}")
    if isinstance(kind, click.IntRange):
        least, most = kind.min or 0, kind.max
        return st.integers(least, least + 10**6 if most is None else int(most)).map(str)
    if isinstance(kind, click.FloatRange):
        least, most = float(kind.min or 0), float(kind.max or 1e12)
        numbers = st.floats(least, most, exclude_min=kind.min_open, exclude_max=kind.max_open).map(repr)
        return numbers | st.just("auto") if isinstance(kind, Celsius) else numbers
    return WORDS


GIVEN = st.fixed_dictionaries(
    {},
    optional={
        key: st.lists(values(key, option), max_size=3) if option.multiple else values(key, option)
        for key, option in OPTIONS.items()
    },
)


def settled(arguments: list[str]) -> dict[str, Any]:
    """The parameters of a command line, those with an own callback aside."""
    return main.make_context("edge-run", arguments).params


@given(GIVEN)
def test_what_is_printed_reads_back_to_the_same(tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any]) -> None:
    if "log-level" in chosen:
        chosen.pop("quiet", None)
    arguments = []
    for key, value in chosen.items():
        flag = f"--{key}"
        if isinstance(value, bool):
            arguments.append(flag if value else OPTIONS[key].secondary_opts[0])
        else:
            arguments += [f"{flag}={part}" for part in (value if isinstance(value, list) else [value])]
    context = main.make_context("edge-run", arguments)
    text = config_text(OPTIONS, context.meta[SETTINGS])
    path = tmp_path_factory.getbasetemp() / "printed.toml"
    path.write_text(text, newline="")
    assert settled(["--config", str(path)]) == context.params
    VALIDATOR.validate(tomllib.loads(text))
    again = main.make_context("edge-run", ["--config", str(path)]).meta[SETTINGS]
    printed = [line.partition("  # ")[0] for line in config_text(OPTIONS, again).splitlines()]
    assert printed == [line.partition("  # ")[0] for line in text.splitlines()]


@given(WORDS)
def test_any_text_is_the_same_in_toml(text: str) -> None:
    assert tomllib.loads(f"a = {toml(text)}")["a"] == text


def test_text_outside_of_utf_8_is_refused() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        toml("\udcff")


# the example


def test_the_example_is_valid_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(TEXT)
    assert read_file("edge.toml", OPTIONS) == {}
    assert TEXT.splitlines()[0] == "#:schema schema/config.json"
    assert max(len(line) for line in TEXT.splitlines() if line.startswith("# ")) <= 100


def test_the_example_has_every_option_once_below_a_heading() -> None:
    assert [line[1:].partition(" = ")[0] for line in SETTING_LINES] == list(OPTIONS)
    assert re.findall(r"^# ---- (.*) ----$", TEXT, re.MULTILINE) == list(HEADINGS.values())
    assert set(HEADINGS) <= set(OPTIONS)
    assert TEXT.index("# ----") < TEXT.index(SETTING_LINES[0])
    for option in OPTIONS.values():
        assert re.sub(r"\W", "", option.help or "") in re.sub(r"\W", "", TEXT)


@pytest.mark.parametrize("line", SETTING_LINES, ids=[line[1:].partition(" ")[0] for line in SETTING_LINES])
def test_each_line_of_the_example_holds_without_its_hash(line: str) -> None:
    Path("edge.toml").write_text(TEXT.replace(f"\n{line}\n", f"\n{line[1:]}\n"))
    key = line[1:].partition(" ")[0]
    settings = read_file("edge.toml", OPTIONS)
    assert list(settings) == [key]
    assert settings[key].origin == f"edge.toml:{TEXT.splitlines().index(line) + 1}"
    VALIDATOR.validate(tomllib.loads(line[1:]))
    main.make_context("edge-run", ["--config", "edge.toml"])


def test_the_whole_example_holds_without_its_hashes() -> None:
    lines = [line[1:] for line in SETTING_LINES if not line.startswith(("#quiet", "#log-level"))]
    Path("edge.toml").write_text("\n".join(lines))
    with main.make_context("edge-run", ["--config", "edge.toml", "--track", "--motion-gate", "--home-assistant"]) as context:
        check_idle(context)
    several_policies = ("offload-budget", "offload-price", "max-error")
    lines = [line for line in lines if not line.startswith(several_policies)]
    Path("edge.toml").write_text("\n".join(lines))
    with main.make_context("edge-run", ["--config", "edge.toml", "--track", "--motion-gate", "--home-assistant"]) as context:
        check_options(context)


def test_the_examples_are_of_options_there_are() -> None:
    assert set(EXAMPLES) <= set(OPTIONS)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (click.Option(["--new"], metavar="HOST"), "HOST"),
        (click.Option(["--new"], multiple=True, metavar="HOST"), ["HOST"]),
        (click.Option(["--new"], is_flag=True), False),
        (click.Option(["--new/--no-new"], default=None), True),
        (click.Option(["--new"], type=click.Choice(["a", "b"])), "a"),
        (click.Option(["--new"], type=click.IntRange(2, 3)), 2),
        (click.Option(["--new"], type=int), 1),
        (click.Option(["--new"], default="x"), "x"),
    ],
)
def test_an_option_that_nobody_wrote_an_example_for_has_one(option: click.Option, value: object) -> None:
    assert example_value("new", option) == value


# the schema


def test_the_schema_is_one_and_has_every_option() -> None:
    schema = config_schema(main)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == list(OPTIONS)
    assert json.loads(json.dumps(schema)) == schema
    for name, value in {key: about["default"] for key, about in schema["properties"].items() if "default" in about}.items():
        VALIDATOR.validate({name: value})


@pytest.mark.parametrize(
    "given",
    [
        {"rate": "fast"},
        {"rate": 2000},
        {"track": 1},
        {"thresold": 1},
        {"threads": 1.5},
        {"max-error": 0},
        {"policy": "x"},
        {"camera": True},
        {"max-temp": "x"},
        {"events": 1},
    ],
)
def test_the_schema_refuses(given: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(given)


def test_no_setting_is_forgotten_for_want_of_an_option() -> None:
    text = config_text(OPTIONS, {"rate": Setting("5", "x"), "quiet": Setting(True, "y")})
    assert tomllib.loads(text) == {"rate": 5, "quiet": True}
