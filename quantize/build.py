"""From a float model and pictures to measured variants and a record of how they came about."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from devices import processor
from edge.card import Variant
from edge.datasets import labelled_frames
from edge.engines import EngineOptions, open_engine
from edge.errors import InputError
from edge.progress import told
from edge.types import UInt8
from quantize.data import Split
from quantize.disagree import disagreements
from quantize.float_model import FloatModel
from quantize.instructions import Counter
from quantize.judge import METRICS, Judge
from quantize.measure import Measured, measure
from quantize.pack import created, tools
from quantize.record import Candidate, Chosen, LayerNoise, Left, Record
from quantize.refusals import too_inaccurate, too_slow, unlike
from quantize.search import ENOUGH_PICTURES, Gates, Reference, Search, Tried, instruction_ratios, lost, noisiest, slower
from quantize.sensitivity import layer_noise
from quantize.speed import paired
from quantize.store import Store, digest
from quantize.targets import KINDS, Kind, Settings, target, variant_of
from quantize.training import trained
from quantize.workshop import Workshop

Say = Callable[[str], None]

SEARCH_ORDER = ("int8-x86", "int8-tflite", "int8-arm")
"""What is found for one is where the next begins; ARM's arithmetic, which is slow to compute here, comes last."""

FLOAT_TOLERANCE = 1e-2
"""Of outputs: float sums differ in order between processors."""
SENSITIVITY_PICTURES = 2
SECOND_CHANCES = 3
"""So many of the best candidates may prove themselves on the pictures that measure."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build is asked for: variants, gates, minutes to prepare and search in, threads, and when to train."""

    names: tuple[str, ...]
    gates: Gates
    minutes: float
    threads: int
    qat: str = "auto"
    """auto, always or never"""


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears what happens: lines, unreadable pictures, each candidate, and how far the build is (text, share or None)."""

    say: Say
    bad: Say
    candidate: Callable[[Candidate], None]
    progress: Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """The variants that passed, in order of preference, and the record of all that was tried."""

    variants: tuple[Measured, ...]
    record: Record


def build(
    model: FloatModel,
    split: Split,
    plan: Plan,
    *,
    golden: UInt8,
    data_name: str,
    store: Store,
    counter: Counter | None,
    ears: Ears,
) -> Built:
    """Search, measure and judge every named variant; `golden` is a picture uint8 BGR [h, w, 3].

    What misses a gate is left out and named to `say` with what is to blame. Raises InputError for what cannot be built at all.
    """
    return _Build(model, split, plan, golden, data_name, store, counter, ears).run()


class _Build:
    def __init__(
        self,
        model: FloatModel,
        split: Split,
        plan: Plan,
        golden: UInt8,
        data_name: str,
        store: Store,
        counter: Counter | None,
        ears: Ears,
    ) -> None:
        self._model, self._split, self._plan, self._ears = model, split, plan, ears
        self._golden, self._data_name, self._counter, self._store = golden, data_name, counter, store
        self._started_s = time.monotonic()
        pictures = [model.prepare(frame).data for frame, _ in labelled_frames(split.calibration, ears.bad)]
        if not pictures:
            raise InputError("no calibration picture is readable; give more pictures")
        # chance moves the metric of few pictures by more than having calibrated on them flatters it
        choice = split.choice if len(split.choice) >= ENOUGH_PICTURES // 2 else (*split.choice, *split.calibration)
        ears.say(f"preparing: {len(pictures)} pictures to calibrate on, and float32 on {len(choice) + len(split.measure)} ...")
        self._judge = Judge(model, choice, ears.bad)
        self._workshop = Workshop(model, pictures, plan.threads, store, ears.say, ears.progress)
        self._noise: dict[str, float] | None = None
        self._reference = self._refer()
        self._float32 = self._measured(self._reference.variant, self._reference.data)
        self._record = self._blank_record()

    def run(self) -> Built:
        kept: list[Measured] = []
        wanted = [name for name in SEARCH_ORDER if name in self._plan.names]
        hints: tuple[Settings, ...] = ()
        deadline_s = self._started_s + self._plan.minutes * 60
        for index, name in enumerate(wanted):
            now_s = time.monotonic()
            search = self._search(name, now_s + max(deadline_s - now_s, 0.0) / (len(wanted) - index), hints)
            ranked = search.run()
            # trained weights are of one limit, and the next target may have another
            hints = tuple(tried.settings for tried in ranked[:1] if tried.settings.rounding != "qat")
            self._record.candidates += [tried.candidate for tried in search.tried.values()]
            found = self._proven(KINDS[name], search, ranked)
            if found is not None:
                kept.append(found)
        if "float32" in self._plan.names:
            kept.append(self._float32)
        if self._noise is not None:
            self._record.layers = self._layers()
        self._record.seconds = round(time.monotonic() - self._started_s, 1)
        return Built(tuple(sorted(kept, key=self._preference)), self._record)

    def _refer(self) -> Reference:
        """Float32's file, its outputs on the pictures that choose, and what it costs."""
        data = self._workshop.float32()
        variant = variant_of(KINDS["float32"], data, self._model.role, FLOAT_TOLERANCE)
        engine = open_engine(data, variant, EngineOptions(self._plan.threads, spin=True))
        outputs = self._judge.run(engine, tick=lambda share: self._ears.progress("float32: pictures that choose", share))
        engine.close()
        self._judge.refer_to(outputs)
        instructions = {}
        if self._counter is not None:
            self._ears.progress("float32: counting instructions on emulated ARM processors", None)
            instructions = self._counter.millions(data, variant, self._judge.tensors[0].data, KINDS["float32"].cpus)
        return Reference(data, variant, self._judge.metric(variant, outputs), instructions)

    def _search(self, name: str, until_s: float, hints: tuple[Settings, ...]) -> Search:
        made = target(name, self._workshop)

        def heard(candidate: Candidate) -> None:
            self._ears.candidate(candidate)
            self._ears.progress(f"{name}: candidate {len(search.tried) + 1}", None)

        search = Search(
            target=made,
            judge=self._judge,
            reference=self._reference,
            gates=self._plan.gates,
            store=self._store,
            key=digest(self._workshop.calibration_key, self._judge.key, tools(), processor()),
            threads=self._plan.threads,
            until_s=until_s,
            noise=self._layer_noise,
            train=lambda settings: trained(self._workshop, made.kind, settings, until_s, self._ears.say, self._ears.progress),
            counter=self._counter,
            heard=heard,
            hints=hints,
            qat=self._plan.qat,
        )
        return search

    def _layer_noise(self) -> dict[str, float]:
        """Which layers disturb most; once for all targets, whose arithmetic is the same but for a bit of the weights."""
        if self._noise is None:
            key = f"noise-{digest(self._workshop.calibration_key, self._judge.key)}"
            kept = self._store.record(key, dict[str, float])
            if kept is None:
                inputs = [self._workshop.normalize(tensor.data) for tensor in self._judge.tensors[:SENSITIVITY_PICTURES]]

                def tick(done: int, of: int) -> bool:
                    self._ears.progress("sensitivity of layers", done / of)
                    return True

                kept = layer_noise(self._workshop.graph, inputs, 127, self._judge.noise, tick)
                self._store.put_record(key, kept)
            self._noise = kept
        return self._noise

    def _measured(self, variant: Variant, data: bytes) -> Measured:
        samples = self._split.measure
        what = f"{variant.name}: measuring on {len(samples)} pictures"
        self._ears.progress(what, 0.0)
        return measure(
            self._model,
            variant,
            data,
            self._judge,
            told(samples, lambda share: self._ears.progress(what, share)),
            self._golden,
            self._data_name,
            self._plan.threads,
            self._ears.bad,
        )

    def _proven(self, kind: Kind, search: Search, ranked: Sequence[Tried]) -> Measured | None:
        """The best candidate that holds on the pictures that measure, too; else None, the refusal recorded and said."""
        closest = max(ranked, key=lambda tried: tried.candidate.fidelity_db or 0.0, default=None)
        chances = list(dict.fromkeys([*ranked[: SECOND_CHANCES - 1], *([closest] if closest else [])]))
        why, last, seen = "", None, None
        for tried in chances:
            seen = self._measured(variant_of(kind, tried.data, self._model.role), tried.data)
            why, last = self._missed(kind, tried, seen), tried
            tried.candidate.refused = why
            if not why:
                self._choose(kind, tried, seen)
                return self._finished(tried, seen)
        if last is None:
            last = search.best()
            why = self._refused(kind, last)
        metrics = seen.metrics if seen else {}
        candidate = last.candidate
        self._record.left_out.append(
            Left(
                variant=kind.name,
                why=why,
                candidate=candidate.id,
                metrics=metrics,
                speedup=candidate.speedup,
                instructions=candidate.instructions,
                bytes=candidate.bytes,
                processors=processors(kind),
            )
        )
        self._ears.say(f"{kind.name} left out: {why}")
        return None

    def _missed(self, kind: Kind, tried: Tried, seen: Measured) -> str:
        """The gate that a candidate misses on the pictures that measure; nothing when it passes."""
        name, gates = METRICS[self._model.task], self._plan.gates
        drop = self._float32.metrics[name] - seen.metrics[name]
        if drop > gates.max_drop + 1e-9:
            fidelity = tried.candidate.fidelity_db or 0.0
            blame = noisiest(self._layer_noise(), self._workshop.names)
            return too_inaccurate(drop, gates.max_drop, fidelity, blame) + unlike(self._clipped(tried, kind))
        if gates.max_ece is not None and seen.metrics["ece"] > gates.max_ece:
            return (
                f"calibration error {seen.metrics['ece']:.3f}, {gates.max_ece:g} is allowed; give more pictures to fit it with"
            )
        return ""

    def _clipped(self, tried: Tried, kind: Kind) -> tuple[float, float]:
        """The best candidate's fidelity on the pictures that chose it, and on some of those that measure."""
        other = Judge(self._model, self._split.measure[:16], self._ears.bad)
        engine = open_engine(self._reference.data, self._reference.variant, EngineOptions(self._plan.threads))
        other.refer_to(other.run(engine))
        engine.close()
        variant = variant_of(kind, tried.data, self._model.role)
        engine = open_engine(tried.data, variant, EngineOptions(self._plan.threads, exact=True))
        fidelity_db = other.fidelity_db(other.run(engine))
        engine.close()
        return tried.candidate.fidelity_db or 0.0, fidelity_db

    def _refused(self, kind: Kind, tried: Tried) -> str:
        """Why not even the candidate closest to float32 passes on the pictures that choose."""
        candidate, gates = tried.candidate, self._plan.gates
        if lost(candidate, self._reference, gates):
            drop = self._reference.metric - (candidate.metric or 0.0)
            return too_inaccurate(
                drop, gates.max_drop, candidate.fidelity_db or 0.0, noisiest(self._layer_noise(), self._workshop.names)
            )
        if slower(candidate, self._reference, gates):
            return too_slow(candidate.refused, tried.data, kind, self._judge.tensors[0].data, candidate)
        return candidate.refused

    def _choose(self, kind: Kind, tried: Tried, seen: Measured) -> None:
        tried.candidate.chosen = True
        settings = tried.settings
        kept = f", {len(settings.float_layers)} layers kept in float" if settings.float_layers else ""
        self._record.chosen.append(
            Chosen(
                variant=kind.name,
                candidate=tried.candidate.id,
                why=f"passes every gate; ranges by {settings.calibrator}, weights by {settings.rounding}{kept}",
                metrics=seen.metrics,
                speedup=tried.candidate.speedup,
                instructions=tried.candidate.instructions,
                bytes=len(tried.data),
                processors=processors(kind),
            )
        )
        self._record.reliability.append(seen.reliability)
        self._record.disagreements += disagreements(
            kind.name, self._float32.results, seen.results, self._split.measure, self._model.labels
        )

    def _finished(self, tried: Tried, seen: Measured) -> Measured:
        """A processor may round otherwise, but by no more than what quantization itself changed."""
        changed = float(np.abs(seen.golden - self._float32.golden).max())
        tolerance = round(max(changed, FLOAT_TOLERANCE), 4)
        variant = msgspec.structs.replace(seen.variant, tolerance=tolerance, speedup=tried.candidate.speedup)
        return replace(seen, variant=variant)

    def _preference(self, measured: Measured) -> float:
        """The faster first: by the geometric mean of what is known of x86 and of ARM; float32 counts as 1."""
        variant = measured.variant
        chosen = next((one for one in self._record.chosen if one.variant == variant.name), None)
        if chosen is None:
            return -1.0
        ratios = list(instruction_ratios(chosen.instructions, self._reference.instructions).values())
        known = [ratio for ratio in (chosen.speedup, min(ratios, default=None)) if ratio is not None]
        return -float(np.exp(np.mean(np.log(known)))) if known else -1.0

    def _layers(self) -> list[LayerNoise]:
        assert self._noise is not None
        total = sum(self._noise.values()) or 1.0
        floats = {layer for c in self._record.candidates if c.chosen for layer in c.settings["float_layers"]}
        return [
            LayerNoise(
                target="all",
                layer=self._workshop.names.get(layer, layer),
                operators=[layer],
                noise=noise,
                share=noise / total,
                kept_float=layer in floats,
            )
            for layer, noise in sorted(self._noise.items(), key=lambda item: -item[1])
        ]

    def _blank_record(self) -> Record:
        gates, float32 = self._plan.gates, self._float32
        limits = {"max_drop_points": gates.max_drop * 100, "min_speedup": gates.min_speedup}
        limits |= {"max_mb": gates.max_bytes / 1e6} if gates.max_bytes is not None else {}
        limits |= {"max_ece": gates.max_ece} if gates.max_ece is not None else {}
        [speed] = paired([(self._reference.data, self._reference.variant)], self._judge.tensors[0].data)
        name = METRICS[self._model.task]
        return Record(
            model=self._model.name,
            task=self._model.task,
            metric_name=name,
            created=created(),
            command="",
            machine=processor(),
            gates=limits,
            split={
                "calibration": len(self._workshop.pictures),
                "choice": len(self._judge.tensors),
                "measure": len(float32.results),
            },
            float32=float32.metrics | {"ms": round(speed.ms, 3), "bytes": len(self._reference.data)},
            float32_choice={name: self._reference.metric},
            float32_instructions=self._reference.instructions,
            reliability=[float32.reliability],
        )


def processors(kind: Kind) -> str:
    """What a variant is for, in words."""
    return "ARM boards" if kind.machines else "any processor"
