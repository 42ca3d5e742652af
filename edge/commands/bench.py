"""edge-bench: which variant, engine and number of threads is fastest on this board, and how fast; edge-run uses it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import msgspec

from devices import Board, Sensors, detect, processor
from edge.accuracy import FIGURES, labelled
from edge.bench.measure import ROUNDS, Row, Setup, Watch, judge, measure
from edge.bench.plan import Configuration, configurations, thread_counts
from edge.bench.report import Bench, document, table, warnings
from edge.bench.sustained import Sustained, sustain
from edge.bench.turn import talk
from edge.bench.winner import best_of
from edge.bundle import Bundle, open_bundle
from edge.choice import Choice, remember
from edge.commands import SETTINGS, OneLineCommand, bundle_option, speaker, version_option
from edge.commands.option_types import Number
from edge.errors import EdgeError, EngineError, UsageError
from edge.packaged import DEFAULT_BUNDLE
from edge.places import check_writable
from edge.progress import Progress

NAME = "edge-bench"
say = speaker(NAME)


class _Threads(click.ParamType[Any]):
    name = "threads"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Numbers from 1 to 64 between commas."""
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= 64 for word in words):
            self.fail(f"{value!r}: expected numbers from 1 to 64 as in 1,2,4", param, ctx)
        return tuple(dict.fromkeys(int(word) for word in words))


@click.command(NAME, cls=OneLineCommand, context_settings=SETTINGS)
@bundle_option
@click.option("--variant", metavar="NAME", multiple=True, help="Only this variant; may be given again.  [default: all]")
@click.option("--threads", metavar="N,N,...", type=_Threads(), help="Engine threads.  [default: 1, 2, 4, the board's profile]")
@click.option(
    "--seconds",
    type=Number(0.1, 3600),
    default=6.0,
    show_default=True,
    help="Measure each configuration for so long.",
)
@click.option("--sustained", is_flag=True, help="Then run the fastest until the temperature settles.")
@click.option(
    "--sustained-minutes",
    type=Number(0.01, 600),
    default=15.0,
    show_default=True,
    help="... for so long at the most, and without a temperature sensor.",
)
@click.option("--data", metavar="DIR", type=Path, help="Measure accuracy on these labelled pictures, as edge-eval takes them.")
@click.option("--limit", type=click.IntRange(min=1), help="... on at most so many, spread evenly.")
@click.option(
    "--json", "json_path", metavar="FILE|-", help="Write everything as JSON; '-' is standard output, without a table."
)
@click.option("--cache", metavar="FILE", type=Path, help="Keep the fastest here instead of in the user's cache.")
@click.option("--no-save", is_flag=True, help="Keep nothing: edge-run goes on as before.")
@version_option
def main(
    model_path: Path,
    variant: tuple[str, ...],
    threads: tuple[int, ...] | None,
    seconds: float,
    sustained: bool,
    sustained_minutes: float,
    data: Path | None,
    limit: int | None,
    json_path: str | None,
    cache: Path | None,
    no_save: bool,
) -> int:
    """Measure a bundle on this board: each variant, engine, accelerator and number of threads.

    Each configuration runs in a process of its own, with the pictures of edge-run --source demo, by turns. One that
    dies, or disagrees with its golden check, is named and left out. The fastest of the most accurate is kept for
    edge-run, which uses it unless --variant or --threads is given.
    """
    context = click.get_current_context()
    context.with_resource(_terminated_as_interrupted())
    _check(context)
    if json_path is not None and json_path != "-":
        _check_json(json_path)
    if cache is not None:
        check_writable(cache, "--cache")
    bundle, board = open_bundle(model_path), detect()
    if data is not None:
        _check_data(bundle, data, limit)
    left_out: list[str] = []

    def leave_out(line: str) -> None:
        left_out.append(line)
        say(line, level="warning")

    setup = Setup(str(model_path), board.spin, seconds, ROUNDS, talk, None if data is None else str(data), limit)
    counts = threads or thread_counts(board.threads)
    rows, watch = _measured(setup, configurations(bundle, board, variant, counts, leave_out), board, leave_out)
    if not rows:
        raise EngineError(f"{bundle.where}: nothing can be measured here; {left_out[0]}")
    figures = _build_figures(bundle)
    winner = best_of(rows, figures)
    lasting = _lasting(setup, winner.configuration, watch, sustained_minutes * 60) if sustained else None
    bench = Bench(board, processor(), bundle, seconds, ROUNDS, watch, rows, winner, left_out, lasting)
    for line in warnings(bench):
        say(line, level="warning")
    if json_path != "-":
        click.echo("\n".join(table(bench)))
    if json_path is not None:
        _write_json(json_path, document(bench, figures))
    others = {one.name for one in bundle.card.variants} - set(variant or [one.name for one in bundle.card.variants])
    if others and not no_save:
        say(f"not kept for edge-run: {', '.join(sorted(others))} may be faster; measure without --variant for that")
    elif not no_save:
        _keep(bench, cache)
    return 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the bench as Ctrl-C does, with its children and a line."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(context: click.Context) -> None:
    """Refuse what was given and would do nothing. Raises UsageError."""
    given = context.params
    if given["limit"] is not None and given["data"] is None:
        raise UsageError("--limit does nothing without --data; give both or neither")
    minutes = context.get_parameter_source("sustained_minutes")
    if minutes != click.core.ParameterSource.DEFAULT and not given["sustained"]:
        raise UsageError("--sustained-minutes does nothing without --sustained; give both or neither")
    if given["cache"] is not None and given["no_save"]:
        raise UsageError("--cache does nothing with --no-save; give one of them")


