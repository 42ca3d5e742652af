"""Cross-layer equalization: channels that a tensor's one scale drowns are made louder, and softer by those that read them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from quantize.calibrate import LEVELS
from quantize.fake import Watching
from quantize.graph import ATEN, WEIGHTED, layers, set_weight_and_bias, weight_and_bias
from quantize.quiet import quiet

SAMPLES = 512
"""Values of a channel for each picture."""
LOUDEST = 64.0
DROWNED = 0.01
"""A channel is worth an approximation when rounding disturbs it by more than this share of its variance."""
WORTH = 0.5
"""What must be left of that disturbance at most."""
ROOM = 0.9
"""How much of the range a channel may fill: other pictures are louder."""
BORDER = 0.02
"""The share of a map's positions at which padding, which stays zero, is read."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer, the activation that follows it (itself when there is none), and the layers that alone read that one."""

    layer: Node
    activation: Node
    readers: tuple[Node, ...]
    is_silu: bool


@dataclass(frozen=True, slots=True)
class Change:
    """Channel values v become gain * v + shift before the activation f; readers take scale * f(v) + offset instead of f(v)."""

    gain: float = 1.0
    shift: float = 0.0
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """What a layer's outputs have become: gain * v + shift, each [channels]."""

    gain: Tensor
    shift: Tensor


def pairs(graph: GraphModule) -> list[Pair]:
    """Where equalization is possible: what follows a layer is nothing, a ReLU or a SiLU, and then convolutions only."""
    found = []
    for layer in layers(graph):
        if layer.target != ATEN.conv2d.default:
            continue
        activation, is_silu = layer, False
        users = list(layer.users)
        if len(users) == 1 and users[0].target in (ATEN.relu.default, ATEN.relu_.default):
            activation = users[0]
        elif len(users) == 1 and users[0].target == ATEN.silu.default:
            activation, is_silu = users[0], True
        elif len(users) == 2:
            sigmoid = next((user for user in users if user.target == ATEN.sigmoid.default), None)
            product = next((user for user in users if user.target == ATEN.mul.Tensor), None)
            if sigmoid is None or product is None or list(sigmoid.users) != [product]:
                continue
            activation, is_silu = product, True
        readers = tuple(activation.users)
        if readers and all(reader.target == ATEN.conv2d.default for reader in readers):
            found.append(Pair(layer, activation, readers, is_silu))
    return found


def equalized(
    graph: GraphModule, inputs: Iterable[Tensor], ranges: Mapping[str, tuple[float, float]]
) -> tuple[GraphModule, dict[str, Unit]]:
    """A copy with the channels of each pair's tensors equalized, as seen on `inputs` [1, 3, h, w], and the changed units.

    Exact where nothing or a ReLU stands between a layer and depthwise ones (Nagel et al., ICCV 2019): every channel fills
    the tensor's range. Through a SiLU it is an approximation, silu(v) by scale * silu(gain * v + shift) + offset, so it is
    done for those channels alone which rounding to `ranges` drowns, and where it costs less than it gains. Tensors that
    have no range are not rounded, and left as they are. The ranges of what has changed have to be observed again.
    """
    found = [pair for pair in pairs(graph) if pair.activation.name in ranges]
    values = _channel_values(graph, {pair.layer.name for pair in found}, inputs)
    with quiet():  # torch warns of its own pickling
        result = copy.deepcopy(graph)
    nodes = {node.name: node for node in result.graph.nodes}
    units = {}
    for pair in found:
        seen = values[pair.layer.name]
        changes = _through_silu(pair, seen, ranges) if pair.is_silu else _exact(pair, seen)
        if any(change != Change() for change in changes):
            units[pair.layer.name] = Unit(
                torch.tensor([change.gain for change in changes]), torch.tensor([change.shift for change in changes])
            )
            _apply(result, nodes[pair.layer.name], [nodes[reader.name] for reader in pair.readers], changes)
    result.graph.eliminate_dead_code()
    result.recompile()
    return result, units


