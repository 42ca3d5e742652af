"""edge-run: the camera loop."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from devices import detect
from edge.bundle import Bundle, open_bundle
from edge.capture.forkserver import FORK_SERVER
from edge.card import ANSWERED_TASKS, Card
from edge.choice import remembered
from edge.commands import SETTINGS, OneLineCommand, speaker, version_option
from edge.commands.run_governor import governor_of, governs
from edge.commands.run_options import RunOptions, check_idle, class_names, for_source, run_options, score_thresholds
from edge.commands.run_outputs import check_targets, open_sinks
from edge.commands.run_policies import policy_of, rules_of
from edge.commands.run_report import report, summarize
from edge.errors import EdgeError, UsageError
from edge.governor import Governor
from edge.loop import Scene, run
from edge.model import Model, Reopener, open_model
from edge.motion import MotionGate
from edge.policies import Budget, Guarantee, Rule
from edge.privacy import Private
from edge.protocols import Sink, Source, Task
from edge.regions import Chosen, Focus, PrivacyMask, parse_region
from edge.service import Service
from edge.sinks.jsonl import ReaderGoneError
from edge.sources import open_source
from edge.sources.camera import Wish
from edge.summary import Tally
from edge.tasks.classify import looking_twice
from edge.tasks.detect import Detect
from edge.tracking import Tracker
from edge.types import Event, Notice

if TYPE_CHECKING:
    from edge.offload import Offloader

NAME = "edge-run"
say = speaker(NAME)
M_ARENA_MAX = -8
SAID_AFTER_S = 2.0


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@run_options
@version_option
def main(**given: Any) -> int:
    """Run a vision model on every frame of cameras or files, and ask the cloud about the uncertain ones.

    Every frame gets a local answer as a JSON event. With --offload, a frame whose confidence (a classifier's best
    score, a detector's lowest) is below --threshold is also sent to the endpoint, and its answer follows as a second
    event with the same seq and revises: true. A camera that fails is opened again until it is back, an engine that
    fails is reopened; both are said and are lines of the events, too. Ctrl-C or SIGTERM finishes the frame, flushes
    what was written and prints the summary.
    """
    options = RunOptions(**given)
    check_idle(click.get_current_context())
    if not options.camera and not options.source:
        raise UsageError("give --camera N or --source URI; 'edge-run --source demo' needs no camera")
    _share_one_heap()
    with ExitStack() as stack:
        sources = _sources(options)
        stack.callback(FORK_SERVER.close)
        check_targets(options)
        live = any(source.live for source in sources)
        if live:
            FORK_SERVER.start()  # it loads while the model does
        bundle = open_bundle(options.model_path)
        if options.offload is not None and bundle.card.task not in ANSWERED_TASKS:
            raise UsageError(
                f"--offload: an endpoint answers for {' and '.join(ANSWERED_TASKS)} only, the task of {bundle.card.name} is "
                f"{bundle.card.task}; leave it out"
            )
        model, reopen = _model(options, bundle, live)
        stack.callback(lambda: model.engine.close())

        def reopened(failed: Model, reason: str) -> Model:
            nonlocal model
            model = reopen(failed, reason)
            if model.variant.name != failed.variant.name:
                for rule in rules:
                    if isinstance(rule, Guarantee):
                        rule.withdraw(f"{model.variant.name} runs instead of {failed.variant.name}")
            return model

        def pays_for(size: int) -> bool:
            if governs(options) and (governor is None or not governor.offloads):
                return False
            budget = next((rule for rule in rules if isinstance(rule, Budget)), None)  # there is none yet at the very start
            return options.policy != "budget" or (budget is not None and budget.spares(size / 1e6))

        rules: list[Rule | None] = []
        governor: Governor | None = None
        offloader: Offloader | None = None
        if options.offload is not None:
            offloader = _open_offloader(options.offload, options, model, bundle.card, pays_for)
            stack.callback(offloader.close)
        labels = [label.name for label in bundle.card.labels]
        rules = rules_of(options, model, sources, offloader, say)
        scenes = _scenes(options, model, labels, sources, rules)
        gates = [scene.gate for scene in scenes if scene.gate is not None]
        governor = governor_of(options, detect(), sources, gates, say)
        for source in sources:
            stack.enter_context(source)
        sinks = open_sinks(options, sources, say)
        stack.callback(_close_all, sinks)
        running = f"{model.name} {model.variant.name} on {model.engine.name}, {_share(model)}"
        say(f"{running}, reading {_numbered(sources)}; Ctrl-C ends it")
        tally, service = Tally(), Service()
        events = run(
            sources,
            model,
            scenes,
            offloader=offloader,
            governor=governor,
            reopen=reopened,
            max_frames=options.max_frames,
            deadline_s=options.engine_timeout,
            tick=lambda: service.alive(time.monotonic()),
        )
        service.ready(running)
        ended, failure = _pump(sources, events, sinks, tally)
        service.stopping()
        if failure is None and tally.frames + tally.noticed("frame-failed") == options.max_frames:
            ended = "--max-frames reached"
    summary = summarize(tally, model, sources, offloader, governor, sinks, ended)
    try:
        report(summary, options.summary_path, say, offloading=offloader is not None)
    except EdgeError as error:
        if failure is None:
            raise
        say(str(error))  # the first failure is the one to end with
    if failure is not None:
        raise failure
    return 1 if summary.events_lost else 0


def _share_one_heap() -> None:
    """Let all threads allocate from one heap, where the C library is glibc: 7 MB less, and nothing left in idle ones."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _sources(options: RunOptions) -> list[Source]:
    uris = [camera if camera.startswith("/dev/") else f"camera:{camera}" for camera in options.camera] + list(options.source)
    wish = Wish(
        size_wh=options.size,
        fps=options.rate,
        pixels=options.pixels,
        timeout_s=options.camera_timeout,
        frozen_s=options.frozen_after,
        # one that is away must not keep the others from being watched, nor a service down that starts before its camera
        patient=len(uris) > 1 or "NOTIFY_SOCKET" in os.environ,
    )
    sources = [open_source(uri, wish) for uri in uris]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice; give each source once")
    return sources


def _close_all(sinks: Sequence[Sink]) -> None:
    """Close them side by side: each may take its time to deliver what waits."""
    closing = [threading.Thread(target=sink.close, name="closing", daemon=True) for sink in sinks]
    for thread in closing:
        thread.start()
    until_s = time.monotonic() + SAID_AFTER_S
    for thread in closing:
        thread.join(max(0.0, until_s - time.monotonic()))
    if any(thread.is_alive() for thread in closing):
        say("delivering what the sinks still hold; a second Ctrl-C ends it at once")
    for thread in closing:
        thread.join()


def _model(options: RunOptions, bundle: Bundle, live: bool) -> tuple[Model, Reopener]:
    """The model, and what opens it anew. A camera's frame gets all threads at once; a file's frames get one each."""
    board = detect()
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


def _numbered(sources: Sequence[Source]) -> str:
    """Their names, with the numbers that `--mask` and `--roi` go by where there are several."""
    if len(sources) == 1:
        return sources[0].name
    return ", ".join(f"{number}: {source.name}" for number, source in enumerate(sources, 1))


def _share(model: Model) -> str:
    lanes, threads = model.engine.lanes, model.engine.threads * model.engine.lanes
    return f"{threads} thread{'s' * (threads > 1)}{f', {lanes} frames at once' if lanes > 1 else ''}"


def _scenes(
    options: RunOptions, model: Model, labels: Sequence[str], sources: Sequence[Source], rules: Sequence[Rule | None]
) -> list[Scene]:
    general, single = score_thresholds(options.score_threshold)
    wanted, private = class_names(options.classes), class_names(options.redact)
    detector = isinstance(model.task, Detect)
    for flag, value in (("--score-threshold", options.score_threshold), ("--track", options.track)):
        if value and not detector:
            raise UsageError(f"{flag} is for detectors, {model.name} is none; leave it out")

    def scene(number: int) -> Scene:
        masks = [parse_region(text) for text in for_source(options.mask, "--mask", number, len(sources))]
        regions = [parse_region(text) for text in for_source(options.roi, "--roi", number, len(sources))]
        if len(regions) > 1:
            raise UsageError(f"--roi is given {len(regions)} times for source {number}; give it once")

        def view(task: Task) -> Task:
            thresholds = {}
            task = looking_twice(task, options.second_look)
            if isinstance(task, Detect):
                base = task.score_threshold if general is None else general
                # what is private is looked for as the bundle says, whatever is reported
                least = min([base, *single.values(), *([] if private is None else [task.score_threshold])])
                task = task.replaced(score_threshold=least)
                thresholds = dict.fromkeys(labels, base) | single if single or least < base else {}
            if private is not None:
                task = Private(task, private, labels=labels)
            if wanted is not None or thresholds:
                task = Chosen(task, wanted, thresholds, labels=labels)
            return Focus(task, regions[0]) if regions else task

        view(model.task)  # a class that the model does not know is told now
        return Scene(
            policy=policy_of(rules[number - 1], options),
            mask=PrivacyMask(masks) if masks else None,
            gate=MotionGate(refresh_s=options.refresh) if options.motion_gate else None,
            view=view,
            tracker=Tracker() if options.track else None,
        )

    return [scene(number) for number in range(1, len(sources) + 1)]


def _open_offloader(url: str, options: RunOptions, model: Model, card: Card, pays_for: Callable[[int], bool]) -> Offloader:
    from edge.commands.run_offload import open_offloader  # only now: it brings an HTTP client

    return open_offloader(url, options, model, card, say, pays_for)


def _pump(
    sources: Sequence[Source], events: Iterable[Event | Notice], sinks: Sequence[Sink], tally: Tally
) -> tuple[str, EdgeError | None]:
    """Give every event to every sink until the sources end, a signal comes or something fails; how it ended."""
    said = [0] * len(sources)
    said_at_once = {"endpoint-lost", "endpoint-back", *(["source-ended"] if len(sources) == 1 else [])}
    failure: EdgeError | None = None
    ended = "the source ended" if len(sources) == 1 else "the sources ended"
    with _stopping_on_signals(sources) as signals:
        try:
            for event in events:
                for sink in sinks:
                    sink.emit(event)
                tally.add(event)
                if isinstance(event, Notice) and event.kind not in said_at_once:
                    say(f"{event.about}: {event.text}")
                del event  # its picture's memory may be needed
                _say_skipped(sources, said)
        except ReaderGoneError:
            ended = "the reader of standard output went away"
        except EdgeError as error:
            ended, failure = "an error ended it", error
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
    if failure is None:
        _say_skipped(sources, said)
    return (f"ended by {signals[0]}" if signals else ended), failure


def _say_skipped(sources: Sequence[Source], said: list[int]) -> None:
    for number, source in enumerate(sources):
        for line in source.skipped[said[number] :]:
            say(f"skipped {line}")
        said[number] = len(source.skipped)


@contextmanager
def _stopping_on_signals(sources: Sequence[Source]) -> Iterator[list[str]]:
    """Stop the sources at the first SIGINT, SIGTERM or SIGHUP, and yield the list that names it; a second one kills."""
    received: list[str] = []

    def stop(number: int, frame: object) -> None:
        received.append(signal.Signals(number).name)
        for source in sources:
            source.stop()
        for other, handler in before.items():
            signal.signal(other, handler)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)  # the terminal went away: finish the files all the same
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