def _check_json(path: str) -> None:
    """Refuse what could not be written when all is measured. Raises UsageError."""
    refused, place = f"--json {path}: cannot be written there", Path(path)
    if place.is_dir():
        raise UsageError(f"{refused}: it is a folder; name a file in it")
    if place.exists():
        if not os.access(place, os.W_OK):
            raise UsageError(f"{refused}: Permission denied; choose another path")
        return
    if not place.parent.is_dir():
        raise UsageError(f"{refused}: {place.parent}: no such folder; make it, or choose another path")
    check_writable(place, "--json")


def _check_data(bundle: Bundle, data: Path, limit: int | None) -> None:
    """Refuse what no child could use, once. Raises UsageError and DataError."""
    if bundle.card.task not in FIGURES:
        raise UsageError(
            f"--data: accuracy is measured for {' and '.join(FIGURES)} only, the task of {bundle.card.name} is "
            f"{bundle.card.task}; leave it out"
        )
    labelled(bundle, data, limit)


def _measured(setup: Setup, wanted: list[Configuration], board: Board, leave_out: Any) -> tuple[list[Row], Watch]:
    watch = Watch(Sensors(board))
    with Progress(NAME) as progress:
        rows = judge(setup, wanted, leave_out, progress)
        watch.rest()
        return measure(setup, rows, watch, leave_out, progress), watch


def _lasting(setup: Setup, of: Configuration, watch: Watch, most_s: float) -> Sustained | None:
    try:
        with Progress(NAME) as progress:
            return sustain(setup, of, watch, most_s, progress)
    except EngineError as error:
        say(f"--sustained: {of}: {error}", level="warning")
        return None


def _build_figures(bundle: Bundle) -> dict[str, float | None]:
    """The accuracy that each variant had where it was built; None where nobody measured it."""
    name = next(iter(FIGURES.get(bundle.card.task, {"": ""})))
    found = {variant.name: variant.accuracy for variant in bundle.card.variants}
    return {variant: None if accuracy is None or not name else getattr(accuracy, name) for variant, accuracy in found.items()}


def _write_json(path: str, found: dict[str, Any]) -> None:
    data = msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
    if path == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise EdgeError(f"--json {path}: cannot be written: {error.strerror or error}") from None


def _keep(bench: Bench, cache: Path | None) -> None:
    """Keep the fastest for edge-run; where that cannot be, say so and no more: it was measured all the same."""
    of = bench.winner.configuration
    choice = Choice(
        variant=of.variant,
        engine=of.engine,
        accelerator=of.accelerator,
        options=of.options,
        threads=of.threads,
        frame_ms=round(bench.winner.frame[0], 4),
        measured=datetime.now(timezone.utc).date().isoformat(),
    )
    try:
        place = remember(bench.board, bench.bundle, choice, cache)
    except OSError as error:
        say(f"not kept for edge-run: {error.filename}: {error.strerror}; give --cache FILE{_by_hand(bench.bundle, of)}")
    else:
        say(f"kept for edge-run in {place}")


def _by_hand(bundle: Bundle, of: Configuration) -> str:
    """How edge-run is told the fastest; no option of it names an accelerator."""
    if of.accelerator != "cpu":
        return ""
    model = [] if bundle.where == str(DEFAULT_BUNDLE) else ["--model", bundle.where]
    return f", or {shlex.join(['edge-run', *model, '--variant', of.variant, '--threads', str(of.threads)])}"


if __name__ == "__main__":
    main()
