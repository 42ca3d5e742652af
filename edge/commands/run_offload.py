"""The offload client that edge-run's options ask for; importing this brings an HTTP client."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edge.card import Card
from edge.commands.option_values import class_names
from edge.commands.options import RunOptions
from edge.errors import UsageError
from edge.model import Model
from edge.offload import Offloader
from edge.offload.credentials import Credentials
from edge.offload.forms import CropForm, Form, FrameForm
from edge.offload.spool import Spool
from edge.offload.tensors import TensorForm
from edge.regions import check_classes
from edge.tasks.detect import Detect
from edge.types import Classes, Detections, Result

FORMS: dict[str, Callable[[Model, Card, Sequence[str]], Form]] = {
    "frame": lambda model, card, redacted: FrameForm(redacted),
    "crop": lambda model, card, redacted: CropForm(redacted),
    "tensor": lambda model, card, redacted: TensorForm(card.input, model.variant.input, _names(card)),
}
"""`--offload-send` → what is sent of a frame, in which objects of some classes are redacted."""
FEW_CLASSES = 5


def open_offloader(
    url: str,
    options: RunOptions,
    model: Model,
    card: Card,
    say: Callable[[str], None],
    pays_for: Callable[[int], bool] = lambda size: True,
) -> Offloader:
    """The client for `url`, which sends stored frames as far as `pays_for` their bytes. Raises UsageError."""
    _check_send(options, model)
    redacted = _redacted(options, model, card)
    credentials = Credentials(
        ca=options.offload_ca,
        pin=options.offload_pin,
        certificate=options.offload_cert,
        key=options.offload_key,
        token_file=options.offload_token_file,
    )
    spool = None
    if options.spool is not None:
        spool = Spool(options.spool, say, quota_bytes=int(options.spool_mb * 1e6), days=options.spool_days)
        if len(spool):
            frames = f"{len(spool)} frame{'s wait' if len(spool) > 1 else ' waits'}"
            say(f"offload: spool: {frames} in {options.spool} from before, to be sent when the endpoint answers")
    try:
        return Offloader(
            url,
            model.name,
            form=FORMS[options.offload_send](model, card, redacted),
            deadline_s=options.offload_deadline,
            credentials=credentials,
            redact=bool(redacted),
            spool=spool,
            local=_nothing(model),
            pays_for=pays_for,
            say=say,
        )
    except UsageError:
        if spool is not None:
            spool.close()
        raise


def _check_send(options: RunOptions, model: Model) -> None:
    """Refuse crops where no decision names an object, for whole frames would be sent instead."""
    if options.offload_send != "crop" or options.track:
        return
    if not isinstance(model.task, Detect):
        raise UsageError(
            f"--offload-send crop is for detectors, {model.name} is none and finds nothing to cut out; leave it out"
        )
    raise UsageError("--offload-send crop cuts out the objects asked about, which only --track tells apart; add --track")


def _redacted(options: RunOptions, model: Model, card: Card) -> list[str]:
    """The classes that `--redact` names, in order. Raises UsageError for those that the model does not know."""
    classes = class_names(options.redact)
    if classes is None:
        return []
    if not isinstance(model.task, Detect):
        raise UsageError(f"--redact is for detectors, {model.name} is none and cannot say where something is; leave it out")
    names = _names(card)
    try:
        check_classes(classes, names)
    except UsageError as error:
        more = f" and {len(names) - FEW_CLASSES} more" if len(names) > FEW_CLASSES else ""
        few = "" if "it knows" in str(error) else f" It knows {', '.join(names[:FEW_CLASSES])}{more}"
        raise UsageError(f"--redact {options.redact}: {error}{few}") from None
    return sorted(classes)


def _names(card: Card) -> list[str]:
    return [label.name for label in card.labels]


def _nothing(model: Model) -> Result:
    """An empty result of the model's kind, for which an endpoint's is judged before there is another."""
    scores, class_ids = np.zeros(0, np.float32), np.zeros(0, np.int64)
    if isinstance(model.task, Detect):
        return Detections(np.zeros((0, 4), np.float32), scores, class_ids, ())
    return Classes(class_ids, scores, ())
