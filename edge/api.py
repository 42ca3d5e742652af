"""The loop and the model for those who embed them: `edge.run` and `edge.load`."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import numpy as np

from edge.bundle import open_bundle
from edge.commands.run_outputs import close_sinks, open_sinks
from edge.commands.run_session import open_session
from edge.controls import Controls
from edge.errors import InputError, UsageError
from edge.keywords import options_of
from edge.model import Model, open_model
from edge.packaged import DEFAULT_BUNDLE
from edge.protocols import Source
from edge.sinks.jsonl import ReaderGoneError
from edge.sources.arrays import ArraySource, picture_fault
from edge.status import Status
from edge.summary import Summary
from edge.types import Event, Frame, Notice, Result, UInt8

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from edge.keywords import RunKeywords

LOGGER = logging.getLogger("edge")
Item = TypeVar("Item", bound="Event | Notice")


class Run(Generic[Item]):
    """A loop that is open: iterate over it for its events. Made by `edge.run`.

    It ends with its sources, by `stop` from any thread, or by `close`, which leaving a `with` block and dropping the last
    reference also do. `controls` pause it and set thresholds, `status` says how it is, both from any thread; `summary` is
    what `edge-run --summary` writes.
    """

    def __init__(self, sources: Sequence[Source], options: dict[str, Any], *, notices: bool) -> None:
        run_options = options_of(options)
        self._stack = ExitStack()
        self._turn = threading.RLock()
        self._notices = notices
        self._ended = ""
        self._summary: Summary | None = None
        with ExitStack() as opening:
            self._session = opening.enter_context(open_session(run_options, LOGGER.info, own=sources))
            sinks = self._session.sinks
            opening.callback(close_sinks, sinks, _say_waiting)
            sinks.extend(open_sinks(run_options, self._session.sources, self._session.monitor, LOGGER.info, embedded=True))
            self._events = self._session.events()
            opening.callback(self._events.close)
            self._stack = opening.pop_all()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        """The next event. Raises EdgeError where edge-run would end with one."""
        with self._turn:
            try:
                for event in self._events:
                    if isinstance(event, Notice):
                        LOGGER.info("%s: %s", event.about, event.text)
                    if self._notices or isinstance(event, Event):
                        return cast(Item, event)
                    del event
                self._ended = self._ended or self._session.ended()
            except ReaderGoneError:
                self._ended = "the reader of standard output went away"
            except BaseException:
                self._ended = "an error ended it"
                self.close()
                raise
            self.close()
            raise StopIteration

    def __enter__(self) -> Run[Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def stop(self) -> None:
        """Let it end soon: the iteration finishes with what is under way. From any thread or signal handler."""
        self._ended = self._ended or "stopped"
        self._session.stop()

    def close(self) -> None:
        """End it now, and let go of cameras, engine and files; may be called twice, and while another thread iterates."""
        self._ended = self._ended or "closed"
        self._session.stop()
        with self._turn:
            if inspect.getgeneratorstate(self._events) == inspect.GEN_RUNNING:
                return  # a signal handler within the iteration, which ends now
            if self._summary is None:
                stack, self._stack = self._stack, ExitStack()
                stack.close()
                self._summary = self._session.summary(self._ended)

    @property
    def model(self) -> Model:
        """What runs now; another variant may once have taken the place of one that failed."""
        return self._session.model

    @property
    def controls(self) -> Controls:
        """Pause and go on, set thresholds, switch the motion gate."""
        return self._session.controls

    def status(self) -> Status:
        """How it is now: rates, ages, states, temperature."""
        return self._session.monitor.status()

    @property
    def summary(self) -> Summary:
        """What it has done, so far or altogether."""
        return self._summary or self._session.summary("running")


def _say_waiting() -> None:
    LOGGER.info("delivering what the sinks still hold")


@overload
def run(
    source: str | int | Path | Source | Iterable[UInt8] | Sequence[str | int | Path | Source],
    model: str | Path | None = None,
    *,
    notices: Literal[False] = False,
    **options: Unpack[RunKeywords],
) -> Run[Event]: ...
@overload
def run(
    source: str | int | Path | Source | Iterable[UInt8] | Sequence[str | int | Path | Source],
    model: str | Path | None = None,
    *,
    notices: Literal[True],
    **options: Unpack[RunKeywords],
) -> Run[Event | Notice]: ...
def run(source: Any, model: str | Path | None = None, *, notices: bool = False, **options: Any) -> Run[Any]:
    """Open sources and a model, and give the events of the loop as they come: `for event in edge.run("camera:0"): ...`.

    `source` is a URI as of `edge-run --source`, the number of a camera, a file or folder, an object that is a
    `edge.protocols.Source`, an iterable of BGR pictures uint8 [height, width, 3], or a list of the first four. `model` is a
    bundle, by default the ImageNet classifier in the package. `options` are those of edge-run, with underscores, and mean
    the same; a repeated one takes a list. With `notices`, what befalls the loop comes, too; it is logged to "edge" anyway.
    Raises UsageError, SourceError, BundleError, EngineError: at once, not at the first event.
    """
    if model is not None:
        options["model"] = model
    uris, own = [], []
    for one in _sources(source, masked=bool(options.get("mask"))):
        if isinstance(one, (str, Path)):
            uris.append(str(one))
        elif isinstance(one, int) and not isinstance(one, bool):
            uris.append(f"camera:{one}")
        elif all(hasattr(one, verb) for verb in ("live", "notices", "stop", "__enter__", "__iter__")):
            own.append(one)
        else:
            raise UsageError(f"edge.run: a source cannot be {_what_to_give(one)}")
    return Run(own, options | {"source": uris}, notices=notices)


def _sources(source: Any, *, masked: bool) -> list[Any]:
    if isinstance(source, (str, int, Path)) or hasattr(source, "notices"):
        return [source]
    if isinstance(source, (list, tuple)) and source and not isinstance(source[0], np.ndarray):
        return list(source)
    if isinstance(source, Iterable) and not isinstance(source, np.ndarray):
        return [ArraySource(source, copied=masked)]
    return [source]


def _what_to_give(source: object) -> str:
    """What it is that cannot be a source, and what to give instead."""
    if isinstance(source, np.ndarray):
        kind = f"an array of {source.dtype} {list(source.shape)}"
        return f"{kind}; give a list of pictures, as [picture], or call edge.load() for a single one"
    if callable(source):
        name = getattr(source, "__name__", type(source).__name__)
        return f"{name} itself; give what it returns, as {name}()"
    return f"a {type(source).__name__}; give a URI, a camera's number or a Source"


class Predictor:
    """A model for single pictures: call it with one. Made by `edge.load`; for one thread at a time."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._count = 0

    def __call__(self, picture: UInt8) -> Result:
        """The result for a BGR picture uint8 [height, width, 3], its boxes in that picture's pixels. Raises InputError."""
        if (fault := picture_fault(picture)) is not None:
            raise InputError(f"the picture is {fault}")
        self._count += 1
        tensor = self.model.task.prepare(Frame(picture, self._count, 0.0, "picture"))
        return self.model.task.decode(self.model.engine.infer(tensor), tensor)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the engine."""
        self.model.engine.close()


def load(
    model: str | Path | None = None, *, variant: str | None = None, threads: int | None = None, spin: bool | None = None
) -> Predictor:
    """Open a bundle for single pictures: `edge.load("garden.edge")(picture)`.

    The best variant that this machine can run, or the one that `variant` names. Raises BundleError and EngineError.
    """
    bundle = open_bundle(Path(model) if model is not None else DEFAULT_BUNDLE)
    return Predictor(open_model(bundle, variant=variant, threads=threads, spin=spin, say=LOGGER.info))
