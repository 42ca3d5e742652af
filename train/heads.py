"""The last layer of a classifier, which gives the logits: found, and made anew for other classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edge.errors import InputError


def last_linear(network: nn.Module) -> nn.Linear:
    """The layer that gives the logits: the linear layer defined last. Raises InputError when there is none."""
    layers: Sequence[nn.Linear] = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise InputError(
            f"{type(network).__name__} has no linear layer to give new classes to; give a network that ends in one"
        )
    return layers[-1]


def replace_head(network: nn.Module, classes: int) -> None:
    """Give the network, in place, a last layer of zeros for `classes`."""
    head = last_linear(network)
    head.out_features = classes
    head.weight = nn.Parameter(head.weight.new_zeros(classes, head.in_features))
    head.bias = nn.Parameter(head.weight.new_zeros(classes))
