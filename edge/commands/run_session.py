"""A run of the loop with everything that it needs, opened as edge-run's options say."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from devices import Board, detect
from edge.bundle import Bundle, open_bundle
from edge.capture.forkserver import FORK_SERVER
from edge.card import ANSWERED_TASKS, Card
from edge.choice import remembered
from edge.commands.logs import at_level
from edge.commands.option_values import class_names, for_source, score_thresholds
from edge.commands.options import RunOptions
from edge.commands.run_governor import governor_of, governs
from edge.commands.run_outputs import check_targets
from edge.commands.run_policies import policy_of, rules_of
from edge.commands.run_report import summarize
from edge.controls import Controls
from edge.errors import UsageError
from edge.governor import Governor
from edge.loop import Scene, run
from edge.model import Model, Reopener, open_model
from edge.monitor import Monitor
from edge.motion import MotionGate
from edge.pace import Pace
from edge.packaged import DEFAULT_BUNDLE
from edge.policies import Adjustable, Budget, Guarantee, Rule, Threshold
from edge.privacy import Private
from edge.protocols import Sink, Source, Task
from edge.regions import Chosen, Focus, PrivacyMask, parse_region
from edge.sources import open_source
from edge.sources.camera import Wish
from edge.summary import Summary, Tally
from edge.tasks.classify import looking_twice
from edge.tasks.detect import Detect
from edge.tracking import Tracker
from edge.types import Event, Notice

if TYPE_CHECKING:
    from edge.offload import Offloader

Say = Callable[[str], None]
ABOUT_THE_DEFAULT = " (without --model an ImageNet classifier with 1000 classes runs; a detector is given with --model BUNDLE)"


@dataclass(slots=True)
class _Running:
    """The model that runs now. Apart from the session, to which nothing refers back: so its files are closed when it goes."""

    model: Model


@dataclass(slots=True)
class Session:
    """A run: its parts, its `events`, and what it did."""

    options: RunOptions
    sources: list[Source]
    scenes: list[Scene]
    offloader: Offloader | None
    governor: Governor | None
    controls: Controls
    monitor: Monitor
    tally: Tally
    _running: _Running
    _reopen: Callable[[Model, str], Model]
    sinks: list[Sink] = field(default_factory=list)

    @property
    def model(self) -> Model:
        """What runs now: another one when an engine had to be reopened."""
        return self._running.model

    def events(self, tick: Callable[[], None] = lambda: None) -> Generator[Event | Notice, None, None]:
        """What happens; each is counted in `tally`, told to `monitor` and given to every sink before it comes."""
        events = run(
            self.sources,
            self.model,
            self.scenes,
            offloader=self.offloader,
            governor=self.governor,
            controls=self.controls,
            reopen=self._reopen,
            max_frames=self.options.max_frames,
            deadline_s=self.options.engine_timeout,
            tick=tick,
        )
        with closing(events):
            for event in events:
                self.tally.add(event)
                self.monitor.add(event)
                for sink in self.sinks:
                    sink.emit(event)
                yield event
                del event  # its picture's memory may be needed

    def stop(self) -> None:
        """End the events soon, from any thread or signal handler."""
        for source in self.sources:
            source.stop()

    def ended(self) -> str:
        """Why the events came to an end by themselves."""
        if self.tally.frames + self.tally.noticed("frame-failed") == self.options.max_frames:
            return "--max-frames reached"
        return "the source ended" if len(self.sources) == 1 else "the sources ended"

    def summary(self, ended: str) -> Summary:
        """What it did; `ended` says why it ended."""
        pace = self.controls.pace
        return summarize(self.tally, self.model, self.sources, self.offloader, self.governor, pace, self.sinks, ended)

    def introduction(self) -> str:
        """What runs, on what, in one line."""
        engine = self.model.engine
        threads = engine.threads * engine.lanes
        lanes = f", {engine.lanes} frames at once" if engine.lanes > 1 else ""
        return f"{self.model.name} {self.model.variant.name} on {engine.name}, {threads} thread{'s' * (threads > 1)}{lanes}"


class _Forking:
    """Sessions of one process share the fork server: the last one that is left ends it, for its end is that of all readers."""

    def __init__(self) -> None:
        self._sessions = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._sessions += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._sessions -= 1
            if self._sessions == 0:
                FORK_SERVER.close()


FORKING = _Forking()


@contextmanager
def open_session(options: RunOptions, say: Say, own: Sequence[Source] = ()) -> Iterator[Session]:
    """Open sources, model, endpoint and all else; what is wrong with the options is told before anything starts.

    `own` are sources beside those that the options name. Raises UsageError, and whatever a source or an engine raises that
    cannot be opened.
    """
    if not options.camera and not options.source and not own:
        raise UsageError("give --camera N or --source URI; 'edge-run --source demo' needs no camera")
    with ExitStack() as stack:
        sources = _sources(options, own)
        stack.enter_context(FORKING)
        check_targets(options)
        live = any(source.live for source in sources)
        if any(source.live for source in sources if source not in own):
            FORK_SERVER.start()  # it loads while the model does
        bundle = open_bundle(options.model_path)
        if options.offload is not None and bundle.card.task not in ANSWERED_TASKS:
            raise UsageError(
                f"--offload: an endpoint answers for {' and '.join(ANSWERED_TASKS)} only, the task of {bundle.card.name} is "
                f"{bundle.card.task}; leave it out"
            )
        board = detect()
        model, reopen = _model(options, bundle, board, live, say)
        running = _Running(model)
        stack.callback(lambda: running.model.engine.close())
        rules: list[Rule | None] = []
        governor: Governor | None = None
        offloader: Offloader | None = None

        def reopened(failed: Model, reason: str) -> Model:
            fresh = running.model = reopen(failed, reason)
            if fresh.variant.name != failed.variant.name:
                for rule in rules:
                    if isinstance(rule, Guarantee):
                        rule.withdraw(f"{fresh.variant.name} runs instead of {failed.variant.name}")
            return fresh

        def pays_for(size: int) -> bool:
            if governs(options) and (governor is None or not governor.offloads):
                return False
            budget = next((rule for rule in rules if isinstance(rule, Budget)), None)  # there is none yet at the very start
            return options.policy != "budget" or (budget is not None and budget.spares(size / 1e6))

        if options.offload is not None:
            offloader = _open_offloader(options.offload, options, model, bundle.card, say, pays_for)
            stack.callback(offloader.close)
        rules = rules_of(options, model, sources, offloader, say)
        gates = [_gate(options) for _ in sources]
        governor = governor_of(options, board, sources, [gate for gate in gates if gate is not None], say)
        controls = Controls(
            Pace(len(sources)) if governor is None else governor.pace,
            _adjustable(rules),
            [gate for gate in gates if gate is not None],
            score_threshold=_score_threshold(options, model),
        )
        labels = [label.name for label in bundle.card.labels]
        scenes = _scenes(options, model, labels, sources, rules, gates, controls)
        for source in sources:
            stack.enter_context(source)
        tally = Tally()
        monitor = Monitor(
            tally,
            lambda: running.model,
            sources,
            controls,
            board,
            offloader=offloader,
            governor=governor,
        )
        session = Session(options, sources, scenes, offloader, governor, controls, monitor, tally, running, reopened)
        monitor.sinks = session.sinks
        yield session


def _sources(options: RunOptions, own: Sequence[Source]) -> list[Source]:
    uris = [camera if camera.startswith("/dev/") else f"camera:{camera}" for camera in options.camera] + list(options.source)
    wish = Wish(
        size_wh=options.size,
        fps=options.rate or 0.0,
        pixels=options.pixels,
        timeout_s=options.camera_timeout,
        frozen_s=options.frozen_after,
        # one that is away must not keep the others from being watched, nor a service down that starts before its camera
        patient=len(uris) + len(own) > 1 or "NOTIFY_SOCKET" in os.environ,
    )
    sources = [*(open_source(uri, wish) for uri in uris), *own]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice; give each source once")
    return sources


def _model(options: RunOptions, bundle: Bundle, board: Board, live: bool, say: Say) -> tuple[Model, Reopener]:
    """The model, and what opens it anew. A camera's frame gets all threads at once; a file's frames get one each."""
    choice = None if options.variant or options.threads else remembered(board, bundle, say)
    threads = options.threads or board.threads
    lanes = min(options.lanes or (1 if live else threads), threads)
    model = open_model(
        bundle,
        board=board,
        variant=options.variant,
        threads=threads // lanes,
        spin=options.spin,
        lanes=lanes,
        choice=choice,
        say=say,
    )
    engine_options = replace(model.options, accelerator="cpu", options=())
    return model, Reopener(bundle, engine_options, board, variant=options.variant)


def _open_offloader(
    url: str, options: RunOptions, model: Model, card: Card, say: Say, pays_for: Callable[[int], bool]
) -> Offloader:
    from edge.commands.run_offload import open_offloader  # only now: it brings an HTTP client

    return open_offloader(url, options, model, card, at_level(say, "warning"), pays_for)


def _gate(options: RunOptions) -> MotionGate | None:
    """A source's motion gate: also where it is off, if somebody may switch it on."""
    if not options.motion_gate and not options.watched:
        return None
    gate = MotionGate(refresh_s=options.refresh)
    gate.enabled = options.motion_gate
    return gate


