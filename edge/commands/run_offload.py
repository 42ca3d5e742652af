"""The offload client that edge-run's options ask for; importing this brings an HTTP client."""

from __future__ import annotations

from collections.abc import Callable

from edge.card import Card
from edge.commands.run_options import RunOptions
from edge.errors import UsageError
from edge.model import Model
from edge.offload import Offloader
from edge.offload.credentials import Credentials
from edge.offload.forms import CropForm, Form, FrameForm
from edge.offload.spool import Spool
from edge.offload.tensors import TensorForm

FORMS: dict[str, Callable[[Model, Card], Form]] = {
    "frame": lambda model, card: FrameForm(),
    "crop": lambda model, card: CropForm(),
    "tensor": lambda model, card: TensorForm(card.input, model.variant.input, [label.name for label in card.labels]),
}
"""`--offload-send` → what is sent of a frame."""


def open_offloader(url: str, options: RunOptions, model: Model, card: Card, say: Callable[[str], None]) -> Offloader:
    """The client for `url`. Raises UsageError for options that cannot be."""
    if options.spool is not None and options.offload_send == "tensor":
        raise UsageError(
            "--spool keeps pictures, which an endpoint asked with --offload-send tensor does not take; leave one out"
        )
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
    try:
        return Offloader(
            url,
            model.name,
            form=FORMS[options.offload_send](model, card),
            deadline_s=options.offload_deadline,
            credentials=credentials,
            redact=options.redact is not None,
            spool=spool,
            say=say,
        )
    except UsageError:
        if spool is not None:
            spool.close()
        raise
