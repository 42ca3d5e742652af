"""Child processes that die, and the table of what is known not to work."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from devices import Board, detect
from edge.choice import Choice
from edge.doctor.engines import Attempt, EngineFacts, attempts_of, bundle_check, deadly, engine_check
from edge.doctor.known_bad import KNOWN_BAD, LAST_WORDS, Here, known_bad, last_words, version_of
from edge.doctor.packages import installed_versions, packages_check
from edge.doctor.probe import Probe, ending, probe


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return detect(tmp_path, "x86_64", 2)


def here(machine: str = "aarch64", python: tuple[int, ...] = (3, 11, 2), features: str = "asimd", **versions: str) -> Here:
    return Here(machine, python, frozenset(features.split()), {name.replace("_", "-"): text for name, text in versions.items()})


@pytest.mark.parametrize(
    ("package", "place", "said"),
    [
        ("onnxruntime", here(onnxruntime="1.21.0"), "illegal instruction"),
        ("onnxruntime", here(onnxruntime="1.21.1"), "illegal instruction"),
        ("onnxruntime", here(onnxruntime="1.20.1"), ""),
        ("onnxruntime", here(onnxruntime="1.22.0"), ""),
        ("onnxruntime", here(onnxruntime="1.21.0", features="asimd atomics asimddp"), ""),
        ("onnxruntime", here("x86_64", onnxruntime="1.21.0"), ""),
        ("onnxruntime", here("armv7l"), "32-bit ARM"),
        ("onnxruntime", here(python=(3, 10, 12)), "JetPack 6"),
        ("onnxruntime", here(python=(3, 10, 12), onnxruntime="1.23.2"), ""),
        ("onnxruntime", here(python=(3, 11, 0)), ""),
        ("onnxruntime-gpu", here(), "no official wheels for ARM"),
        ("onnxruntime-gpu", here("x86_64"), ""),
        ("onnxruntime-gpu", here(onnxruntime_gpu="1.23.0", numpy="2.0.0"), "NumPy 1"),
        ("onnxruntime-gpu", here(onnxruntime_gpu="1.23.0", numpy="1.26.4"), ""),
        ("onnxruntime-gpu", here("x86_64", onnxruntime_gpu="1.23.0", onnxruntime="1.23.0"), "loses the GPU"),
        ("ai-edge-litert", here("armv7l"), "32-bit ARM"),
        ("ai-edge-litert", here(), ""),
        ("tflite-runtime", here("armv7l", tflite_runtime="2.14.0", numpy="2.2.1"), "NumPy 2"),
        ("tflite-runtime", here("armv7l", tflite_runtime="2.14.0", numpy="1.26.4"), ""),
        ("tflite-runtime", here("armv7l", python=(3, 13, 1)), "Python 3.12"),
        ("opencv-python", here(opencv_python="4.11.0", opencv_python_headless="4.11.0"), "overwrites"),
        ("opencv-python", here(opencv_python="4.11.0"), ""),
    ],
)
def test_what_is_known(package: str, place: Here, said: str) -> None:
    rows = known_bad(package, place)
    assert bool(rows) == bool(said)
    assert not said or said in rows[0].problem


def test_the_tables_name_their_sources_and_what_mends() -> None:
    page = (Path(__file__).parents[1] / "docs/doctor.md").read_text()
    for row in (*KNOWN_BAD, *LAST_WORDS):
        assert row.source.partition("#")[0] in page
        assert f"| {row.problem} |" in page
        assert row.source.startswith("https://")
        assert row.mend
        assert row.problem


@pytest.mark.parametrize(("text", "version"), [("1.26.4rc1", (1, 26, 4)), ("2.14.0.post1", (2, 14, 0)), ("", ()), ("dev", ())])
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


def test_last_words() -> None:
    known = last_words("x.so: ELF load command address/offset not page-aligned")
    assert known is not None
    assert "kernel8.img" in known.mend
    assert last_words("all is well") is None


def test_a_child_process_that_dies_is_named(board: Board) -> None:
    told = probe(("crash", str(int(signal.SIGILL))))
    assert told.steps == ({"step": "load"},)
    assert ending(told) == "dies of SIGILL (illegal instruction)"
    packaged = Probe(({"step": "packaged"}, *told.steps), told.code, told.output)
    check = engine_check(EngineFacts("onnx", "onnxruntime", packaged), here("x86_64", onnxruntime="9.9"), board, ())
    assert check.status == "fail"
    assert check.text == "onnxruntime 9.9 dies of SIGILL (illegal instruction) while it is loaded"
    assert check.mend


def test_a_child_process_that_hangs_is_ended() -> None:
    told = probe(("crash", str(int(signal.SIGSTOP))), timeout_s=0.5)
    assert told.code is None
    assert ending(told).startswith("does not come to an end")


def test_a_child_process_that_raises_says_why() -> None:
    told = probe(("engine", "onnx", "no_such_module", "x.edge", "x86_64", "1"))
    assert told.code == 1
    assert ending(told) == "fails: ModuleNotFoundError: No module named 'no_such_module'"


def test_an_engine_that_runs_is_told_of(tiny_edge: Path, board: Board) -> None:
    told = probe(("engine", "onnx", "onnxruntime", str(tiny_edge), "x86_64", "1"))
    facts = EngineFacts("onnx", "onnxruntime", told)
    assert attempts_of(facts) == [Attempt("int8-x86", "")]
    check = engine_check(facts, here("x86_64", onnxruntime="1.32.0"), board, ())
    assert (check.status, check.text) == ("ok", "onnxruntime 1.32.0 runs int8-x86")


def test_an_engine_that_dies_on_the_model(board: Board) -> None:
    steps = ("packaged", "load", "loaded", "open")
    told = Probe(tuple({"step": step, "variant": "int8-x86"} for step in steps), -11, "")
    facts = EngineFacts("tflite", "ai_edge_litert", told)
    check = engine_check(facts, here("x86_64", ai_edge_litert="2.0"), board, ())
    assert check.text == "ai-edge-litert 2.0 dies of SIGSEGV (segmentation fault) while it runs int8-x86"
    assert attempts_of(facts) == [Attempt("int8-x86", "its engine dies of SIGSEGV (segmentation fault)")]


def test_an_engine_built_for_numpy_1(board: Board) -> None:
    output = "A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.2.1\nImportError: numpy.core failed"
    told = Probe(({"step": "packaged"}, {"step": "load"}), 1, output)
    place = here("armv7l", tflite_runtime="2.14.0", numpy="2.2.1")
    check = engine_check(EngineFacts("tflite", "tflite_runtime", told), place, board, ())
    assert (check.status, check.mend) == ("fail", "pip install 'numpy<2'")


@pytest.mark.parametrize(
    ("engine", "place", "others", "status", "mend"),
    [
        ("onnx", here(), ("tflite",), "ok", ""),
        ("onnx", here(), (), "fail", "pip install onnxruntime"),
        ("onnx", here(python=(3, 10, 12)), (), "fail", "pip install 'onnxruntime<1.24'"),
        ("tflite", here("armv7l"), (), "fail", "pip install tflite-runtime 'numpy<2'"),
        (
            "tflite",
            here("armv7l", python=(3, 13)),
            (),
            "fail",
            "make the environment with Python 3.11, or install a 64-bit system",
        ),
    ],
)
def test_an_engine_that_is_not_installed(
    engine: str, place: Here, others: tuple[str, ...], status: str, mend: str, board: Board
) -> None:
    check = engine_check(EngineFacts(engine), place, board, others)
    assert (check.status, check.mend) == (status, mend)


def test_which_variant_would_run() -> None:
    order = ["a", "b", "c"]
    a_runs, b_runs, a_differs = Attempt("a", ""), Attempt("b", ""), Attempt("a", "it disagrees")
    assert bundle_check("m", order, [a_runs]).text == "m: a would run; its golden check agrees"
    passed_over = bundle_check("m", order, [a_differs, b_runs])
    assert (passed_over.status, passed_over.text) == ("warn", "m: b would run, a passed over: it disagrees")
    assert bundle_check("m", order, [a_differs]).status == "fail"
    assert "edge-quantize" in passed_over.mend
    assert "engine above" not in passed_over.mend
    assert bundle_check("m", order, [a_runs], stale="not used").status == "warn"
    assert bundle_check("m", order, [], missing=["onnxruntime", "ai-edge-litert"]).mend == (
        "pip install onnxruntime, or ai-edge-litert"
    )


def test_what_edge_bench_chose() -> None:
    order, a_runs = ["a", "b", "c"], Attempt("a", "")
    b = Choice(variant="b", engine="onnx", threads=2, frame_ms=1, measured="2026-11-30")
    ran = bundle_check("m", order, [a_runs, Attempt("b", "", chosen=True)], choice=b)
    assert (ran.status, ran.text) == ("ok", "m: b would run, edge-bench's choice of 2026-11-30; its golden check agrees")
    passed = "m: a would run, b, edge-bench's choice of 2026-11-30, passed over: "
    refused = bundle_check("m", order, [Attempt("b", "it disagrees", chosen=True), a_runs], choice=b)
    assert (refused.status, refused.text) == ("warn", f"{passed}it disagrees")
    unloaded = bundle_check("m", order, [a_runs], choice=b)
    assert (unloaded.status, unloaded.text) == ("warn", f"{passed}its engine does not run")
    dies = bundle_check("m", order, [a_runs], choice=b, fatal={"b": "dies of SIGILL"})
    assert (dies.status, dies.mend) == ("fail", "mend the engine above, or edge-run --variant a")
    damaged = bundle_check("m", order, [a_runs, Attempt("b", "", chosen=True)], choice=b, damaged=["c.onnx is missing"])
    assert (damaged.status, damaged.text) == ("fail", "m: c.onnx is missing; b would run")


def test_an_engine_that_would_end_edge_run() -> None:
    check = bundle_check("m", ["a", "b"], [Attempt("b", "")], fatal={"a": "dies of SIGILL (illegal instruction)"})
    assert (check.status, check.mend) == ("fail", "mend the engine above, or edge-run --variant b")
    later = bundle_check("m", ["a", "b"], [Attempt("a", "")], fatal={"b": "dies of SIGILL (illegal instruction)"})
    assert later.status == "ok"
    assert deadly(EngineFacts("onnx", "onnxruntime", Probe((), -4, ""))) == "dies of SIGILL (illegal instruction)"
    assert deadly(EngineFacts("onnx", "onnxruntime", Probe((), None, ""))).startswith("does not come to an end")
    assert deadly(EngineFacts("onnx", "onnxruntime", Probe((), 1, ""))) == ""


def test_packages() -> None:
    loaded = Probe(({"step": "packaged", "numpy": "1.26.4", "cv2": "4.6.0"},), 0, "")
    assert packages_check({}, here(), loaded).text == "NumPy 1.26.4, OpenCV 4.6.0"
    both = {"opencv-python": "4.11", "opencv-python-headless": "4.12"}
    check = packages_check(both, here(opencv_python="4.11", opencv_python_headless="4.12"), loaded)
    assert check.status == "warn"
    assert check.mend.endswith("pip install opencv-python-headless")
    broken = packages_check(both, here(), Probe(({"step": "packages"},), 1, "ImportError: libGL.so.1: cannot open"))
    assert (broken.status, broken.text[-46:]) == (
        "fail",
        "fails: ImportError: libGL.so.1: cannot open"[-46:],
    ) or broken.status == "fail"
    assert "libGL.so.1" in broken.text


def test_installed_versions() -> None:
    assert set(installed_versions(["numpy", "no-such-distribution"])) == {"numpy"}
