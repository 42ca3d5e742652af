"""LiteRT files taken apart and put together: other weights without converting again, and nothing left over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from torch.fx import GraphModule  # noqa: E402

from quantize.blocks import blocks, tail  # noqa: E402
from quantize.calibrate import silu  # noqa: E402
from quantize.export import Front, to_tflite  # noqa: E402
from quantize.fold import fold  # noqa: E402
from quantize.graph import layers, weight_and_bias  # noqa: E402
from quantize.quiet import quiet  # noqa: E402
from quantize.readback import read_back  # noqa: E402
from quantize.rounding import on_grid  # noqa: E402
from quantize.tflite_graph import TfliteGraph, fingerprint, parse, serialize  # noqa: E402
from quantize.tflite_int8 import functions, observe, to_int8  # noqa: E402
from tests.quantize import tiny  # noqa: E402

FRONT = Front(1 / 128, 127)


@dataclass(frozen=True)
class Converted:
    """A network's graph and what litert-torch makes of it."""

    graph: GraphModule
    example: torch.Tensor
    model: bytes

    def tflite(self) -> TfliteGraph:
        prints = {fingerprint(weights(self.graph)[layer.name][0]): layer.name for layer in layers(self.graph)}
        return TfliteGraph(self.model, prints)


def weights(graph: GraphModule) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    parts = {layer.name: weight_and_bias(graph, layer) for layer in layers(graph)}
    return {name: (weight.detach().numpy(), bias.detach().numpy()) for name, (weight, bias) in parts.items()}


def convert(made: Any, size: int) -> Converted:
    example = torch.zeros(1, 3, size, size)
    with quiet():
        graph = fold(made.network, example)
        return Converted(graph, example, to_tflite(graph, example))


@pytest.fixture(scope="module")
def classifier() -> Converted:
    return convert(tiny.classifier(), tiny.SIZE)


@pytest.fixture(scope="module")
def detector() -> Converted:
    return convert(tiny.detector(), tiny.DETECTOR_SIZE)


def answers(model: bytes, pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
        [image], [output] = interpreter.get_input_details(), interpreter.get_output_details()
        found = []
        for picture in pictures:
            interpreter.set_tensor(image["index"], picture[None])
            interpreter.invoke()
            found.append(interpreter.get_tensor(output["index"])[0].copy())
    return np.stack(found)


def normal(count: int, size: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype(np.float32)


def test_layers_have_their_owners_names(classifier: Converted, detector: Converted) -> None:
    for converted in (classifier, detector):
        named = [operator.layer for operator in converted.tflite().operators if operator.layer]
        assert sorted(named) == sorted(layer.name for layer in layers(converted.graph))


def test_other_weights_are_as_if_it_were_converted_again(classifier: Converted) -> None:
    rounded = on_grid(classifier.graph, None, 127)
    swapped = classifier.tflite().with_weights(weights(rounded))
    assert swapped is not None
    pictures = normal(3, tiny.SIZE)
    fresh = to_tflite(rounded, classifier.example)
    np.testing.assert_array_equal(answers(swapped, pictures), answers(fresh, pictures))
    assert not np.array_equal(answers(swapped, pictures), answers(classifier.model, pictures))
    assert abs(len(swapped) - len(fresh)) < 0.05 * len(fresh)


def test_a_graph_that_was_changed_once_is_changed_again_from_where_it_is(classifier: Converted) -> None:
    tflite = classifier.tflite()
    tflite.with_weights(weights(on_grid(classifier.graph, None, 3)))
    again = tflite.with_weights(weights(classifier.graph))
    assert again is not None
    pictures = normal(2, tiny.SIZE)
    np.testing.assert_array_equal(answers(again, pictures), answers(classifier.model, pictures))


@pytest.mark.parametrize("missing", ["a layer", "a name", "a size"])
def test_weights_that_do_not_fit_give_none(classifier: Converted, missing: str) -> None:
    given = weights(classifier.graph)
    if missing == "a layer":
        given.popitem()
    elif missing == "a size":
        name, (weight, bias) = given.popitem()
        given[name] = weight[..., :-1], bias
    tflite = TfliteGraph(classifier.model) if missing == "a name" else classifier.tflite()
    assert tflite.with_weights(given) is None


def test_what_no_tensor_holds_is_not_written(classifier: Converted) -> None:
    parsed = parse(classifier.model)
    tensor = parsed.subgraphs[0].tensors[parsed.subgraphs[0].operators[0].inputs[1]]
    from ai_edge_litert import schema_py_generated as schema

    added = schema.BufferT()
    added.data = np.zeros(100_000, np.uint8)
    parsed.buffers.append(added)
    before = len(serialize(parsed))
    assert before < len(classifier.model) + 10_000
    tensor.buffer = len(parsed.buffers) - 1
    assert len(serialize(parsed)) < before + 100_000 + 1000


def test_parsing_and_writing_changes_no_answer(detector: Converted) -> None:
    pictures = normal(2, tiny.DETECTOR_SIZE)
    np.testing.assert_array_equal(answers(serialize(parse(detector.model)), pictures), answers(detector.model, pictures))


def test_blocks_end_before_decoding(detector: Converted) -> None:
    operators = detector.tflite().operators
    assert [block.layer for block in blocks(operators)] == [operator.layer for operator in operators if operator.layer]
    kinds = {operator.name: operator.kind for operator in operators}
    assert {"LOGISTIC", "CONCATENATION"} <= {kinds[name] for name in tail(operators)}


def test_what_a_silu_reads_is_known(detector: Converted) -> None:
    found = functions(detector.tflite())
    assert list(found.values()).count(silu) == 4


def test_a_block_left_in_float_stays_there_and_the_rest_does_not(detector: Converted) -> None:
    tflite = detector.tflite()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64, 3), dtype=np.uint8)
    ranges = observe(detector.model, pictures, FRONT, 1).ranges()
    block = blocks(tflite.operators)[1]
    whole = to_int8(detector.model, ranges, FRONT, "predictions")
    mixed = to_int8(detector.model, ranges, FRONT, "predictions", frozenset(block.operators))
    assert read_back(whole, "tflite").floats.get("CONV_2D", 0) == 0
    assert read_back(mixed, "tflite").floats["CONV_2D"] == 1
    assert len(TfliteGraph(whole).outputs) == 1
    assert TfliteGraph(mixed).outputs == ("predictions",)
    float32 = answers(detector.model, (pictures[:, 0].astype(np.float32) - 127) / 128)
    for model in (whole, mixed):
        got = answers(model, pictures[:, 0])
        assert np.square(got - float32).sum() < 10**-2.5 * np.square(float32).sum()


def test_fingerprints_tell_weights_apart_in_any_order() -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=(8, 4, 3, 3)).astype(np.float32)
    assert fingerprint(one) == fingerprint(one.transpose(0, 2, 3, 1))
    assert fingerprint(one) != fingerprint(random.normal(size=(8, 4, 3, 3)).astype(np.float32))
    assert fingerprint(one) != fingerprint(one[:, :, :, :2])
