"""What a classifier must be before minutes of work are spent on it; what is wrong is said in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from edge.card import InputGeometry, Label
from edge.errors import EdgeError, InputError
from quantize.quiet import quiet
from train.models import Classifier


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


def check_classifier(classifier: Classifier, model: str) -> None:
    """Raise InputError, which begins with `model`, for what cannot be quantized or does not fit together.

    Runs the network once, on zeros.
    """
    _check_normalization(classifier.mean, classifier.std, model)
    for field, kind in (("input", InputGeometry), ("labels", tuple[Label, ...]), ("source", str), ("license", str)):
        try:
            msgspec.convert(msgspec.to_builtins(getattr(classifier, field)), kind)
        except (msgspec.ValidationError, TypeError) as error:
            raise InputError(f"{model}: the classifier's {field} is not as train.models.Classifier says: {error}") from None
    ids = [label.id for label in classifier.labels]
    if len(set(ids)) < len(ids):
        raise InputError(f"{model}: two labels have the id {next(i for i in ids if ids.count(i) > 1)!r}; give each its own")
    if not isinstance(classifier.network, nn.Module):
        raise InputError(f"{model}: the classifier's network is {type(classifier.network).__name__}, expected torch.nn.Module")
    _check_output(classifier, model)


def _check_normalization(mean: Sequence[float], std: Sequence[float], model: str) -> None:
    for field, values in (("mean", mean), ("std", std)):
        if not isinstance(values, Sequence) or len(values) != 3 or not all(_is_finite(value) for value in values):
            raise InputError(f"{model}: the classifier's {field} is {values!r}; give three numbers, one for each channel")
    if min(std) <= 0:
        raise InputError(f"{model}: the classifier's std is {std!r}; each must be more than 0, of pixels in [0, 255]")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def _check_output(classifier: Classifier, model: str) -> None:
    shape = [1, 3, classifier.input.height, classifier.input.width]
    with (
        blamed(f"{model}: the network cannot take its input of float32 {shape}", "; correct the factory's network or input"),
        quiet(),
        torch.no_grad(),
    ):
        logits = classifier.network.eval()(torch.zeros(shape))
    expected = [1, len(classifier.labels)]
    if not isinstance(logits, Tensor):
        raise InputError(f"{model}: the network returns {type(logits).__name__}, expected one tensor of logits {expected}")
    if list(logits.shape) != expected or logits.dtype != torch.float32:
        dtype = str(logits.dtype).removeprefix("torch.")
        raise InputError(
            f"{model}: the network gives {dtype} {list(logits.shape)} for its input of {shape}, expected logits float32 "
            f"{expected}, as there are {len(classifier.labels)} labels; correct the factory's network, input or labels"
        )
