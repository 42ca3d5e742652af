"""What a model must be before minutes of work are spent on it; what is wrong is said in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from edge.card import HEADS_OF_TASK, ROLES_OF_HEAD, InputGeometry, Label
from edge.errors import EdgeError, InputError
from edge.tasks.heads import HEADS, HeadSpec
from quantize.float_model import FloatModel
from quantize.quiet import quiet


@contextmanager
def blamed(what: str, hint: str = "") -> Iterator[None]:
    """Any error of a library or a user's network becomes an InputError of one line; ours and the system's pass through."""
    try:
        yield
    except (EdgeError, OSError):
        raise
    except Exception as error:  # torch and the converters each raise classes of their own
        raise InputError(f"{what}: {reason(error)}{hint}") from None


def reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def check_model(model: FloatModel, name: str) -> None:
    """Raise InputError, which begins with `name`, for what cannot be quantized or does not fit together.

    Runs the network once, on zeros.
    """
    _check_normalization(model.mean, model.std, name)
    for field, kind in (("input", InputGeometry), ("labels", tuple[Label, ...]), ("source", str), ("license", str)):
        try:
            msgspec.convert(msgspec.to_builtins(getattr(model, field)), kind)
        except (msgspec.ValidationError, TypeError) as error:
            raise InputError(f"{name}: the model's {field} is not as train.models says: {error}") from None
    if model.head not in HEADS_OF_TASK[model.task] or len(ROLES_OF_HEAD[model.head]) > 1:
        known = ", ".join(head for head in HEADS_OF_TASK[model.task] if len(ROLES_OF_HEAD[head]) == 1)
        raise InputError(f"{name}: the model's head is {model.head!r:.40}, which cannot be quantized; choose from {known}")
    ids = [label.id for label in model.labels]
    if len(set(ids)) < len(ids):
        raise InputError(f"{name}: two labels have the id {next(i for i in ids if ids.count(i) > 1)!r}; give each its own")
    if not isinstance(model.network, nn.Module):
        raise InputError(f"{name}: the model's network is {type(model.network).__name__}, expected torch.nn.Module")
    _check_output(model, name)


def _check_normalization(mean: Sequence[float], std: Sequence[float], model: str) -> None:
    for field, values in (("mean", mean), ("std", std)):
        if not isinstance(values, Sequence) or len(values) != 3 or not all(_is_finite(value) for value in values):
            raise InputError(f"{model}: the model's {field} is {values!r}; give three numbers, one for each channel")
    if min(std) <= 0:
        raise InputError(f"{model}: the model's std is {std!r}; each must be more than 0, of pixels in [0, 255]")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def _check_output(model: FloatModel, name: str) -> None:
    shape = [1, 3, model.input.height, model.input.width]
    with (
        blamed(f"{name}: the network cannot take its input of float32 {shape}", "; correct its input, or --size"),
        quiet(),
        torch.no_grad(),
    ):
        output = model.network.eval()(torch.zeros(shape))
    if not isinstance(output, Tensor):
        raise InputError(f"{name}: the network returns {type(output).__name__}, expected one tensor of {model.role}")
    dtype = str(output.dtype).removeprefix("torch.")
    if output.dtype != torch.float32:
        raise InputError(f"{name}: the network gives {dtype} {list(output.shape)}, expected float32; convert its output")
    if model.task == "classify" and (output.numel() != len(model.labels) or output.shape[0] != 1):
        raise InputError(
            f"{name}: the network gives {dtype} {list(output.shape)} for its input of {shape}, expected logits "
            f"[1, {len(model.labels)}], as there are {len(model.labels)} labels; correct its labels or size"
        )
    if model.task == "detect":
        _check_decodes(model, output, name)


def _check_decodes(model: FloatModel, output: Tensor, name: str) -> None:
    """Whether the head can read what the network gives."""
    spec = HeadSpec(
        model.size_wh,
        len(model.labels),
        *(() if model.detect is None else (model.detect.strides, model.detect.class_offset, model.detect.cell_offset)),
    )
    try:
        HEADS[model.head]({model.role: output.numpy()}, spec, 0.5)
    except EdgeError as error:
        raise InputError(f"{name}: {error}; there are {len(model.labels)} labels, and the input is {model.size_wh}") from None
