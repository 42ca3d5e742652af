"""edge-bench, end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from devices import Reading, detect
from edge.bench import turn
from edge.bench.child import serve
from edge.bench.messages import Message, Request
from edge.bench.plan import Configuration
from edge.bundle import open_bundle
from edge.choice import remembered
from edge.commands.bench import _by_hand, main
from edge.extras import EXTRAS
from edge.packaged import DEFAULT_BUNDLE
from tests.conftest import Finished
from tests.samples import encoded, entries_of, picture, with_expected, with_file, write_entries
from tests.test_bench import ended

Command = Callable[..., Finished]
ARGUMENTS = ("--seconds", 0.1, "--threads", 1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("edge.commands.bench.ROUNDS", 1)
    monkeypatch.setattr("edge.commands.bench.Sensors", lambda board: NoSensors())
    return tmp_path / "cache" / "edge-run" / "choices.json"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process do what a child does: what is told of here is not what becomes of children."""

    def talk(request: Request) -> Generator[Message | None, None, None]:
        sent: list[Message] = []
        serve(request, sent.append)
        yield from sent

    monkeypatch.setattr("edge.commands.bench.talk", talk)


class NoSensors:
    def read(self) -> Reading:
        return Reading()


@pytest.fixture
def bench(command: Command, tiny_edge: Path) -> Command:
    return lambda *arguments: command(main, "--model", tiny_edge, *ARGUMENTS, *arguments)


@pytest.mark.usefixtures("here")
def test_it_measures_and_keeps_the_fastest(bench: Command, tiny_edge: Path, tmp_path: Path, cache: Path) -> None:
    done = bench("--json", tmp_path / "bench.json")
    assert done.code == 0
    assert done.err == f"edge-bench: kept for edge-run in {cache}\n"
    lines = done.out.splitlines()
    assert sorted(line.split()[0] for line in lines[7:9]) == ["float32", "int8-x86"]
    assert lines[-1].startswith("fastest: ")
    found = json.loads((tmp_path / "bench.json").read_text())
    kept = remembered(detect(), open_bundle(tiny_edge), print)
    assert kept is not None
    assert (kept.variant, kept.threads) == (found["winner"]["variant"], 1)
    assert kept.frame_ms == found["winner"]["frame_ms"]["p50"]


@pytest.mark.usefixtures("here")
def test_no_save_keeps_nothing(bench: Command, cache: Path) -> None:
    done = bench("--no-save", "--json", "-", "--variant", "float32")
    assert (done.code, done.err) == (0, "")
    assert [one["variant"] for one in json.loads(done.out)["configurations"]] == ["float32"]
    assert not cache.exists()


@pytest.mark.usefixtures("here")
def test_the_fastest_of_some_is_not_kept(bench: Command, cache: Path) -> None:
    done = bench("--variant", "float32")
    assert done.code == 0
    assert done.err == "edge-bench: not kept for edge-run: int8-x86 may be faster; measure without --variant for that\n"
    assert not cache.exists()


@pytest.mark.usefixtures("here")
def test_another_cache(bench: Command, cache: Path, tmp_path: Path) -> None:
    assert bench("--cache", tmp_path / "new" / "here.json").code == 0
    assert (tmp_path / "new" / "here.json").exists()
    assert not cache.exists()


