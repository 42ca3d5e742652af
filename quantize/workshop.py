"""What the candidates of one model share, made once: its graph, exports, what its tensors take, and its rounded weights."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import onnx
import torch
from torch import Tensor
from torch.fx import GraphModule

from edge.progress import told
from edge.types import UInt8
from quantize import onnx_int8, tflite_int8
from quantize.calibrate import Function, Observer, Ranges
from quantize.check import blamed
from quantize.correct import Repaired, repaired
from quantize.export import to_onnx, to_tflite, uint8_nhwc, with_front, with_weights
from quantize.float_model import FloatModel
from quantize.fold import fold
from quantize.graph import layer_names, layers, weight_and_bias
from quantize.quiet import quiet
from quantize.rounding import LayerInputs, on_grid
from quantize.same import matched
from quantize.sensitivity import environment, graph_blocks
from quantize.store import Store, digest
from quantize.tflite_graph import TfliteGraph, fingerprint

Say = Callable[[str], None]

CORRECTION_PICTURES = 48
"""All their tensors are held at once."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How weights are put on the integer grid, up to `limit`.

    `gptq` and `nearest` round the network's own; `corrected` ones are equalized and fitted to rounded inputs, `qat` ones
    trained beyond that, both for a network of which `float_layers` stay in float.
    """

    limit: int
    rounding: str = "gptq"
    float_layers: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether they are the network's own, so that its tensors take what they took."""
        return self.rounding in ("gptq", "nearest")


