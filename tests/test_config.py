"""edge.toml and EDGE_RUN_...: what is taken from them, which is stronger, and what is said of mistakes, in which line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.commands import SETTINGS
from edge.commands.config import Problems, options_by_key, read_environment, read_file, variable
from edge.commands.config_lines import statements
from edge.commands.config_text import toml
from edge.commands.configured import CONFIG_OPTIONS, ConfiguredCommand, given_as
from edge.commands.logs import restored, style
from edge.commands.option_types import Checked
from edge.commands.options import RunOptions
from edge.commands.run import main
from edge.errors import UsageError
from tests.conftest import Finished

Command = Callable[..., Finished]
OPTIONS = options_by_key(main)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory, an environment without variables of ours; and --log-json of a test ends with it."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EDGE_RUN_")]:
        monkeypatch.delenv(name)
    with restored():
        yield


def parsed(text: str, *arguments: object) -> RunOptions:
    """What edge-run would run with."""
    Path("edge.toml").write_text(text)
    context = main.make_context("edge-run", ["--config", "edge.toml", *map(str, arguments)])
    return RunOptions(**context.params)


# what is taken


def test_each_kind_of_value_is_what_its_flag_makes_of_it() -> None:
    text = """
        camera = [0, "/dev/video2"]
        size = "1280x720"
        rate = 15
        threads = 2.0
        "model" = 'a.edge'
        second-look = "answer"
        spin = false
        track = true
        score-threshold = [0.4, "person=0.6"]
        events = "-"
        max-temp = "auto"
        offload-budget = "5%"
        quiet-hours = "22:00-06:30"
    """
    flags = (
        "--camera 0 --camera /dev/video2 --size 1280x720 --rate 15 --threads 2 --model a.edge --second-look answer --no-spin "
        "--track --score-threshold 0.4 --score-threshold person=0.6 --events - --max-temp auto --offload-budget 5% "
        "--quiet-hours 22:00-06:30"
    )
    by_flags = RunOptions(**main.make_context("edge-run", flags.split()).params)
    assert parsed(text) == by_flags
    assert by_flags.camera == ("0", "/dev/video2")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("camera = 0", "camera", ("0",)),
        ('source = "demo"', "source", ("demo",)),
        ("camera = []", "camera", ()),
        ("rate = 5", "rate", 5.0),
        ("rate = 5.0", "rate", 5.0),
        ("max-temp = 70", "max_temp", 70.0),
        ("threads = 2", "threads", 2),
        ("", "rate", None),
        ('\ufeffvideo = "Größe.mp4"', "video", "Größe.mp4"),
        ('store = "a"\r\nrate = 3\r\n', "rate", 3.0),
    ],
)
def test_a_value(text: str, name: str, value: object) -> None:
    assert getattr(parsed(text), name) == value


def test_the_command_line_is_stronger_than_the_environment_than_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "rate = 1\nthreads = 1\nlanes = 1\nkeep = 1"
    monkeypatch.setenv("EDGE_RUN_RATE", "2")
    monkeypatch.setenv("EDGE_RUN_THREADS", "2")
    options = parsed(text, "--rate", 3)
    assert (options.rate, options.threads, options.lanes, options.mqtt_queue) == (3.0, 2, 1, 1000)


def test_the_command_line_replaces_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed("camera = [0, 1]", "--camera", 2).camera == ("2",)
    monkeypatch.setenv("EDGE_RUN_CAMERA", "3 4")
    assert parsed("camera = [0, 1]").camera == ("3", "4")
    assert parsed("track = true", "--no-track").track is False


def test_a_list_in_the_environment_is_words_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUN_SOURCE", "'gst:videotestsrc ! videoconvert' demo")
    assert parsed("").source == ("gst:videotestsrc ! videoconvert", "demo")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("yes", True), ("true", True), ("off", False), ("0", False)])
def test_a_flag_in_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("EDGE_RUN_MOTION_GATE", text)
    assert parsed(f"motion-gate = {str(not value).lower()}").motion_gate is value


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUN_RATE", "")
    assert parsed("rate = 4").rate == 4.0


def test_the_file_itself_can_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.toml").write_text("rate = 7")
    monkeypatch.setenv("EDGE_RUN_CONFIG", "a.toml")
    assert main.make_context("edge-run", []).params["rate"] == 7.0
    assert parsed("rate = 8").rate == 8.0


EXAMPLES_OF_EACH_TYPE = (
    *("1", "0.5", "50", "5%", "22:00-06:30", "640x480", "MJPG", "answer", "all", "budget", "crop", "info"),
    *("0,0,1,1", "a.mp4", "https://h", "mqtts://h", f"sha256:{'0' * 64}"),
)


@pytest.mark.parametrize("key", list(OPTIONS))
def test_every_option_has_a_variable_of_its_name(key: str) -> None:
    option = OPTIONS[key]
    value = next(text for text in EXAMPLES_OF_EACH_TYPE if _takes(option, text))
    settings, hints = read_environment({variable(key): value}, OPTIONS)
    assert list(settings) == [key]
    assert settings[key].origin == f"EDGE_RUN_{key.upper().replace('-', '_')}"
    assert hints == []


def _takes(option: click.Option, text: str) -> bool:
    try:
        option.type.convert(text, None, None)
    except click.BadParameter:
        return False
    return True


def test_every_flag_is_a_key() -> None:
    flags = {max(option.opts, key=len) for option in main.params if isinstance(option, click.Option)}
    assert flags - {f"--{key}" for key in OPTIONS} == {"--version", "--config", "--print-config", "--completion"}
    for option in OPTIONS.values():  # what the module reckons with
        assert option.nargs == 1
        assert not option.count
        assert not option.is_flag or option.is_bool_flag


def test_options_that_do_nothing_are_refused_from_a_file_too(command: Command) -> None:
    Path("edge.toml").write_text('source = "demo"\nrefresh = 5\n')
    line = command(main, "--config", "edge.toml").refused(2)
    assert line == "edge-run: edge.toml:2: refresh does nothing without --motion-gate; give both or neither"


def test_how_an_option_was_given_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("edge.toml").write_text("\nrefresh = 5\nkeep = 3")
    monkeypatch.setenv("EDGE_RUN_SUMMARY", "s.json")
    context = main.make_context("edge-run", ["--config", "edge.toml", "--keep", "4"])
    named = [given_as(context, name) for name in ("refresh", "keep", "summary_path", "offload")]
    assert named == ["edge.toml:2: refresh", "--keep", "EDGE_RUN_SUMMARY: summary", "--offload"]


def test_quiet_and_log_level_are_one_thing_of_which_the_stronger_place_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed("quiet = true", "--log-level", "debug")
    parsed('log-level = "debug"', "--quiet")
    assert style().level == "warning"
    monkeypatch.setenv("EDGE_RUN_QUIET", "1")
    parsed('log-level = "debug"')
    assert style().level == "warning"
    monkeypatch.setenv("EDGE_RUN_QUIET", "0")
    parsed('log-level = "debug"')
    assert style().level == "debug"
    monkeypatch.delenv("EDGE_RUN_QUIET")
    with pytest.raises(UsageError, match="give one of the two"):
        parsed('log-level = "debug"\nquiet = true', "--rate", 1)


def test_asking_for_help_needs_no_good_file(command: Command) -> None:
    Path("edge.toml").write_text("nonsense")
    assert command(main, "--config", "edge.toml", "--help").code == 0
    assert command(main, "--version", "--config", "none.toml").code == 0


# what is refused

OWN_KEY = "; each option is a key of its own"
REFUSED = [
    ("rate = 1\n\n# more\nthresold = 1", "edge.toml:4: thresold: no such option; did you mean threshold?"),
    ("max_temp = 70", "edge.toml:1: max_temp: no such option; did you mean max-temp?"),
    ("Rate = 70", "edge.toml:1: Rate: no such option; did you mean rate?"),
    ("no-spin = true", "edge.toml:1: no-spin: no such option; did you mean spin = false?"),
    ("xyzzy = 1", "edge.toml:1: xyzzy: no such option; edge-run --help lists them"),
    ('config = "b.toml"', "edge.toml:1: config: on the command line only"),
    ("help = true", "edge.toml:1: help: on the command line only"),
    ('\nrate = "fast"', "edge.toml:2: rate: 'fast': expected a number"),
    ("rate = nan", "edge.toml:1: rate: 'nan': expected a number"),
    ("rate = -inf", "edge.toml:1: rate: '-inf': expected a number"),
    ("rate = true", "edge.toml:1: rate: 'true': expected a number"),
    ("rate = [1, 2]", "edge.toml:1: rate: expected one value, got a list"),
    ("rate = 2000", "edge.toml:1: rate: 2000.0 is not in the range 0<=x<=1000"),
    ("threads = 2.5", "edge.toml:1: threads: '2.5': expected a whole number"),
    ('threads = "two"', "edge.toml:1: threads: 'two': expected a whole number"),
    ("threads = true", "edge.toml:1: threads: 'true': expected a whole number"),
    ("threads = 65", "edge.toml:1: threads: 65 is not in the range 1<=x<=64"),
    ("threads = 99999999999999999999", "edge.toml:1: threads: a number of more than 64 bits"),
    ('track = "yes"', 'edge.toml:1: track: expected true or false, got "yes"'),
    ("track = 1", "edge.toml:1: track: expected true or false, got 1"),
    ("events = true", "edge.toml:1: events: expected text, got true"),
    ("model = false", "edge.toml:1: model: expected text, got false"),
    ("camera = true", "edge.toml:1: camera: expected text, got true"),
    ("camera = [0,\n true]", "edge.toml:1: camera: expected text, got true"),
    ("camera = [[0]]", "edge.toml:1: camera: expected text or a number, got a list"),
    ("quiet-hours = 22:00:00", "edge.toml:1: quiet-hours: expected one value, got a date or time; put it in quotes"),
    ('quiet-hours = "late"', "edge.toml:1: quiet-hours: 'late': expected HH:MM-HH:MM, as 22:00-06:30"),
    ('size = "big"', "edge.toml:1: size: 'big': expected WIDTHxHEIGHT as in 1280x720"),
    ('policy = "bugdet"', "edge.toml:1: policy: 'bugdet' is not one of 'threshold', 'budget', 'guarantee'"),
    ('video = "a\\u0000"', "edge.toml:1: video: holds a NUL character, which no option may"),
    ("\n[offload]\nbudget = 1", f"edge.toml:2: [offload]: a table{OWN_KEY}; write offload-budget = ... above all tables"),
    ("[edge-run]\nrate = 1", f"edge.toml:1: [edge-run]: a table{OWN_KEY}; write rate = ... above all tables"),
    ("[[camera]]\nx = 1", f"edge.toml:1: [camera]: a table{OWN_KEY} as in camera = ..."),
    ("offload.budget = 1", f"edge.toml:1: offload: a table{OWN_KEY}; write offload-budget = ... above all tables"),
    ("offload = { url = 1 }", f"edge.toml:1: offload: a table{OWN_KEY} as in offload = ..."),
    ("rate = 1\nkeep = 2\nrate = 2", "edge.toml:3: rate: given twice, first in line 1"),
    ('rate = 1\n"rate" = 2\n= 3', "edge.toml:2: rate: given twice, first in line 1"),
    ("keep = 2\npolicy = budget", "edge.toml:2: not TOML: column 10: Invalid value; text stands in quotes"),
    ("keep = 2\nrate", "edge.toml:2: not TOML: Expected '=' after a key in a key/value pair at its end"),
    ("keep = 2\n\nvideo = 'a", "edge.toml:3: not TOML: Expected \"'\" at its end"),
    ("threads = " + "9" * 5000, "edge.toml:1: not TOML: Exceeds the limit"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), REFUSED, ids=[text[:30] for text, _ in REFUSED])
def test_a_mistake_in_the_file_is_one_line(command: Command, text: str, line: str) -> None:
    Path("edge.toml").write_text(text)
    said = command(main, "--config", "edge.toml", "--source", "demo").refused(2)
    assert said == f"edge-run: {line}" or ("Exceeds" in line and said.startswith(f"edge-run: {line}"))


def test_lists_in_lists_end_somewhere(command: Command) -> None:
    Path("edge.toml").write_text("camera = " + "[" * 5000)  # some versions of the parser have a limit, others recurse
    assert command(main, "--config", "edge.toml").refused(2).startswith("edge-run: edge.toml:1: ")


def test_what_looks_like_a_key_within_a_value_is_none(command: Command) -> None:
    text = '''# rate = 1
summary = """
rate = 2 \\
thresold = """
source = [  # rate = "
    "0,0,1,1",  # ]
    \'\'\'
thresold = ["]\'\'\',
]
store = 'thresold = "'
redact = "a \\" # thresold = "
thresold = 3
'''
    Path("edge.toml").write_text(text)
    line = command(main, "--config", "edge.toml", "--source", "demo").refused(2)
    assert line == "edge-run: edge.toml:12: thresold: no such option; did you mean threshold?"


def test_all_mistakes_are_said_in_the_order_of_lines(command: Command) -> None:
    Path("edge.toml").write_text("track = 1\nrate = 'x'\n[zzz]\na = 1\n")
    done = command(main, "--config", "edge.toml")
    assert done.code == 2
    assert [re.findall(r"edge.toml:(\d)", line) for line in done.err.splitlines()] == [["1"], ["2"], ["3"]]


NO_REGION = "x,y of at least two points, for example 0.1,0.5,0.9,0.5,0.5,1"
WHAT_A_RUN_WOULD_REFUSE = [
    ('camera = "nul"', "camera: nul: expected a number, as 0 for /dev/video0, or a path in /dev"),
    ("camera = 1000", "camera: 1000: expected a number, as 0 for /dev/video0, or a path in /dev"),
    ('source = ""', "source: is empty; give a video, a folder of pictures, camera:0 or demo"),
    ('source = ["demo", "rtsp:///y"]', "source: rtsp:///y: names no host; expected rtsp://HOST/PATH"),
    ('source = "ftp://x/y"', "source: ftp://x/y: ftp:// is not known; there are rtsp, "),
    ('source = "picamera:x"', "source: picamera:x: a camera is named by its number; --source picamera:0 is the first"),
    ('source = "gst: "', "source: gst: names no pipeline; try 'gst:v4l2src ! videoconvert'"),
    ("mask = 3", f"mask: region '3': only 1 number; expected {NO_REGION}"),
    ('roi = ["0,0,1,1", "2:0,0,1,1,1"]', f"roi: region '0,0,1,1,1': 5 numbers and no y for the last x; expected {NO_REGION}"),
    ('mask = "0:0,0,1,1"', "mask: region '0:0,0,1,1': before the colon stands a source's number, from 1"),
    ('score-threshold = "x"', "score-threshold: x: expected a number from 0 to 1, or CLASS=NUMBER"),
    ('score-threshold = [0.5, "person=5"]', "score-threshold: person=5: expected a number from 0 to 1, or CLASS=NUMBER"),
    ('quiet-hours = "22-6"', "quiet-hours: '22-6': expected HH:MM-HH:MM, as 22:00-06:30"),
    ('video = "a.gif"', "video: a.gif: give a name ending in .mp4, .avi, .mkv"),
    ('offload = "htps://h"', "offload: htps://h: expected http://HOST:PORT, grpc://HOST:PORT/NAME or https://HOST/v2/models/NAME"),
    ('offload = "https://me:secret@h"', "offload: a URL with a user, a password, a query or a fragment is not accepted"),
    ('offload-pin = "12"', "offload-pin: expected sha256: and 64 hexadecimal digits"),
    ('webhook = "ftp://x"', "webhook: ftp://x: expected http://HOST:PORT/PATH or https://HOST/PATH"),
    ("web = 99999", "web: 99999: expected PORT or HOST:PORT, as in 8080, 0.0.0.0:8080 or [::1]:8080"),
    ('mqtt = "amqp://broker"', "mqtt: amqp://broker: expected mqtts://HOST[:8883], or mqtt://HOST[:1883] without TLS"),
    ('mqtt = "mqtts://me:secret@h"', "mqtt: a URL with a user or a password is not accepted"),
    ('mqtt-user = ""', "mqtt-user: expected a name of printable characters"),
    ('mqtt-topic = "edge/+/x"', "mqtt-topic: edge/+/x: '+' is a wildcard; expected a topic as edge/porch"),
    ('mqtt-commands = "$SYS"', "mqtt-commands: $SYS: topics that begin with $ are the broker's own"),
    ('home-assistant-prefix = "a//b"', "home-assistant-prefix: a//b: a level is empty"),
    ("mqtt-qos = 3", "mqtt-qos: 3: expected 0, 1 or 2, or TOPIC=N with a TOPIC of availability, "),
    ('mqtt-qos = ["0", "porch=1"]', "mqtt-qos: porch=1: expected 0, 1 or 2, or TOPIC=N"),
]  # fmt: skip


@pytest.mark.parametrize("checked_by", ["--print-config", "--max-frames=1"])
@pytest.mark.parametrize(("text", "line"), WHAT_A_RUN_WOULD_REFUSE, ids=[text for text, _ in WHAT_A_RUN_WOULD_REFUSE])
def test_what_a_run_would_refuse_is_told_with_its_line(command: Command, text: str, line: str, checked_by: str) -> None:
    Path("edge.toml").write_text(f"\n{text}")
    said = command(main, "--config", "edge.toml", checked_by).refused(2)
    assert said.startswith(f"edge-run: edge.toml:2: {line}")
    assert "secret" not in said


TOGETHER = [
    ('camera = 0\nsource = "camera:0"', "edge.toml:2: source camera:0 is given twice; give each source once"),
    (
        'source = ["rtsp://me:secret@h/1", "rtsp://me:secret@h/1"]',
        "edge.toml:1: source rtsp://me:***@h/1 is given twice; give each source once",
    ),
    (
        'source = ["demo", "a.mp4"]\nmask = "3:0,0,1,1"',
        "edge.toml:2: mask 3:0,0,1,1: there is no source '3', they are numbered from 1 to 2",
    ),
    (
        'source = "demo"\nroi = ["0,0,1,1", "1:0,0,1,0.5"]',
        "edge.toml:2: roi is given 2 times for source 1; give it once",
    ),
    ("max-error = 0.1", "edge.toml:1: max-error does nothing without --policy guarantee; give both or neither"),
    (
        'offload = "http://h"\noffload-budget = "5%"',
        "edge.toml:2: offload-budget does nothing without --policy budget; give both or neither",
    ),
    (
        'offload = "http://h"\npolicy = "budget"',
        "edge.toml:2: policy budget needs --offload-budget, as in 5%, 600/h or 20MB/h",
    ),
    (
        'offload = "http://h"\npolicy = "guarantee"\nclasses = "a"',
        "edge.toml:2: policy guarantee: the bundle's promises are for its own answers; leave --classes out",
    ),
    (
        'offload = "http://h"\noffload-send = "tensor"\nspool = "s"',
        "edge.toml:3: spool keeps pictures, which an endpoint asked with --offload-send tensor does not take; leave one out",
    ),
    (
        'offload = "http://h"\noffload-ca = "ca.pem"',
        "edge.toml:2: offload-ca does nothing over http; use https:// or leave it out",
    ),
    (
        f'offload = "grpcs://h:1/m"\noffload-pin = "sha256:{"0" * 64}"',
        "edge.toml:2: offload-pin: gRPC looks at no fingerprint; give --offload-ca, or ask over https://",
    ),
    ('mqtt = "mqtt://h"\n\nmqtt-cert = "a"', "edge.toml:3: mqtt-cert does nothing over mqtt; use mqtts:// or leave it out"),
]


@pytest.mark.parametrize("checked_by", ["--print-config", "--max-frames=1"])
@pytest.mark.parametrize(("text", "line"), TOGETHER, ids=[line for _, line in TOGETHER])
def test_what_does_not_fit_is_told_with_its_line(command: Command, text: str, line: str, checked_by: str) -> None:
    Path("edge.toml").write_text(text)
    assert command(main, "--config", "edge.toml", checked_by).refused(2) == f"edge-run: {line}"


def test_what_fits_is_not_refused(command: Command) -> None:
    text = """
        source = ["demo", "/nowhere/a.mp4", "rtsp://h/1", "gst:videotestsrc", "file:///b.mp4"]
        camera = ["/dev/v4l/by-id/x", 2]
        roi = ["1:0,0,1,1", "2:0,0,1,1"]
        offload = "https://h"
        offload-ca = "/nowhere/ca.pem"
        offload-token-file = "/nowhere/token"
        mqtt = "mqtts://h"
        mqtt-ca = "/nowhere/ca.pem"
        mqtt-qos = [0, "events=1"]
        web = "0.0.0.0:80"
        model = "/nowhere/a.edge"
        classes = "what,ever"
    """
    Path("edge.toml").write_text(text)
    done = command(main, "--config", "edge.toml", "--print-config")
    assert (done.code, done.err) == (0, "")


def test_all_values_of_a_file_are_told_in_one_round(command: Command) -> None:
    Path("edge.toml").write_text('mask = 3\nthresold = 1\nweb = "x"\nkeep = "x"\n')
    done = command(main, "--config", "edge.toml", "--print-config")
    assert [re.findall(r"edge.toml:(\d)", line) for line in done.err.splitlines()] == [["1"], ["2"], ["3"], ["4"]]


def test_what_is_not_installed_is_no_mistake_of_a_file() -> None:
    Path("edge.toml").write_text('offload = "grpcs://h:1/m"\nweb = 8080\nmqtt = "mqtts://h"\nwebhook = "https://h"\n')
    code = "import sys\nsys.modules |= dict.fromkeys(('grpc', 'google', 'paho', 'starlette', 'uvicorn', 'prometheus_client'))\n"
    code += "from edge.commands.run import main\nmain.main(['--config', 'edge.toml', '--print-config'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shell_that_asks_what_could_follow_has_nothing_checked() -> None:
    kind = Checked(pytest.fail)
    assert kind.convert("x", None, click.Context(main, resilient_parsing=True)) == "x"
    with pytest.raises(pytest.fail.Exception):
        kind.convert("x", None, click.Context(main))


def test_on_the_command_line_the_flag_is_named(command: Command) -> None:
    line = command(main, "--source", "demo", "--mask", "3").refused(2)
    assert line == f"edge-run: --mask: region '3': only 1 number; expected {NO_REGION}"
    line = command(main, "--camera", "nul").refused(2)
    assert line == "edge-run: --camera nul: expected a number, as 0 for /dev/video0, or a path in /dev"


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("none.toml", None, "--config none.toml: No such file or directory; give a TOML file"),
        (".", None, "--config .: Is a directory; give a TOML file"),
        ("", None, "--config : No such file or directory; give a TOML file"),
        ("a.toml", b"rate = 1\nvideo = '\xff'", "a.toml:2: not UTF-8; save it as UTF-8"),
        ("a.toml", b"#" * 300_000, "--config a.toml: more than 256 KiB: that is no configuration"),
    ],
)
def test_a_file_that_cannot_be_read(command: Command, name: str, data: bytes | None, line: str) -> None:
    if data is not None:
        Path(name).write_bytes(data)
    assert command(main, "--config", name).refused(2) == f"edge-run: {line}"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("EDGE_RUN_RATE", "fast", "EDGE_RUN_RATE: 'fast': expected a number"),
        ("EDGE_RUN_MODEL", "a\tb", None),
        ("EDGE_RUN_TRACK", "perhaps", 'EDGE_RUN_TRACK: expected true or false, got "perhaps"'),
        ("EDGE_RUN_CAMERA", "'0", 'EDGE_RUN_CAMERA: no closing quotation: "\'0"'),
        ("EDGE_RUN_POLICY", "x", "EDGE_RUN_POLICY: 'x' is not one of 'threshold', 'budget', 'guarantee'"),
        ("EDGE_RUN_CONFIG", "none.toml", "EDGE_RUN_CONFIG none.toml: No such file or directory; give a TOML file"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str | None
) -> None:
    monkeypatch.setenv(name, value)
    done = command(main, "--print-config")
    if line is None:
        assert done.code == 0
    else:
        assert done.refused(2) == f"edge-run: {line}"


def test_an_unknown_variable_is_a_hint(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUN_TRESHOLD", "0.3")
    monkeypatch.setenv("EDGE_RUN_XYZZY", "0.3")
    done = command(main, "--print-config")
    assert done.code == 0
    assert done.err.splitlines() == [
        "edge-run: EDGE_RUN_TRESHOLD is no option of edge-run; did you mean EDGE_RUN_THRESHOLD?",
        "edge-run: EDGE_RUN_XYZZY is no option of edge-run; it is left out",
    ]
    assert command(main, "--print-config", "--log-level", "error").err == ""


def test_an_option_that_a_callback_checks_is_refused_with_its_line(command: Command) -> None:
    def even(context: click.Context, option: click.Parameter, value: int) -> int:
        if value % 2:
            raise click.BadParameter("odd.", context, option)
        return value

    @click.command("edge-run", cls=ConfiguredCommand, context_settings=SETTINGS)
    @click.option("--count", type=int, default=0, callback=even)
    @CONFIG_OPTIONS[0]
    def small(count: int) -> None:
        pass

    Path("edge.toml").write_text("\ncount = 3")
    assert command(small, "--config", "edge.toml").refused(2) == "edge-run: edge.toml:2: count: odd"
    assert "--count" in command(small, "--count", "3").refused(2)
    assert command(small, "--config", "edge.toml", "--count", "4").code == 0


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
VALUES: list[Any] = [
    "1",
    '"x = 1"',
    "'''\nx = 1\n'''",
    '"""\ny = [\n"""',
    "[\n  1, # z = 2\n  '''\n]''',\n]",
    "{ a = 1, b.c = '}' }",
]


@given(
    st.lists(st.tuples(KEYS, st.sampled_from(VALUES), st.sampled_from(["", "\n", "# c = 1\n"])), unique_by=lambda made: made[0])
)
def test_each_key_is_found_in_its_line(made: list[tuple[str, str, str]]) -> None:
    text, expected = "", []
    for key, value, after in made:
        expected.append((key, text.count("\n") + 1))
        text += f"{toml(key)} = {value}\n{after}"
    assert [(found.name, found.line) for found in statements(text)] == expected


@given(st.text("ab=[]{}\"'\\#\n ,.1", max_size=60))
def test_no_text_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text)
    with suppress(Problems):  # nothing else may come
        read_file(str(path), OPTIONS)


@pytest.mark.parametrize(("value", "as_json"), [("1", True), ("TRUE", True), ("0", False), ("", False)])
def test_a_variable_asks_for_json_before_anything_is_parsed(
    command: Command, monkeypatch: pytest.MonkeyPatch, value: str, as_json: bool
) -> None:
    monkeypatch.setenv("EDGE_RUN_LOG_JSON", value)
    done = command(main, "--no-such-option")
    assert done.code == 2
    assert done.err.startswith('{"at":' if as_json else "edge-run: No such option")
    monkeypatch.setenv("EDGE_RUN_RATE", "fast")
    assert command(main).err.startswith('{"at":' if as_json else "edge-run: EDGE_RUN_RATE")


def test_a_variable_that_asks_for_json_in_other_words_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUN_LOG_JSON", "please")
    assert command(main).err == 'edge-run: EDGE_RUN_LOG_JSON: expected true or false, got "please"\n'


def test_asking_for_the_keys_leaves_the_help_option_alone() -> None:
    code = "from edge.commands.config import options_by_key\nfrom edge.commands.run import main\n"
    code += "options_by_key(main)\nmain.main(['-h'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_last_line_is_counted_as_editors_do(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text("# one\u2028still one\x0b\nmodel = 'a")
    with pytest.raises(Problems) as caught:
        read_file(str(path), OPTIONS)
    assert all(f"{path}:" in line and f"{path}:3" not in line for line in caught.value.lines)


def test_the_command_itself_takes_a_file(tmp_path: Path, tiny_edge: Path) -> None:
    (tmp_path / "edge.toml").write_text(f"model = '{tiny_edge}'\nsummary = 's.json'\nevents = '-'\nthreads = 1\nquiet = true\n")
    edge_run = [sys.executable, "-m", "edge.commands.run", "--config", "edge.toml"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "EDGE_RUN_SOURCE": "demo"}
    ran = subprocess.run(
        [*edge_run, "--max-frames", "3"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count('"kind":"frame"') == 3
    assert (tmp_path / "s.json").exists()
