"""What one process of the endpoint serves, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.auth import Tokens
from cloud.examples import Keeper, Store
from cloud.metrics import Metrics
from cloud.repository import Repository
from cloud.served import Served
from cloud.service import Limits, State
from edge.bundle import open_bundle
from edge.model import open_model

if TYPE_CHECKING:
    from cloud.server import Tls

REQUESTS_HELD = 16
"""Of the largest size, before further bytes are refused."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line, checked; goes from the parent process to its workers."""

    bundles: tuple[Path, ...]
    models: Path | None = None
    name: str | None = None
    variant: str | None = None
    threads: int = 1
    lanes: int = 1
    batch_wait_s: float = 0.002
    max_wait_s: float = 1.0
    request_bytes: int = 16 << 20
    drain_s: int = 10
    tls: Tls | None = None
    grpc_port: int | None = None
    keep: Path | None = None
    keep_bytes: int = 1 << 30


def open_state(settings: Settings, tokens: Tokens, say: Callable[[str], None], shared: Path | None = None) -> State:
    """Every model loaded and checked, and the folder watched. Raises EdgeError for a bundle that cannot be served."""
    metrics = Metrics(shared)

    def load(path: Path) -> Served:
        bundle = open_bundle(path)
        model = open_model(bundle, variant=settings.variant, threads=settings.threads, lanes=settings.lanes, say=say)
        return Served(model, bundle.card, name=settings.name, metrics=metrics, batch_wait_s=settings.batch_wait_s)

    repository = Repository(load, settings.models, say)
    for path in settings.bundles:
        repository.add(load(path))
    repository.watch()
    limits = Limits(settings.request_bytes, REQUESTS_HELD * settings.request_bytes, settings.max_wait_s)
    keeper = None
    if settings.keep is not None:
        keeper = Keeper(Store(settings.keep, settings.keep_bytes), metrics, say)
    return State(repository, limits, tokens, metrics, keeper, say)
