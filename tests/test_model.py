"""The golden check and the choice of a variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from devices.board import Cluster
from devices.generic import ARM64, X86_64
from edge.bundle import open_bundle
from edge.card import Variant
from edge.engines import EngineOptions
from edge.errors import BundleError, EdgeError, EngineError
from edge.extras import EXTRAS
from edge.model import Model, load_variant, open_model, preference
from tests.samples import entries_of, frame, golden_arrays, with_card, with_expected, with_file, write_entries
from tests.tiny import tiny_bundle, tiny_onnx

X86 = replace(X86_64, clusters=(Cluster("x", 4, 3000),), threads=2)
ARM = replace(ARM64, clusters=(Cluster("arm", 4, 1500),), threads=3)


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tiny_bundle(tmp_path_factory.mktemp("three") / "three.edge", variants=("float32", "int8-arm", "int8-x86"))
    return entries_of(path)


def opened(path: Path, entries: dict[str, bytes], **options: object) -> tuple[Model, list[str]]:
    said: list[str] = []
    model = open_model(open_bundle(write_entries(path, entries)), say=said.append, **({"board": X86} | options))  # type: ignore[arg-type]
    return model, said


def moved(entries: dict[str, bytes], by: dict[str, float]) -> dict[str, bytes]:
    """The bundle whose golden outputs of some variants are moved by so much."""
    arrays = golden_arrays(entries)
    names = {name.partition("/")[0] for name in arrays if "/" in name}
    return with_expected(entries, {name: arrays[f"{name}/logits"] + by.get(name, 0.0) for name in names})


def test_the_variant_for_the_machine_is_taken_silently(tmp_path: Path, three: dict[str, bytes]) -> None:
    model, said = opened(tmp_path / "x.edge", three)
    assert (model.name, model.variant.name, model.engine.name, model.engine.threads) == ("tiny", "int8-x86", "onnx", 2)
    assert said == []
    model, said = opened(tmp_path / "arm.edge", three, board=ARM)
    assert (model.variant.name, model.engine.threads, said) == ("int8-arm", 3, [])


def test_threads_can_be_asked_for(tmp_path: Path, three: dict[str, bytes]) -> None:
    assert opened(tmp_path / "x.edge", three, threads=1)[0].engine.threads == 1


@pytest.mark.parametrize("by", [0.01, -0.01, 1e6, np.nan, np.inf, -np.inf])
def test_a_variant_that_disagrees_is_passed_over_aloud(tmp_path: Path, three: dict[str, bytes], by: float) -> None:
    model, said = opened(tmp_path / "x.edge", moved(three, {"int8-x86": by}))
    assert model.variant.name == "float32"
    assert len(said) == 1
    assert "int8-x86" in said[0]
    assert "disagrees with its golden check" in said[0]
    assert "\n" not in said[0]


def test_a_difference_within_the_tolerance_is_none(tmp_path: Path, three: dict[str, bytes]) -> None:
    model, said = opened(tmp_path / "x.edge", moved(three, {"int8-x86": 0.0005}))
    assert (model.variant.name, said) == ("int8-x86", [])


def test_variants_fall_through_in_order(tmp_path: Path, three: dict[str, bytes]) -> None:
    model, said = opened(tmp_path / "x.edge", moved(three, {"int8-x86": 1, "float32": 1}))
    assert model.variant.name == "int8-arm"
    assert [line.split()[1] for line in said] == ["int8-x86", "float32"]


def test_when_all_disagree_the_bundle_is_refused(tmp_path: Path, three: dict[str, bytes]) -> None:
    said: list[str] = []
    bundle = open_bundle(write_entries(tmp_path / "x.edge", moved(three, {"float32": 1, "int8-arm": 1, "int8-x86": 1})))
    with pytest.raises(BundleError, match="no variant can run here") as error:
        open_model(bundle, board=X86, say=said.append)
    assert "\n" not in str(error.value)
    assert len(said) == 3


def test_a_named_variant_is_the_only_one_tried(tmp_path: Path, three: dict[str, bytes]) -> None:
    said: list[str] = []
    bundle = open_bundle(write_entries(tmp_path / "x.edge", moved(three, {"int8-x86": 1})))
    with pytest.raises(BundleError, match="int8-x86 disagrees with its golden check"):
        open_model(bundle, board=X86, variant="int8-x86", say=said.append)
    assert said == []
    assert open_model(bundle, board=X86, variant="int8-arm").variant.name == "int8-arm"
    with pytest.raises(BundleError, match="no variant named 'int4'; it has float32, int8-arm, int8-x86"):
        open_model(bundle, board=X86, variant="int4")


@pytest.mark.parametrize("name", ["int8-x86.onnx"])
@pytest.mark.parametrize(
    ("model", "part"),
    [
        (b"not a model", "refuses"),
        (tiny_onnx(classes=9), "golden check"),
        (tiny_onnx(seed=5), "disagrees"),
        (tiny_onnx(size=16), ""),
    ],
)
def test_another_file_with_a_right_hash_is_passed_over(
    tmp_path: Path, three: dict[str, bytes], name: str, model: bytes, part: str
) -> None:
    found, said = opened(tmp_path / "x.edge", with_file(three, name, model))
    assert found.variant.name == "float32"
    assert len(said) == 1
    assert part in said[0]


def test_a_damaged_file_is_passed_over(tmp_path: Path, three: dict[str, bytes]) -> None:
    model, said = opened(tmp_path / "x.edge", three | {"int8-x86.onnx": b"x" * len(three["int8-x86.onnx"])})
    assert model.variant.name == "float32"
    assert "differs from its card" in said[0]


def test_a_model_whose_outputs_are_not_finite_is_refused(tmp_path: Path, three: dict[str, bytes]) -> None:
    from onnx import load_from_string, numpy_helper

    graph = load_from_string(three["int8-x86.onnx"])
    for tensor in graph.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, np.float32), "bias"))
    model, said = opened(tmp_path / "x.edge", with_file(three, "int8-x86.onnx", graph.SerializeToString()))
    assert model.variant.name == "float32"
    assert "differ by nan" in said[0]


def test_no_engine_installed(tmp_path: Path, three: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.extras.EXTRAS", {"onnx": ("no_such_package",), "tflite": ("no_such_package",)})
    bundle = open_bundle(write_entries(tmp_path / "x.edge", three))
    for variant in (None, "float32"):
        with pytest.raises(EngineError, match="pip install 'edge-run\\[onnx\\]'") as error:
            open_model(bundle, board=X86, variant=variant)
        assert error.value.exit_code == 1
        assert "\n" not in str(error.value)


def test_a_variant_whose_engine_is_not_installed_gives_way(
    tmp_path: Path, three: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_engine(card: dict[str, Any]) -> None:
        card["variants"][2]["engine"] = "tflite"

    monkeypatch.setitem(EXTRAS, "tflite", ("no_such_package",))
    assert opened(tmp_path / "x.edge", with_card(three, other_engine))[0].variant.name == "float32"


def test_the_engine_of_a_refused_variant_is_closed(
    tmp_path: Path, three: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.engines.fake import FakeEngine

    engine = FakeEngine(classes=10)
    monkeypatch.setattr("edge.model.open_engine", lambda model, variant, options: engine)
    bundle = open_bundle(write_entries(tmp_path / "x.edge", three))
    with pytest.raises(BundleError):
        load_variant(bundle, bundle.card.variants[0], EngineOptions())
    assert engine.closed


def test_options_reach_the_engine(tmp_path: Path, three: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[EngineOptions] = []

    def refuse(model: bytes, variant: Variant, options: EngineOptions) -> None:
        seen.append(options)
        raise EngineError("seen")

    monkeypatch.setattr("edge.model.open_engine", refuse)
    bundle = open_bundle(write_entries(tmp_path / "x.edge", three))
    for given in ({}, {"threads": 1}, {"spin": False}, {"spin": True, "exact": True}):
        with pytest.raises(EdgeError, match="seen"):
            open_model(bundle, board=X86, variant="float32", **given)  # type: ignore[arg-type]
    assert [(options.threads, options.spin, options.exact) for options in seen] == [
        (2, True, False),
        (1, True, False),
        (2, False, False),
        (2, True, True),
    ]


@pytest.mark.parametrize("count", [0, 3, 11])
def test_labels_that_do_not_fit_the_model_are_refused_at_the_latest_on_a_frame(
    tmp_path: Path, three: dict[str, bytes], count: int
) -> None:
    def relabel(card: dict[str, Any]) -> None:
        card["labels"] = [{"id": f"c{i}", "name": f"n{i}"} for i in range(count)]

    with pytest.raises(EdgeError, match=r"\b10\b.*\b|label"):  # noqa: PT012
        model, _ = opened(tmp_path / "x.edge", with_card(three, relabel))
        tensor = model.task.prepare(frame())
        model.task.decode(model.engine.infer(tensor), tensor)


# the order in which variants are tried


@pytest.mark.parametrize(
    ("machine", "order"),
    [
        ("x86_64", ["c", "e", "b", "d", "a"]),
        ("aarch64", ["a", "e", "b", "d", "c"]),
        ("armv7l", ["a", "b", "d", "c", "e"]),
        ("riscv64", ["b", "d", "a", "c", "e"]),
    ],
)
def test_preference(three: dict[str, bytes], tmp_path: Path, machine: str, order: list[str]) -> None:
    pattern = open_bundle(write_entries(tmp_path / "x.edge", three)).card.variants[0]
    machines: dict[str, tuple[str, ...]] = {
        "a": ("aarch64", "armv7l"),
        "b": (),
        "c": ("x86_64",),
        "d": (),
        "e": ("aarch64", "x86_64"),
    }
    variants = [msgspec.structs.replace(pattern, name=name, machines=made_for) for name, made_for in machines.items()]
    assert [variant.name for variant in preference(variants, machine)] == order
    assert preference([], machine) == []


def test_the_model_and_its_golden_check_agree_end_to_end(tiny_edge: Path) -> None:
    bundle = open_bundle(tiny_edge)
    check: Callable[[str], Model] = lambda name: open_model(bundle, variant=name)  # noqa: E731
    for variant in bundle.card.variants:
        picture, expected = bundle.golden(variant)
        tensor = check(variant.name).task.prepare(frame(np.ascontiguousarray(picture[0, :, :, ::-1])))
        np.testing.assert_array_equal(tensor.data, picture)
        np.testing.assert_allclose(check(variant.name).engine.infer(tensor)["logits"], expected["logits"], atol=1e-4)