def _channel_values(graph: GraphModule, names: set[str], inputs: Iterable[Tensor]) -> dict[str, Tensor]:
    """A sample of each channel's values, [channels, samples], and its extremes as the last two."""
    watching = Watching(graph, names)
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad():
        for value in inputs:
            for name, tensor in watching.watch(value).items():
                channels = tensor.transpose(0, 1).flatten(1)
                step = max(1, channels.shape[1] // SAMPLES)
                ends = torch.stack([channels.amin(1), channels.amax(1)], 1)
                seen[name].append(torch.cat([channels[:, ::step][:, :SAMPLES], ends], 1))
    return {name: torch.cat(parts, 1).double() for name, parts in seen.items()}


def _groups(layer: Node) -> int:
    return int(layer.args[6]) if len(layer.args) > 6 else 1  # type: ignore[arg-type]


def _exact(pair: Pair, values: Tensor) -> list[Change]:
    """Gains that let every channel fill the range of the loudest; none where the reader's own weights would pay for it."""
    if any(_groups(reader) != len(values) for reader in pair.readers):
        return [Change()] * len(values)
    if pair.activation is not pair.layer:
        values = values.relu()
    loudness = values.abs().amax(1)
    gains = (ROOM * loudness.max() / loudness.clamp_min(1e-9)).clamp(1.0, LOUDEST)
    return [Change(gain=float(gain), scale=1 / float(gain)) for gain in gains]


def _through_silu(pair: Pair, values: Tensor, ranges: Mapping[str, tuple[float, float]]) -> list[Change]:
    after = ranges[pair.activation.name]
    before = ranges.get(pair.layer.name)  # none where the layer is left in float
    # the variance of rounding to a step is step**2 / 12
    noise = [((ends[1] - ends[0]) / LEVELS) ** 2 / 12 if ends else 0.0 for ends in (before, after)]
    is_padded = any(len(reader.args) > 4 and any(reader.args[4]) for reader in pair.readers)  # type: ignore[arg-type]
    top = ROOM * (min(before[1], after[1]) if before else after[1])
    return [_best(channel, noise[0], noise[1], top, BORDER if is_padded else 0.0) for channel in values]


def _slope(values: Tensor) -> Tensor:
    sigmoid = values.sigmoid()
    return sigmoid * (1 + values * (1 - sigmoid))


def _best(values: Tensor, noise_before: float, noise_after: float, top: float, border: float) -> Change:
    """The change that leaves the least squared error of silu(values), from approximation and rounding together.

    For each gain and shift, scale and offset solve a linear least-squares problem; where padding is read, the offset is
    an error.
    """
    wanted = functional.silu(values)
    now = noise_after + float(_slope(values).square().mean()) * noise_before
    if now < DROWNED * float(wanted.var()):
        return Change()
    least, best = WORTH * now, Change()
    for gain in torch.logspace(math.log10(1.25), math.log10(LOUDEST), 18).tolist():
        for shift in torch.linspace(0, 4, 17).tolist():
            moved = gain * values + shift
            given = functional.silu(moved)
            if float(given.max()) > top:
                continue
            noise = noise_after + float(_slope(moved).square().mean()) * noise_before
            square, mean = float(given.square().mean()) + noise, float(given.mean())
            cross, middle = float((given * wanted).mean()), float(wanted.mean())
            scale = (cross * (1 + border) - mean * middle) / (square * (1 + border) - mean**2)
            offset = (middle - scale * mean) / (1 + border)
            error = float((scale * given + offset - wanted).square().mean()) + border * offset**2 + scale**2 * noise
            if error < least:
                least, best = error, Change(gain, shift, scale, offset)
    return best


def _apply(graph: GraphModule, layer: Node, readers: list[Node], changes: list[Change]) -> None:
    def of(name: str) -> Tensor:
        return torch.tensor([getattr(change, name) for change in changes], dtype=torch.float64)

    weight, bias = (part.detach().double() for part in weight_and_bias(graph, layer))
    louder = (weight * of("gain").reshape(-1, 1, 1, 1)).float()
    set_weight_and_bias(graph, layer, louder, (bias * of("gain") + of("shift")).float())
    for reader in readers:
        assert reader.target in WEIGHTED
        weight, bias = (part.detach().double() for part in weight_and_bias(graph, reader))
        grouped = weight.reshape(_groups(reader), -1, *weight.shape[1:])
        scale, offset = (of(name).reshape(len(grouped), 1, -1, 1, 1) for name in ("scale", "offset"))
        taken = (grouped * offset).sum((2, 3, 4)).reshape(-1)
        set_weight_and_bias(graph, reader, (grouped * scale).reshape(weight.shape).float(), (bias + taken).float())