def _adjustable(rules: Sequence[Rule | None]) -> list[Adjustable]:
    """The rules whose threshold may be set; a promise's may not."""
    return [rule for rule in dict.fromkeys(rules) if isinstance(rule, (Threshold, Budget))]


def _score_threshold(options: RunOptions, model: Model) -> float | None:
    """What a detector reports from, where that may be set: a promise is for the bundle's own answers."""
    if not isinstance(model.task, Detect) or options.policy == "guarantee":
        return None
    general, _ = score_thresholds(options.score_threshold)
    return float(model.task.score_threshold) if general is None else general


def _scenes(
    options: RunOptions,
    model: Model,
    labels: Sequence[str],
    sources: Sequence[Source],
    rules: Sequence[Rule | None],
    gates: Sequence[MotionGate | None],
    controls: Controls,
) -> list[Scene]:
    _, single = score_thresholds(options.score_threshold)
    wanted, private = class_names(options.classes), class_names(options.redact)
    detector = isinstance(model.task, Detect)
    hint = ABOUT_THE_DEFAULT if options.model_path == DEFAULT_BUNDLE else ""
    for flag, value in (("--score-threshold", options.score_threshold), ("--track", options.track)):
        if value and not detector:
            raise UsageError(f"{flag} is for detectors, {model.name} is none; leave it out{hint}")

    def scene(number: int) -> Scene:
        masks = [parse_region(text) for text in for_source(options.mask, "--mask", number, len(sources))]
        regions = [parse_region(text) for text in for_source(options.roi, "--roi", number, len(sources))]
        if len(regions) > 1:
            raise UsageError(f"--roi is given {len(regions)} times for source {number}; give it once")

        def view(task: Task) -> Task:
            thresholds = {}
            task = looking_twice(task, options.second_look)
            if isinstance(task, Detect):
                base = task.score_threshold if controls.score_threshold is None else controls.score_threshold
                # what is private is looked for as the bundle says, whatever is reported
                least = min([base, *single.values(), *([] if private is None else [task.score_threshold])])
                task = task.replaced(score_threshold=least)
                thresholds = dict.fromkeys(labels, base) | single if single or least < base else {}
            if private is not None:
                task = Private(task, private, labels=labels)
            if wanted is not None or thresholds:
                task = Chosen(task, wanted, thresholds, labels=labels)
            return Focus(task, regions[0]) if regions else task

        try:
            view(model.task)  # a class that the model does not know is told now
        except UsageError as error:
            raise UsageError(f"{error}{hint}") from None
        return Scene(
            policy=policy_of(rules[number - 1], options),
            mask=PrivacyMask(masks) if masks else None,
            gate=gates[number - 1],
            view=view,
            tracker=Tracker() if options.track else None,
        )

    return [scene(number) for number in range(1, len(sources) + 1)]