class Workshop:
    """One float model and its calibration pictures, uint8 [1, h, w, 3]; everything is made when it is first asked for."""

    def __init__(
        self,
        model: FloatModel,
        pictures: Sequence[UInt8],
        threads: int,
        store: Store,
        say: Say,
        progress: Callable[[str, float | None], None] = lambda text, share: None,
    ) -> None:
        self.model = model
        self.pictures = pictures
        self.threads = threads
        self.store = store
        self._say, self._progress = say, progress
        self.example = torch.zeros(1, 3, model.input.height, model.input.width)
        network, self.front = with_front(model)
        with blamed(f"{model.name}: torch.export cannot capture it"), quiet():
            self.graph = fold(network, self.example)
        self.names = layer_names(self.graph)
        size_wh = (model.input.width, model.input.height)  # the same network is another file for another size
        weights = (value.numpy().tobytes() for value in self.graph.state_dict().values())
        self.key = digest(*weights, self.graph.code, self.front, size_wh)
        self.calibration_key = digest(self.key, *(picture.tobytes() for picture in pictures))
        self._core: onnx.ModelProto | None = None
        self._tflite: bytes | None = None
        self._inputs: LayerInputs | None = None
        self._observers: dict[str, Observer] = {}
        self._ranges: dict[tuple[str, Weights | None, str], Ranges] = {}
        self._rounded: dict[Weights, Repaired] = {}
        self._tflite_nodes: dict[str, str] | None = None

    def core(self) -> onnx.ModelProto:
        """The float ONNX model from normalized float32 [1, 3, h, w]."""
        if self._core is None:
            self._say("exporting to ONNX ...") if self.store.get(f"core-{self.key}") is None else None
            raw = self.store.bytes(f"core-{self.key}", lambda: bytes(self._export().SerializeToString()))
            self._core = onnx.load_model_from_string(raw)
        return self._core

    def _export(self) -> onnx.ModelProto:
        self._progress("exporting to ONNX", None)
        with blamed(f"{self.model.name}: torch.onnx cannot export it"):
            return to_onnx(self.graph, self.example, self.model.role)

    def float32(self) -> bytes:
        """The float variant's file: from uint8 pixels."""
        return bytes(uint8_nhwc(self.core(), self.front, self.model.size_wh).SerializeToString())

    def float_tflite(self) -> bytes:
        """The float LiteRT model from normalized float32 [1, h, w, 3]."""
        if self._tflite is None:
            self._say("converting to LiteRT ...") if self.store.get(f"tflite-{self.key}") is None else None
            self._tflite = self.store.bytes(f"tflite-{self.key}", lambda: self._convert(self.graph))
        return self._tflite

    def _convert(self, graph: GraphModule) -> bytes:
        with blamed(f"{self.model.name}: litert-torch cannot convert it", "; leave int8-tflite out with --variants"):
            return to_tflite(graph, self.example)

    def tflite_graph(self) -> TfliteGraph:
        """The float LiteRT model's operators, its layers under their owner's names."""
        prints = {}
        for layer in layers(self.graph):
            prints[fingerprint(weight_and_bias(self.graph, layer)[0].detach().numpy())] = layer.name
        return TfliteGraph(self.float_tflite(), prints)

    def ranges(self, engine: str, weights: Weights, calibrator: str, functions: Mapping[str, Function]) -> Ranges:
        """Each tensor's interval by a calibrator of `quantize.calibrate`, or, for weights fitted to some, by these."""
        key = (engine, None if weights.is_own else weights, calibrator)
        if key not in self._ranges:
            found = self.observer(engine, weights).ranges(calibrator, functions)
            fitted = {} if weights.is_own else self._fitted(weights).ranges
            nodes = self._nodes_of(engine) if fitted else {}
            self._ranges[key] = found | {name: fitted[node] for name, node in nodes.items() if node in fitted and name in found}
        return self._ranges[key]

    def _nodes_of(self, engine: str) -> dict[str, str]:
        """An engine's tensors → the graph's nodes that they hold."""
        if engine == "onnx":  # which names tensors after nodes
            return {node.name: node.name for node in self.graph.graph.nodes}
        if self._tflite_nodes is None:
            picture = self.pictures[0]
            exact = environment(self.graph, self.normalize(picture))
            values = {name: value.detach().numpy() for name, value in exact.items() if isinstance(value, Tensor)}
            with quiet():
                [tensors] = tflite_int8.computed(self.float_tflite(), [picture], self.front, self.threads)
            self._tflite_nodes = matched(tensors, values)
        return self._tflite_nodes

    def observer(self, engine: str, weights: Weights) -> Observer:
        """What each float tensor of an engine's model takes on the calibration pictures, with these weights."""
        key = engine if weights.is_own else f"{engine}-{weights}"
        if key not in self._observers:
            self._progress("what the tensors take", None)
            if engine == "onnx":
                core = self.core() if weights.is_own else self.onnx_with(weights)
                pixels = uint8_nhwc(core, self.front, self.model.size_wh)
                self._observers[key] = onnx_int8.observe(pixels, self.pictures, self.threads)
            else:
                model = self.float_tflite() if weights.is_own else self.tflite_with(weights)
                self._observers[key] = tflite_int8.observe(model, self.pictures, self.front, self.threads)
        return self._observers[key]

    def rounded(self, weights: Weights) -> GraphModule:
        """The graph with its weights on the grid."""
        return self._fitted(weights).graph

    def has(self, weights: Weights) -> bool:
        """Whether this rounding is there already."""
        return self._known(weights) is not None

    def adopt(self, weights: Weights, graph: GraphModule, ranges: Ranges) -> None:
        """Take weights that were fitted to ranges, put on the grid, as a way of rounding."""
        self._rounded[weights] = Repaired(on_grid(graph, None, weights.limit, weights.float_layers), ranges)
        buffer = io.BytesIO()
        torch.save({"state": self._rounded[weights].graph.state_dict(), "ranges": ranges}, buffer)
        self.store.put(self._graph_key(weights), buffer.getvalue())

    def _fitted(self, weights: Weights) -> Repaired:
        """Rounded weights, and the ranges that they were fitted to, by node; none for the network's own."""
        if self._known(weights) is None:
            if weights.rounding == "corrected":
                made = self.corrected(weights)
                self.adopt(weights, made.graph, made.ranges)
            elif not weights.is_own:
                raise ValueError(f"{weights} were not trained; adopt them first")  # never others under their name
            else:
                inputs = None if weights.rounding == "nearest" else self.inputs()
                self.adopt(weights, on_grid(self.graph, inputs, weights.limit), {})
        return self._rounded[weights]

    def _known(self, weights: Weights) -> Repaired | None:
        """What was made or restored before, or can be restored now."""
        if weights not in self._rounded:
            kept = self._restored(weights)
            if kept is None:
                return None
            self._rounded[weights] = kept
        return self._rounded[weights]

    def _restored(self, weights: Weights) -> Repaired | None:
        raw = self.store.get(self._graph_key(weights))
        if raw is None:
            return None
        graph = on_grid(self.graph, None, weights.limit)
        try:
            kept = torch.load(io.BytesIO(raw), weights_only=True)
            graph.load_state_dict(kept["state"])
        except (RuntimeError, KeyError, TypeError):  # of another version
            return None
        return Repaired(graph, kept["ranges"])

    def _graph_key(self, weights: Weights) -> str:
        return f"graph-{digest(self.calibration_key, weights)}"

    def corrected(self, weights: Weights) -> Repaired:
        """The graph with its channels equalized, and each layer fitted to what rounding makes of its inputs."""
        floats = self.float_nodes(weights.float_layers)
        pictures = list(islice(self.normalized(), CORRECTION_PICTURES))
        self._say(f"equalizing and correcting on {len(pictures)} pictures ...")
        self._progress("equalizing and correcting", None)
        return repaired(self.graph, pictures, limit=weights.limit, float_nodes=floats)

    def float_nodes(self, layers: Collection[str]) -> frozenset[str]:
        """The graph's nodes that stay in float when these layers do."""
        return frozenset(name for block in graph_blocks(self.graph) if block.layer in layers for name in block.operators)

    def inputs(self) -> LayerInputs:
        """What each layer is fed, for rounding."""
        if self._inputs is None:
            self._say(f"calibrating on {len(self.pictures)} pictures ...")
            pictures = told(self.pictures, lambda share: self._progress("what the layers are fed", share))
            self._inputs = LayerInputs(self.graph).observe(self.normalize(picture) for picture in pictures)
        return self._inputs

    def normalized(self) -> Iterator[Tensor]:
        """The calibration pictures as the network takes them, float32 [1, 3, h, w]."""
        for picture in self.pictures:
            yield self.normalize(picture)

    def normalize(self, picture: UInt8) -> Tensor:
        """A picture uint8 [1, h, w, 3] as the network takes it."""
        pixels = torch.from_numpy(picture).permute(0, 3, 1, 2).float()
        return (pixels - self.front.zero_point) * self.front.scale

    def onnx_with(self, weights: Weights) -> onnx.ModelProto:
        """The float ONNX model with rounded weights."""
        graph = self.rounded(weights)
        return with_weights(self.core(), graph) or to_onnx(graph, self.example, self.model.role)

    def tflite_with(self, weights: Weights) -> bytes:
        """The float LiteRT model with rounded weights."""
        graph = self.rounded(weights)
        given = {}
        for layer in layers(graph):
            weight, bias = weight_and_bias(graph, layer)
            given[layer.name] = (weight.detach().numpy(), bias.detach().numpy())
        return self.tflite_graph().with_weights(given) or self._convert(graph)
