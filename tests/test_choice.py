"""The fastest configuration, kept by edge-bench and used by edge-run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from devices import detect
from edge.bundle import Bundle, open_bundle
from edge.card import Variant
from edge.choice import Choice, bundle_hash, cache_folder, engine_version, remember, remembered
from edge.commands.run import main as run
from edge.engines import EngineOptions
from edge.errors import EngineError
from edge.model import Model, Reopener, load_variant, open_model
from edge.sources.demo import PHOTOS
from tests.conftest import Finished
from tests.samples import entries_of, with_card, write_entries

BOARD = replace(detect(machine="x86_64", cores=4), name="board", threads=2)
FASTEST = Choice(variant="float32", engine="onnx", threads=1, frame_ms=2.5, measured="2026-01-02")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge-run" / "choices.json"


@pytest.fixture
def bundle(tiny_edge: Path) -> Bundle:
    return open_bundle(tiny_edge)


def recalled(bundle: Bundle, **more: object) -> tuple[Choice | None, list[str]]:
    said: list[str] = []
    return remembered(BOARD, bundle, said.append, **more), said  # type: ignore[arg-type]


# the file


def test_nothing_is_remembered_at_first_and_nothing_said(bundle: Bundle) -> None:
    assert recalled(bundle) == (None, [])


def test_what_was_remembered_comes_back(bundle: Bundle, cache: Path) -> None:
    choice = Choice(
        variant="int8-x86",
        engine="onnx",
        accelerator="tensorrt",
        options=(("trt_fp16_enable", "1"),),
        threads=2,
        frame_ms=1.25,
        measured="2026-01-02",
    )
    assert remember(BOARD, bundle, choice) == cache
    assert recalled(bundle) == (choice, [])
    assert list(cache.parent.iterdir()) == [cache]


def test_another_file(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    remember(BOARD, bundle, FASTEST, tmp_path / "other.json")
    assert not cache.exists()
    assert recalled(bundle) == (None, [])
    assert recalled(bundle, path=tmp_path / "other.json") == (FASTEST, [])


def test_it_holds_for_one_board_one_processor_and_one_bundle(
    bundle: Bundle, tmp_path: Path, tiny_edge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(BOARD, bundle, FASTEST)
    assert remembered(replace(BOARD, name="other"), bundle, print) is None
    changed = write_entries(tmp_path / "x.edge", with_card(entries_of(tiny_edge), lambda card: card.update(name="other")))
    assert bundle_hash(open_bundle(changed)) != bundle_hash(bundle)
    assert recalled(open_bundle(changed))[0] is None
    assert recalled(bundle)[0] == FASTEST
    monkeypatch.setattr("edge.choice.processor", lambda: "another")
    assert recalled(bundle)[0] is None


def test_the_hash_is_of_the_contents_not_of_the_place(bundle: Bundle, tiny_edge: Path, tmp_path: Path) -> None:
    folder = write_entries(tmp_path / "folder", entries_of(tiny_edge))
    assert bundle_hash(open_bundle(folder)) == bundle_hash(bundle)


def test_a_new_choice_replaces_the_old_and_leaves_others(bundle: Bundle) -> None:
    other = replace(BOARD, name="other")
    remember(BOARD, bundle, FASTEST)
    remember(other, bundle, FASTEST)
    newer = Choice(variant="int8-x86", engine="onnx", threads=2, frame_ms=1.0, measured="2026-02-03")
    remember(BOARD, bundle, newer)
    assert recalled(bundle)[0] == newer
    assert remembered(other, bundle, print) == FASTEST


def test_the_oldest_go(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.choice.KEPT", 3)
    for number in range(5):
        remember(replace(BOARD, name=f"b{number}"), bundle, FASTEST)
    names = [key.split()[0] for key in json.loads(cache.read_text())["choices"]]
    assert names == ["b2", "b3", "b4"]


def test_another_version_of_the_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(BOARD, bundle, FASTEST)
    monkeypatch.setattr("edge.choice.version", lambda name: "99")
    choice, said = recalled(bundle)
    assert choice is None
    assert len(said) == 1
    assert "onnxruntime 99: not used; run edge-bench again" in said[0]


def test_engine_versions() -> None:
    assert engine_version("onnx").startswith("onnxruntime ")
    assert engine_version("none") == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema_version": 2}',
        '{"choices": 3}',
        '{"choices": {"a": {"choice": {}, "engine_version": ""}}}',
        "\x00\xff",
        "[" * 100_000,
        '{"x": "' + "y" * (1 << 20) + '"}',
    ],
    ids=range(10),
)
def test_a_file_that_is_none_is_ignored_in_one_line(bundle: Bundle, cache: Path, text: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(text.encode("latin-1"))
    choice, said = recalled(bundle)
    assert choice is None
    assert len(said) == 1
    assert str(cache) in said[0]
    assert len(said[0]) < 1000
    assert "\n" not in said[0]
    remember(BOARD, bundle, FASTEST)
    assert recalled(bundle) == (FASTEST, [])


@pytest.mark.parametrize("threads", [0, -1, 65, 1e9, "2", None])
def test_threads_that_cannot_be(bundle: Bundle, cache: Path, threads: object) -> None:
    remember(BOARD, bundle, FASTEST)
    found = json.loads(cache.read_text())
    next(iter(found["choices"].values()))["choice"]["threads"] = threads
    cache.write_text(json.dumps(found))
    choice, said = recalled(bundle)
    assert (choice, len(said)) == (None, 1)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_plain_file_is_ignored(bundle: Bundle, cache: Path, make: Callable[[Path], None]) -> None:
    cache.parent.mkdir(parents=True)
    make(cache)
    choice, said = recalled(bundle)
    assert choice is None
    assert "not a plain file" in said[0]


def test_where_nothing_can_be_written(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert recalled(bundle) == (None, [])
    with pytest.raises(OSError):
        remember(BOARD, bundle, FASTEST)


def test_a_write_that_fails_leaves_the_old_file(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(BOARD, bundle, FASTEST)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge.choice.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        remember(replace(BOARD, name="other"), bundle, FASTEST)
    assert recalled(bundle)[0] == FASTEST
    assert list(cache.parent.iterdir()) == [cache]


@pytest.mark.parametrize("given", ["", "relative/cache"])
def test_the_cache_of_a_user_without_the_variable(given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edge-run"


def test_a_user_without_a_home(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("edge.choice.Path.home", homeless)
    assert cache_folder() is None
    assert recalled(bundle) == (None, [])
    with pytest.raises(OSError):
        remember(BOARD, bundle, FASTEST)


# the model


def opened(bundle: Bundle, choice: Choice | None, **more: object) -> tuple[Model, list[str]]:
    said: list[str] = []
    return open_model(bundle, board=BOARD, choice=choice, say=said.append, **more), said  # type: ignore[arg-type]


def test_the_choice_is_opened_aloud(bundle: Bundle) -> None:
    model, said = opened(bundle, FASTEST)
    assert (model.variant.name, model.engine.threads) == ("float32", 1)
    assert said == ["float32 is edge-bench's choice of 2026-01-02; --variant or --threads overrides it"]
    assert opened(bundle, None)[0].variant.name == "int8-x86"


def test_several_lanes_share_the_threads_as_before(bundle: Bundle) -> None:
    four = Choice(variant="float32", engine="onnx", threads=4, frame_ms=1.0, measured="2026-01-02")
    model, _ = opened(bundle, four, lanes=2, threads=1)
    assert (model.variant.name, model.engine.threads, model.engine.lanes) == ("float32", 1, 2)


@pytest.mark.parametrize("change", [{"variant": "gone"}, {"accelerator": "cuda"}, {"accelerator": "warp"}])
def test_a_choice_that_no_longer_loads_gives_way(bundle: Bundle, change: dict[str, str]) -> None:
    fields = {"variant": "float32", "engine": "onnx", "threads": 1, "frame_ms": 1.0, "measured": "2026-01-02"} | change
    model, said = opened(bundle, Choice(**fields))  # type: ignore[arg-type]
    assert (model.variant.name, model.engine.threads, model.options.accelerator) == ("int8-x86", 2, "cpu")
    assert len(said) == 1
    assert said[0].startswith(f"edge-bench's choice, {fields['variant']}")
    assert "passed over: " in said[0]


def test_an_accelerator_that_fails_is_opened_anew_and_then_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def load(bundle: Bundle, variant: Variant, options: EngineOptions) -> Model:
        asked.append((variant.name, options.accelerator))
        return replace(load_variant(bundle, variant, replace(options, accelerator="cpu")), options=options)

    monkeypatch.setattr("edge.model.load_variant", load)
    plain = EngineOptions(1)
    model = load(bundle, bundle.card.variant("float32"), replace(plain, accelerator="cuda"))
    reopen = Reopener(bundle, plain, BOARD, attempts=2)
    asked.clear()
    with pytest.raises(EngineError, match="no variant is left that works: it fell over"):  # noqa: PT012
        while True:
            model = reopen(model, "it fell over")
    assert asked == [("float32", "cuda")] * 2 + [("float32", "cpu")] * 2 + [("int8-x86", "cpu")] * 2


# edge-run


def picture_run(command: Callable[..., Finished], tiny_edge: Path, *arguments: object) -> str:
    photo = PHOTOS / "coffee.jpg"
    done = command(run, "--model", tiny_edge, "--source", photo, "--events", os.devnull, *arguments)
    assert done.code == 0, done
    return done.err


def test_edge_run_uses_it(command: Callable[..., Finished], tiny_edge: Path, bundle: Bundle, cache: Path) -> None:
    default = picture_run(command, tiny_edge)
    assert "edge-bench" not in default
    name = "float32" if "int8-x86" in default else "int8-x86"
    remember(detect(), bundle, Choice(variant=name, engine="onnx", threads=1, frame_ms=1.0, measured="2026-01-02"))
    lines = picture_run(command, tiny_edge).splitlines()
    assert lines[0] == f"edge-run: {name} is edge-bench's choice of 2026-01-02; --variant or --threads overrides it"
    assert lines[1].startswith(f"edge-run: tiny {name} on onnx")
    other = "int8-x86" if name == "float32" else "float32"
    assert "edge-bench" not in picture_run(command, tiny_edge, "--threads", 1)
    assert f"tiny {other} on onnx" in picture_run(command, tiny_edge, "--variant", other)
    cache.write_text("broken")
    broken = picture_run(command, tiny_edge)
    assert "ignored" in broken.splitlines()[0]
    assert broken.splitlines()[1:2] == default.splitlines()[:1]