@pytest.mark.usefixtures("here")
def test_a_home_that_cannot_be_written_breaks_nothing(
    bench: Command, tiny_edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = bench()
    assert done.code == 0
    assert "fastest: " in done.out
    assert done.err.count("\n") == 1
    assert done.err.startswith("edge-bench: not kept for edge-run: ")
    winner = done.out.splitlines()[-1].split()[1]
    assert f"; give --cache FILE, or edge-run --model {tiny_edge} --variant {winner} --threads 1\n" in done.err


@pytest.mark.usefixtures("here")
def test_accuracy_on_pictures(bench: Command, tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / "data" / f"c{number}"
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(encoded(picture(40, 40, seed=number), ".png"))
    done = bench("--variant", "float32", "--data", tmp_path / "data", "--limit", 3, "--no-save", "--json", tmp_path / "b.json")
    assert done.code == 0
    found = json.loads((tmp_path / "b.json").read_text())["winner"]
    assert found["images"] == 3
    assert f"{found['accuracy']:.2%}" in done.out


@pytest.mark.usefixtures("here")
def test_what_disagrees_is_named_and_the_rest_measured(command: Command, tiny_edge: Path, tmp_path: Path) -> None:
    entries = entries_of(tiny_edge)
    bundle = write_entries(tmp_path / "x.edge", with_file(entries, "int8-x86.onnx", b"no model"))
    done = command(main, "--model", bundle, *ARGUMENTS, "--no-save")
    assert done.code == 0
    assert done.err.count("\n") == 1
    assert "int8-x86 on onnx left out: ONNX Runtime" in done.err
    assert "fastest: float32" in done.out
    wrong = with_expected(entries, {"float32": [[99] * 10], "int8-x86": [[99] * 10]})
    none = command(main, "--model", write_entries(tmp_path / "y.edge", wrong), *ARGUMENTS)
    assert (none.code, none.out) == (1, "")
    assert "nothing can be measured here; float32 on onnx left out" in none.err.splitlines()[-1]


def test_children_that_die_do_not_end_the_bench(bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    illegal = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})"]
    monkeypatch.setattr("edge.commands.bench.talk", lambda request: turn.talk(request, illegal))
    done = bench()
    assert (done.code, done.out) == (1, "")
    assert "float32 on onnx left out: died of an illegal instruction" in done.err.splitlines()[0]
    assert "int8-x86 on onnx left out: died of an illegal instruction" in done.err.splitlines()[1]


def test_sustained_in_processes_of_their_own(bench: Command) -> None:
    done = bench("--variant", "float32", "--no-save", "--sustained", "--sustained-minutes", 0.01)
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("sustained: ")
    assert done.out.splitlines()[-1].endswith("no temperature sensor, not known to have settled")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--threads", "0"], "expected numbers from 1 to 64"),
        (["--threads", "1,"], "expected numbers from 1 to 64"),
        (["--threads", "²"], "expected numbers from 1 to 64"),
        (["--seconds", "nan"], "--seconds"),
        (["--seconds", "0"], "--seconds"),
        (["--variant", "gold"], "no variant named 'gold'"),
        (["--model", "nothing.edge"], "no such bundle"),
        (["--data", "nothing"], "nothing: no such folder"),
        (["--limit", "3"], "--limit does nothing without --data"),
        (["--cache", "x", "--no-save"], "--cache does nothing with --no-save"),
        (["--sustained-minutes", "3"], "--sustained-minutes does nothing without --sustained"),
    ],
)
def test_what_cannot_be_is_one_line(bench: Command, arguments: list[str], part: str) -> None:
    assert part in bench(*arguments).refused(2)


def test_data_for_a_task_without_figures(command: Command, tiny_pose: Path, tmp_path: Path) -> None:
    assert "--data: accuracy is measured for" in command(main, "--model", tiny_pose, "--data", tmp_path).refused(2)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("fixture", ["tiny_detector", "tiny_pose", "tiny_segmenter"])
def test_every_task_is_measured(command: Command, fixture: str, request: pytest.FixtureRequest) -> None:
    done = command(main, "--model", request.getfixturevalue(fixture), *ARGUMENTS, "--no-save")
    assert done.code == 0, done
    assert done.out.splitlines()[7].split()[-2:] == ["-", "-"]


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where anything is measured."""

    def talk(request: Request) -> Generator[Message | None, None, None]:
        raise AssertionError("measured")
        yield

    monkeypatch.setattr("edge.commands.bench.talk", talk)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("option", "where", "part"),
    [
        ("--json", "none/x.json", "none: no such folder; make it, or choose another path"),
        ("--json", ".", "it is a folder; name a file in it"),
        ("--json", "file/x.json", "file: no such folder"),
        ("--json", "n" * 250, "a name is longer than 240 bytes"),
        ("--cache", "file/x.json", "file: Not a directory; choose another path"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_bench(
    bench: Command, tmp_path: Path, option: str, where: str, part: str
) -> None:
    (tmp_path / "file").write_text("")
    line = bench(option, tmp_path / where).refused(2)
    assert line.startswith(f"edge-bench: {option} {tmp_path / where}: cannot be written there: ")
    assert part in line


@pytest.mark.usefixtures("here")
def test_json_to_a_device_and_over_a_file(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    for place in ("/dev/null", tmp_path / "old.json"):
        assert bench("--variant", "float32", "--no-save", "--json", place).code == 0
    assert json.loads((tmp_path / "old.json").read_text())["winner"]["variant"] == "float32"


def test_an_accelerator_is_no_option_of_edge_run(tiny_edge: Path) -> None:
    bundle = open_bundle(tiny_edge)
    of = Configuration("float32", "onnx", 2)
    told = _by_hand(bundle, of)
    assert told == f", or edge-run --model {tiny_edge} --variant float32 --threads 2"
    assert _by_hand(open_bundle(DEFAULT_BUNDLE), of) == ", or edge-run --variant float32 --threads 2"
    assert _by_hand(bundle, Configuration("float32", "onnx", 2, "cuda")) == ""


def test_without_an_engine_it_is_one_line(bench: Command, tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "onnx", ("no_such_package",))
    assert bench().refused(1) == f"edge-bench: {tiny_edge}: no engine for it is installed; pip install onnxruntime"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tiny_edge: Path, tmp_path: Path, number: signal.Signals) -> None:
    environment: dict[str, Any] = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "edge.commands.bench", "--model", str(tiny_edge), "--seconds", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text().split():
            pass
        pid = int(children.read_text().split()[0])
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (130, "", "edge-bench: interrupted")
    assert ended(pid)
