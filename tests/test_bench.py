"""edge-bench: what it measures, how it takes turns, what it makes of a child that dies, and the winner."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devices import EngineChoice, Reading, detect
from edge.bench import child, turn
from edge.bench.measure import Row, Setup, Watch, judge, measure, percentiles
from edge.bench.messages import Judged, Measured, Message, Phase, Request
from edge.bench.plan import Configuration, configurations, thread_counts
from edge.bench.report import Bench, document, table, warnings
from edge.bench.sustained import WINDOW_S, Trend, sustain
from edge.bench.winner import best_of
from edge.bundle import open_bundle
from edge.errors import BundleError, DataError, EngineError
from edge.extras import EXTRAS
from edge.model import load_variant
from tests.samples import encoded, entries_of, picture, with_card, with_expected, with_file, write_entries

BOARD = replace(
    detect(machine="x86_64", cores=4), engines=(EngineChoice("onnx"), EngineChoice("tflite")), threads=3, spin=False
)
A, B = Configuration("a", "onnx", 1), Configuration("b", "onnx", 2)
PASSED = Judged(0.0, 0.1, True)


# what there is to measure


@pytest.mark.parametrize(("most", "counts"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (6, (1, 2, 4, 6))])
def test_thread_counts(most: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(most) == counts


def planned(bundle: Path, *names: str, board: Any = BOARD, threads: Iterable[int] = (1, 2)) -> tuple[list[str], list[str]]:
    said: list[str] = []
    found = configurations(open_bundle(bundle), board, names, list(threads), said.append)
    return [str(of) for of in found], said


def test_every_variant_with_every_number_of_threads(tiny_edge: Path) -> None:
    assert planned(tiny_edge) == (
        [f"{name} on onnx, {threads}" for name in ("float32", "int8-x86") for threads in ("1 thread", "2 threads")],
        [],
    )


def test_named_variants_once_each_in_the_order_given(tiny_edge: Path) -> None:
    found, _ = planned(tiny_edge, "int8-x86", "float32", "int8-x86", threads=[1])
    assert found == ["int8-x86 on onnx, 1 thread", "float32 on onnx, 1 thread"]
    with pytest.raises(BundleError, match="no variant named 'gold'"):
        planned(tiny_edge, "gold")


def test_what_is_not_installed_is_said(tiny_edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_of_tflite(card: dict[str, Any]) -> None:
        card["variants"][0]["engine"] = "tflite"

    both = write_entries(tmp_path / "both.edge", with_card(entries_of(tiny_edge), one_of_tflite))
    monkeypatch.setitem(EXTRAS, "onnx", ("no_such_package",))
    monkeypatch.setitem(EXTRAS, "tflite", ("json",))
    found, said = planned(both, threads=[1])
    assert found == ["float32 on tflite, 1 thread"]
    assert said == ["variant int8-x86 left out: pip install 'edge-run[onnx]' to measure it"]


@pytest.mark.parametrize("names", [(), ("float32",)])
def test_without_any_engine_it_says_which_package_to_install(
    tiny_edge: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setitem(EXTRAS, "onnx", ("no_such_package",))
    with pytest.raises(EngineError, match=r"tiny\.edge: no engine for it is installed; pip install onnxruntime$"):
        planned(tiny_edge, *names)


def test_the_accelerators_of_the_board_come_once_with_its_options(tiny_edge: Path) -> None:
    engines = (
        EngineChoice("onnx", "tensorrt", (("trt_fp16_enable", "1"),)),
        EngineChoice("onnx", "cuda"),
        EngineChoice("tflite", "edgetpu"),
    )
    said: list[str] = []
    found = configurations(open_bundle(tiny_edge), replace(BOARD, engines=engines), ["float32"], [1, 2], said.append)
    assert [str(of) for of in found] == [
        "float32 on onnx+tensorrt, 3 threads",
        "float32 on onnx+cuda, 3 threads",
        "float32 on onnx, 1 thread",
        "float32 on onnx, 2 threads",
    ]
    assert found[0].options == (("trt_fp16_enable", "1"),)


@pytest.mark.parametrize("listed", [True, False])
def test_what_is_compiled_for_the_edge_tpu_runs_there_only(tiny_edge: Path, tmp_path: Path, listed: bool) -> None:
    def as_tflite(card: dict[str, Any]) -> None:
        card["variants"][0]["engine"] = "tflite"

    entries = with_card(with_file(entries_of(tiny_edge), "float32.onnx", b"x edgetpu-custom-op x"), as_tflite)
    bundle = write_entries(tmp_path / "x.edge", entries)
    engines = (EngineChoice("tflite", "edgetpu"),) if listed else ()
    assert planned(bundle, "float32", board=replace(BOARD, engines=engines))[0] == ["float32 on tflite+edgetpu, 3 threads"]


# a child, as its parent sees it


def request(do: str = "measure", bundle: str = "x", variant: str = "float32", **more: Any) -> Request:
    fields = {"accelerator": "cpu", "options": (), "threads": 1, "spin": False, "seconds": 0.01}
    return Request(do=do, bundle=bundle, variant=variant, **(fields | more))  # type: ignore[arg-type]


def script(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]


def heard(code: str, **more: Any) -> list[Message]:
    with closing(turn.talk(request(), script(code), **more)) as messages:
        return [message for message in messages if message is not None]


SAYS = """print('{"type": "phase", "name": "warming"}', flush=True)\n"""


def test_what_a_child_says() -> None:
    assert heard(f"sys.stdin.readline()\n{SAYS}{SAYS}") == [Phase("warming")] * 2


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("os.kill(os.getpid(), signal.SIGILL)", "illegal instruction (SIGILL)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory runs out"),
        ("print('bad_alloc', file=sys.stderr, flush=True); os.abort()", "died of SIGABRT: bad_alloc"),
        ("sys.exit('what it\\nended with')", "ended with exit code 1: ended with"),
        ("os._exit(3)", "ended with exit code 3"),
        ("""print('{"type": "refused", "line": "no such luck"}')""", "no such luck"),
    ],
)
def test_what_the_end_of_a_child_means(code: str, part: str) -> None:
    with pytest.raises(EngineError) as error:
        heard(f"{SAYS}{code}")
    assert part in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_child_that_hangs_is_given_up_and_killed() -> None:
    started_s = time.monotonic()
    with pytest.raises(EngineError, match="no sign of life"):
        heard(f"{SAYS}time.sleep(60)", silence_s=0.3)
    assert time.monotonic() - started_s < 10


def test_a_child_ends_when_nobody_listens_any_more(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    messages = turn.talk(request(), script(f"open({str(mark)!r}, 'w').write(str(os.getpid()))\n{SAYS}time.sleep(60)"))
    while next(messages) is None:
        pass
    pid = int(mark.read_text())
    assert lives(pid)
    messages.close()
    assert not lives(pid)


PARENT = """
import os, subprocess, sys
command = [*sys.argv[2:], str(os.getpid())]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
child.stdin.write(sys.argv[1].encode() + b"\\n")
child.stdin.flush()
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_child_dies_with_its_parent(tiny_edge: Path) -> None:
    given = msgspec.json.encode(request("sustain", str(tiny_edge))).decode()
    command = [sys.executable, "-c", PARENT, given, *turn.COMMAND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    assert ended(pid)


def ended(pid: int) -> bool:
    """Whether that process ends, within ten seconds."""
    until_s = time.monotonic() + 10
    while lives(pid) and time.monotonic() < until_s:
        time.sleep(0.05)
    return not lives(pid)


def lives(pid: int) -> bool:
    """Whether that process runs; one that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# a child, from within


def served(asked: Request) -> list[Message]:
    sent: list[Message] = []
    child.serve(asked, sent.append)
    return sent


def test_measuring(tiny_edge: Path) -> None:
    sent = served(request("measure", str(tiny_edge)))
    assert [one.name for one in sent[:-1] if isinstance(one, Phase)] == ["opening", "warming", "measuring"]
    found = sent[-1]
    assert isinstance(found, Measured)
    assert len(found.engine_ms) == len(found.frame_ms) >= child.LEAST_FRAMES
    assert all(0 < engine < frame for engine, frame in zip(found.engine_ms, found.frame_ms, strict=True))
    assert sum(found.frame_ms) / 1e3 <= found.wall_s
    assert found.memory_mb > 20


def test_judging_by_the_golden_check(tiny_edge: Path, tmp_path: Path) -> None:
    assert served(request("judge", str(tiny_edge)))[-1] == Judged(0.0, open_bundle(tiny_edge).card.variants[0].tolerance, True)
    entries = entries_of(tiny_edge)
    bad = write_entries(tmp_path / "x.edge", with_expected(entries, {"float32": [[99] * 10], "int8-x86": [[99] * 10]}))
    with pytest.raises(BundleError, match="disagrees with its golden check"):
        served(request("judge", str(bad)))


def test_judging_on_pictures(tiny_edge: Path, tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / f"c{number}"
        folder.mkdir()
        (folder / "a.png").write_bytes(encoded(picture(40, 40, seed=number), ".png"))
    found = served(request("judge", str(tiny_edge), data=str(tmp_path), limit=2))[-1]
    assert isinstance(found, Judged)
    assert found.images == 2
    assert found.figure in (0.0, 0.5, 1.0)
    with pytest.raises(DataError):
        served(request("judge", str(tiny_edge), data=str(tmp_path / "none")))


def test_warming_up_ends_when_it_is_steady(tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(tiny_edge)
    model = load_variant(bundle, bundle.card.variants[0], child.EngineOptions())
    times = iter([100.0, 80, 60, 40, 20, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    monkeypatch.setattr(child, "one_frame", lambda model, frame: (1.0, next(times)))
    assert child.warm_up(model, child.demo_frames(), 60.0) == 13  # the median of 8 to 12 is that of 3 to 7
    times = iter(range(1, 1000))
    assert child.warm_up(model, child.demo_frames(), 0.0) == 1


def test_the_process_itself_says_why_it_cannot(tiny_edge: Path) -> None:
    with pytest.raises(EngineError, match="no variant named 'gold'"):
        list(turn.talk(request("measure", str(tiny_edge), "gold")))


# turns


@dataclass
class Sensors:
    """Readings one after the other; the last one stays."""

    readings: list[Reading] = field(default_factory=lambda: [Reading()])

    def read(self) -> Reading:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


@dataclass
class Children:
    """Answers by variant, a Message, an exception or a list of them; `asked` are the requests."""

    answers: dict[str, Any]
    asked: list[Request] = field(default_factory=list)

    def __call__(self, asked: Request) -> Generator[Message | None, None, None]:
        self.asked.append(asked)
        answer = self.answers[asked.variant]
        for one in answer if isinstance(answer, list) else [answer]:
            if isinstance(one, Exception):
                raise one
            yield one

    @property
    def order(self) -> str:
        return "".join(one.variant for one in self.asked)


def setup(children: Children, seconds: float = 3.0) -> Setup:
    return Setup("x.edge", False, seconds, 3, children)


def took(ms: float, frames: int = 10) -> Measured:
    return Measured([ms] * frames, [ms + 1] * frames, ms * frames / 1e3, 0.5, 50.0)


def quiet(line: str) -> None:
    pass


def test_each_variant_is_judged_once_whatever_its_threads() -> None:
    children = Children({"a": PASSED, "b": [Phase("opening"), Judged(0.05, 0.1)]})
    told: list[str] = []
    rows = judge(setup(children), [A, replace(A, threads=2), B, replace(A, accelerator="cuda")], quiet, told.append)
    assert children.order == "aba"
    assert told == ["checking a on onnx", "checking b on onnx", "checking a on onnx+cuda"]
    assert [(str(row.configuration), row.judged.difference) for row in rows] == [
        ("a on onnx, 1 thread", 0.0),
        ("a on onnx, 2 threads", 0.0),
        ("b on onnx, 2 threads", 0.05),
        ("a on onnx+cuda, 1 thread", 0.0),
    ]


def test_one_that_fails_its_check_or_dies_is_named_and_left_out() -> None:
    children = Children(
        {"a": [Phase("opening"), EngineError("died of an illegal instruction")], "b": PASSED, "c": Phase("opening")}
    )
    said: list[str] = []
    rows = judge(setup(children), [A, replace(A, threads=2), B, Configuration("c", "tflite", 1)], said.append, quiet)
    assert [row.configuration for row in rows] == [B]
    assert said == [
        "a on onnx left out: died of an illegal instruction",
        "c on tflite left out: its process ended without an answer",
    ]


def test_configurations_take_turns() -> None:
    children = Children({"a": took(2.0), "b": took(3.0)})
    told: list[str] = []
    rows = measure(setup(children), [Row(A, PASSED), Row(B, PASSED)], Watch(Sensors()), quiet, told.append)
    assert children.order == "ababab"
    assert {one.seconds for one in children.asked} == {1.0}
    assert [len(row.frame_ms) for row in rows] == [3, 3]
    assert rows[0].engine == (2.0, 2.0, 2.0)
    assert rows[1].frame == (4.0, 4.0, 4.0)
    assert rows[0].energy_mj is None
    assert told[0] == "round 1 of 3: a on onnx, 1 thread; about 0:24 left"
    assert told[-1] == "round 3 of 3: b on onnx, 2 threads; about 0:00 left"


def test_one_that_dies_while_it_is_measured_is_left_out() -> None:
    children = Children({"a": EngineError("was killed"), "b": took(3.0)})
    said: list[str] = []
    rows = measure(setup(children), [Row(A, PASSED), Row(B, PASSED)], Watch(Sensors()), said.append, quiet)
    assert [row.configuration for row in rows] == [B]
    assert said == ["a on onnx, 1 thread left out: was killed"]
    assert children.order == "abbb"


def test_percentiles_are_the_median_of_medians_and_of_all() -> None:
    p50, p95, p99 = percentiles([[1.0] * 50, [2.0] * 50, [9.0] * 10])
    assert (p50, p95) == (2.0, 9.0)
    assert p99 == 9.0


def test_energy_is_of_the_measuring_alone_beyond_the_idle_board() -> None:
    answer: list[Message | None] = [Phase("opening"), None, Phase("measuring"), None, None, took(10.0, frames=100)]
    watts = [2.0, 2.0, 2.0, 2.0]  # Watch's first look and three of rest
    seen = [*watts, 9.0, 9.0, 9.0, 3.0, 5.0, 7.0]
    watch = Watch(Sensors([Reading(watts=value) for value in seen]))
    watch.rest(0.75, sleep=lambda seconds: None)
    assert watch.idle_watts == 2.0
    row = Row(A, PASSED)
    measure(replace(setup(Children({"a": answer})), rounds=1), [row], watch, quiet, quiet)
    assert row.energy_mj == pytest.approx((4.0 - 2.0) * 1.0 / 100 * 1e3)  # 1 s, 100 frames


def test_a_board_without_a_power_sensor_rests_for_a_moment_only() -> None:
    slept: list[float] = []
    watch = Watch(Sensors())
    watch.rest(sleep=slept.append)
    assert watch.idle_watts is None
    assert len(slept) == 2


def test_an_energy_counter_says_nothing_at_first() -> None:
    watch = Watch(Sensors([Reading(), Reading(), Reading(watts=4.0)]))
    watch.rest(1.0, sleep=lambda seconds: None)
    assert watch.idle_watts == 4.0


# the winner


def row(variant: str, threads: int, ms: float, figure: float | None = None, images: int = 0) -> Row:
    return Row(Configuration(variant, "onnx", threads), Judged(0.0, 0.1, True, figure, images), [[ms]], [[ms]])


@pytest.mark.parametrize(
    ("rows", "figures", "winner"),
    [
        ([row("a", 1, 9.0), row("b", 2, 5.0)], {}, ("b", 2)),
        ([row("a", 1, 5.2), row("a", 2, 5.0)], {}, ("a", 1)),
        ([row("a", 1, 5.3), row("a", 2, 5.0)], {}, ("a", 2)),
        ([row("a", 2, 5.1), row("b", 2, 5.0)], {}, ("b", 2)),
        ([row("a", 1, 5.0), row("b", 1, 9.0)], {"a": 0.70, "b": 0.72}, ("b", 1)),
        ([row("a", 1, 5.0), row("b", 1, 9.0)], {"a": 0.71, "b": 0.72}, ("a", 1)),
        ([row("a", 1, 5.0), row("b", 1, 9.0)], {"a": None, "b": 0.72}, ("a", 1)),
        ([row("a", 1, 5.0, 0.8), row("b", 1, 9.0, 0.5)], {"a": 0.1, "b": 0.9}, ("a", 1)),
        ([row("a", 1, 5.0, 0.0), row("b", 1, 9.0, 0.5)], {}, ("b", 1)),
        ([row("a", 1, 5.0, 0.70, 40), row("b", 1, 9.0, 0.75, 40)], {}, ("a", 1)),
        ([row("a", 1, 5.0, 0.70, 400), row("b", 1, 9.0, 0.75, 400)], {}, ("b", 1)),
    ],
)
def test_the_winner(rows: list[Row], figures: dict[str, float | None], winner: tuple[str, int]) -> None:
    found = best_of(rows, figures).configuration
    assert (found.variant, found.threads) == winner


# sustained


def test_a_slope_is_known_when_the_window_is_full() -> None:
    trend = Trend()
    for second in range(int(WINDOW_S) + 1):
        if second < 0.9 * WINDOW_S:
            assert trend.slope_c_min is None
        trend.add(float(second), 50 + second / 60)
    assert trend.slope_c_min == pytest.approx(1.0)
    for second in range(int(WINDOW_S), int(3 * WINDOW_S)):
        trend.add(float(second), 60.0)
    assert trend.slope_c_min == pytest.approx(0.0)


def heating(limit_c: float | None, of_s: float = 120.0) -> tuple[Setup, Watch, Callable[[], float]]:
    """A board that warms from 40 °C to `limit_c`, and slows from 5 to 8 ms above 60 °C; a slice a second."""
    now_s = [0.0]

    def temperature() -> float | None:
        return None if limit_c is None else limit_c - (limit_c - 40) * 2 ** (-now_s[0] / of_s)

    class Warming:
        def read(self) -> Reading:
            return Reading(temperature_c=temperature(), zone="cpu")

    def talk(asked: Request) -> Iterator[Message | None]:
        yield Phase("measuring")
        while True:
            now_s[0] += 1.0
            yield took(7.0 if (temperature() or 0) > 60 else 4.0)

    return Setup("x", False, 1.0, 3, talk), Watch(Warming()), lambda: now_s[0]  # type: ignore[arg-type]


def test_it_runs_until_the_temperature_settles() -> None:
    made, watch, clock = heating(70.0)
    found = sustain(made, A, watch, 3600, quiet, clock)
    assert found.settled is True
    assert found.slope_c_min is not None
    assert abs(found.slope_c_min) < 0.2
    assert (found.first_p50_ms, found.p50_ms) == (5.0, 8.0)
    assert found.temperature_c == found.hottest_c == pytest.approx(70.0, abs=1.0)
    assert 600 < found.seconds < 1200


def test_it_ends_when_the_time_is_up() -> None:
    made, watch, clock = heating(70.0, of_s=1000)
    found = sustain(made, A, watch, 300, quiet, clock)
    assert (found.settled, found.seconds) == (False, 300.0)


def test_without_a_temperature_it_runs_for_all_of_the_time() -> None:
    made, watch, clock = heating(None)
    told: list[str] = []
    found = sustain(made, A, watch, 300, told.append, clock)
    assert (found.settled, found.temperature_c, found.seconds) == (None, None, 300.0)
    assert "no temperature sensor" in told[0]


def test_a_child_that_dies_before_the_first_slice() -> None:
    with pytest.raises(EngineError, match="ended without an answer"):
        sustain(setup(Children({"a": Phase("opening")})), A, Watch(Sensors()), 10, quiet)


# the report


def bench(tiny_edge: Path, *readings: Reading, **more: Any) -> Bench:
    rows = [row("float32", 1, 9.0), row("int8-x86", 2, 5.0)]
    for one in rows:
        one.load_s.append(0.5)
    watch = Watch(Sensors(list(readings) or [Reading()]))
    watch.look()
    given = {"left_out": ["x left out: died"], "rounds": 3, "seconds": 6.0, "winner": rows[1]} | more
    return Bench(board=BOARD, processor="a CPU", bundle=open_bundle(tiny_edge), watch=watch, rows=rows, **given)


def test_the_table_has_the_fastest_first_and_says_what_is_not_known(tiny_edge: Path) -> None:
    lines = list(table(bench(tiny_edge, Reading(governor="performance", mhz=1500.0, temperature_c=51.5, zone="cpu-thermal"))))
    assert lines[0] == f"tiny on {BOARD.title} ({BOARD.name}): a CPU"
    assert lines[2] == "at the begin governor performance, 1500 MHz, 51.5 °C (cpu-thermal)"
    assert [line.split()[0] for line in lines[7:9]] == ["int8-x86", "float32"]
    assert lines[7].split()[-2:] == ["same", "-"]
    assert lines[-1] == "fastest: int8-x86 on onnx, 2 threads, 5.00 ms a frame"
    assert "governor unknown, MHz unknown, temperature unknown" in list(table(bench(tiny_edge)))[2]


@pytest.mark.parametrize(
    ("begin", "end", "part"),
    [
        (Reading(governor="powersave"), Reading(governor="powersave"), "the governor powersave"),
        (Reading(governor="performance"), Reading(governor="ondemand"), "the governor ondemand"),
        (Reading(), Reading(throttled=frozenset({"throttled"})), "slowed down meanwhile (throttled)"),
        (Reading(), Reading(throttled_since_boot=frozenset({"frequency-capped"})), "slowed down meanwhile (frequency-capped)"),
        (Reading(), Reading(throttled=frozenset({"under-voltage"})), "under-voltage meanwhile: use a stronger power supply"),
        (Reading(load=0.9), Reading(load=2.0), "was busy before the bench (load 0.90"),
    ],
)
def test_what_makes_the_figures_doubtful(tiny_edge: Path, begin: Reading, end: Reading, part: str) -> None:
    found = list(warnings(bench(tiny_edge, begin, end)))
    assert len(found) == 1
    assert part in found[0]


def test_rounds_that_differ_are_no_measurement(tiny_edge: Path) -> None:
    made = bench(tiny_edge)
    made.winner.frame_ms.append([6.0])
    assert list(warnings(made)) == []
    made.winner.frame_ms.append([7.0])
    assert "from 5.0 to 7.0 ms a frame: something else was running" in next(warnings(made))


def test_what_was_so_before_is_no_warning(tiny_edge: Path) -> None:
    before = Reading(governor="performance", throttled_since_boot=frozenset({"throttled"}), load=0.1)
    assert list(warnings(bench(tiny_edge, before, replace(before, load=2.0)))) == []


def test_json_says_the_same(tiny_edge: Path) -> None:
    made, watch, clock = heating(70.0)
    found = document(bench(tiny_edge, sustained=sustain(made, A, watch, 300, quiet, clock)), {"float32": 0.5})
    again = msgspec.json.decode(msgspec.json.encode(found))
    assert again == found
    assert [(one["variant"], one["threads"], one["frame_ms"]["p50"]) for one in found["configurations"]] == [
        ("int8-x86", 2, 5.0),
        ("float32", 1, 9.0),
    ]
    assert found["winner"] == found["configurations"][0]
    assert found["configurations"][1]["build_accuracy"] == 0.5
    assert found["left_out"] == ["x left out: died"]
    assert found["sustained"]["settled"] is False
    assert (found["board"], found["processor"], found["begin"]["temperature_c"]) == (BOARD.name, "a CPU", None)
