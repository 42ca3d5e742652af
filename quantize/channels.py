"""Channels that must go together, what a network's outputs owe to them, and what they cost.

The dependency graph, what must go together, is torch-pruning's (Fang et al., "DepGraph", CVPR 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from quantize.quiet import quiet
from train.finetune import tensors
from train.pictures import Batch

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
ELEMENT_MACS = 16
"""What reading or writing an activation costs, in multiplications of a dense int8 convolution; it orders cuts, no more."""
SLOW_MACS = 8
"""What a multiplication costs where kernels have little to share: in depthwise convolutions and in those of few inputs."""
FEW_INPUTS = 4
ROUND = 16
"""Channels are cut to multiples of this. With half of EfficientNet-Lite0's multiplications left, ONNX Runtime's int8 on x86
was 1.09x as fast where channels were multiples of 8, and 1.61x where they were multiples of 16."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Channels that go together: those of layer `root`'s output and all that is tied to them.

    `consumers` are the layers that read them: name, the input channels read, and for each of those the root's channel.
    `macs` is what one channel of the root is worth, and `cost` the same with what slows integer kernels down.
    """

    root: str
    channels: int
    consumers: tuple[tuple[str, Tensor, Tensor], ...]
    macs: float
    cost: float


def has_layers(network: nn.Module) -> bool:
    """Whether the network's weights are those of layers, as a network's made from an ONNX file are not."""
    return any(isinstance(module, LAYERS) for module in network.modules())


def count_macs(network: nn.Module, example: Tensor) -> int:
    """Multiplications of an inference by convolutions and linear layers."""
    return sum(layer.macs for layer in _layers(network, example).values())


@dataclass(frozen=True, slots=True)
class _Layer:
    macs: int
    elements_in: int
    elements_out: int


def _layers(network: nn.Module, example: Tensor) -> dict[str, _Layer]:
    found: dict[str, _Layer] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = module.weight
            assert isinstance(weight, Tensor)
            positions = output.numel() // weight.shape[0]
            before = found.get(name, _Layer(0, 0, 0))  # a layer may run more than once
            found[name] = _Layer(
                before.macs + weight.numel() * positions,
                before.elements_in + inputs[0].numel(),
                before.elements_out + output.numel(),
            )

        return hook

    with _hooks([module.register_forward_hook(note(name)) for name, module in _named_layers(network)]), torch.no_grad():
        network.eval()(example)
    return found


def find_groups(network: nn.Module, example: Tensor) -> list[Group]:
    """All groups with more channels than must stay; without a convolution of several groups that is not depthwise."""
    layers = _layers(network, example)
    graph, names = _graph(network, example)
    described = [_describe(graph, found, names, layers) for found in graph.get_all_groups(root_module_types=LAYERS)]
    return [group for group in described if group is not None and group.channels > ROUND]


def prunable(network: nn.Module, groups: Sequence[Group], example: Tensor) -> list[Group]:
    """Those groups that can lose channels while the network still runs and its outputs keep their shapes; it is tried."""
    with torch.no_grad():
        shapes = [value.shape for value in tensors(network.eval()(example))]

    def surviving(some: list[Group]) -> list[Group]:
        if not some or _survives(network, some, example, shapes):
            return some
        half = len(some) // 2
        return [*surviving(some[:half]), *surviving(some[half:])] if half else []

    return surviving(list(groups))


def cut(network: nn.Module, chosen: dict[str, Sequence[int]], example: Tensor) -> None:
    """Take the chosen channels of each root layer, and all that is tied to them, out of the network, in place."""
    graph, _ = _graph(network, example)
    for root, channels in chosen.items():
        module = network.get_submodule(root)
        pruner = graph.get_pruner_of_module(module)
        graph.get_pruning_group(module, pruner.prune_out_channels, sorted(channels)).prune()


def importance(network: nn.Module, groups: Sequence[Group], batches: Sequence[Batch], seed: int) -> dict[str, Tensor]:
    """For each root, the mean square of the change of the outputs, to first order, that each of its channels' loss makes.

    A channel that is lost takes its mean along, which the next batch norm makes good; what counts is how it varies. The
    change of a picture's outputs is seen along one random direction, so that one pass backward serves all channels:
    Taylor expansion (Molchanov et al., CVPR 2019) of the outputs, not of a loss, which is flat where it is trained.
    Logits are compared up to a constant.
    """
    seen: dict[str, Tensor] = {}
    total = {group.root: torch.zeros(group.channels) for group in groups}
    random = torch.Generator().manual_seed(seed)

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            value = inputs[0].detach()
            channel_axis = value.ndim - 1 if isinstance(module, nn.Linear) else 1
            others = [axis for axis in range(value.ndim) if axis != channel_axis]
            varying = value - value.mean(others, keepdim=True)

            def backward(gradient: Tensor) -> None:
                change = (varying * gradient).movedim(channel_axis, 1).unsqueeze(-1).flatten(2).sum(2)
                seen[name] = seen[name] + change if name in seen else change

            inputs[0].register_hook(backward)  # type: ignore[no-untyped-call]

        return hook

    read = {name for group in groups for name, _, _ in group.consumers}
    network.eval()
    with _hooks([network.get_submodule(name).register_forward_pre_hook(note(name)) for name in read]):
        for batch in batches:
            seen.clear()
            outputs = tensors(network(batch.images.detach().requires_grad_()))
            loss = torch.zeros(())
            for output in outputs:
                direction = torch.randn(output.shape, generator=random)
                if output.ndim == 2:
                    direction -= direction.mean(1, keepdim=True)
                loss = loss + (output * direction).sum()
            network.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for group in groups:
                change = torch.zeros(len(batch.images), group.channels)
                for name, read_channels, root_channels in group.consumers:
                    if name in seen:
                        change.index_add_(1, root_channels, seen[name][:, read_channels])
                total[group.root] += change.square().sum(0)
    network.zero_grad(set_to_none=True)
    count = sum(len(batch.images) for batch in batches)
    return {root: value / count for root, value in total.items()}


def choose(
    groups: Sequence[Group], scores: dict[str, Tensor], spare_macs: float, most: float = 0.5
) -> dict[str, Sequence[int]]:
    """The channels, by root, whose loss changes least for what it saves, until `spare_macs` are saved.

    They go in units that leave multiples of `ROUND`, of which one stays, and no group loses more than the share `most`.
    """
    units = []
    for group in groups:
        order = torch.argsort(scores[group.root]).tolist()
        start, size = 0, group.channels % ROUND or ROUND
        while start + size <= group.channels - ROUND and start + size <= max(most * group.channels, ROUND):
            channels = order[start : start + size]
            lost = float(scores[group.root][channels].sum())
            units.append((lost / (group.cost * size), start, group, channels))
            start, size = start + size, ROUND
    chosen: dict[str, Sequence[int]] = {}
    saved = 0.0
    for _, _, group, channels in sorted(units, key=lambda unit: unit[:2]):
        if saved >= spare_macs:
            break
        chosen[group.root] = [*chosen.get(group.root, ()), *channels]
        saved += group.macs * len(channels)
    return chosen


def _named_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, LAYERS))


@contextmanager
def _hooks(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _graph(network: nn.Module, example: Tensor) -> tuple[Any, dict[nn.Module, str]]:
    with torch.enable_grad(), quiet():
        graph = torch_pruning.DependencyGraph().build_dependency(network.eval(), example_inputs=example)
    return graph, {module: name for name, module in network.named_modules()}


def _describe(graph: Any, found: Any, names: dict[nn.Module, str], layers: dict[str, _Layer]) -> Group | None:
    root = found[0].dep.target.module
    channels: int = graph.get_out_channels(root)
    consumers, macs, cost = [], 0.0, 0.0
    for item in found:
        module = item.dep.target.module
        name = names.get(module) if isinstance(module, nn.Module) else None
        if not isinstance(module, LAYERS) or name not in layers:
            continue
        layer, share = layers[name], len(item.idxs)
        depthwise = getattr(module, "groups", 1) > 1
        if depthwise and not module.groups == module.in_channels == module.out_channels:
            return None
        writes = graph.is_out_channel_pruning_fn(item.dep.handler)
        width = module.weight.shape[0] if writes else module.weight.shape[1]
        is_slow = depthwise or module.weight.shape[1] <= FEW_INPUTS
        elements = (layer.elements_out if writes else 0) + (layer.elements_in if not writes or depthwise else 0)
        macs += layer.macs * share / width
        cost += (layer.macs * (SLOW_MACS if is_slow else 1) + ELEMENT_MACS * elements) * share / width
        if not writes:
            consumers.append((name, torch.tensor(item.idxs), torch.tensor(item.root_idxs)))
    if not consumers:
        return None
    return Group(names[root], channels, tuple(consumers), macs / channels, cost / channels)


def _survives(network: nn.Module, groups: Sequence[Group], example: Tensor, shapes: Sequence[torch.Size]) -> bool:
    """Whether a copy that has lost a few channels of each group still gives outputs of the same shapes."""
    trial = copy.deepcopy(network)
    try:
        cut(trial, {group.root: range(group.channels % ROUND or ROUND) for group in groups}, example)
        with torch.no_grad(), quiet():
            return [value.shape for value in tensors(trial(example))] == list(shapes)
    except (RuntimeError, ValueError, IndexError, AssertionError):  # torch's for shapes that no longer fit
        return False
