"""The search for one variant: candidates from the cheapest idea to the dearest, every one measured, logged and remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from edge.card import Variant
from edge.engines import EngineOptions, open_engine
from quantize.calibrate import CALIBRATORS
from quantize.instructions import Counter
from quantize.judge import Judge
from quantize.readback import read_back
from quantize.record import Candidate
from quantize.speed import paired
from quantize.store import Store, digest
from quantize.targets import Settings, Target, variant_of

KEPT_FLOAT = (1, 2, 3, 4, 8, 16, 32)
"""How many of the noisiest layers are left in float, one candidate after the other."""
EQUALLY_FAST = 0.9
EQUALLY_CLOSE_DB = 1.0
"""Of those within EQUALLY_FAST of the fastest, those within this of the closest to float32 come first, the fastest ahead."""
CLEAR_DB = 20.0
ENOUGH_PICTURES = 200
"""It is enough when outputs stand so clear of noise, or so many pictures say that not half is lost of what may be."""
LITTLE_DB = 1.0
VERSION = 5
"""Changes when what is built from the same settings changes, so that nothing stale is taken from the store."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a variant must reach: at most `max_drop` lost of the metric (a fraction), `min_speedup` times float32's speed,
    and, where they are given, at most `max_bytes` and `max_ece`."""

    max_drop: float = 0.01
    min_speedup: float = 1.0
    max_bytes: int | None = None
    max_ece: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Float32 as candidates are held to it: its file, its metric on the pictures that choose, its instructions by CPU."""

    data: bytes
    variant: Variant
    metric: float
    instructions: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A candidate with its settings and its file."""

    settings: Settings
    data: bytes
    candidate: Candidate


@dataclass(slots=True, eq=False)
class Search:
    """Finds the best settings of one target; `until_s` on the monotonic clock ends it after the candidate under way."""

    target: Target
    judge: Judge
    reference: Reference
    gates: Gates
    store: Store
    key: str
    threads: int
    until_s: float
    noise: Callable[[], dict[str, float]]
    train: Callable[[Settings], bool]
    counter: Counter | None
    heard: Callable[[Candidate], None]
    hints: Sequence[Settings] = ()
    qat: str = "auto"
    tried: dict[Settings, Tried] = field(default_factory=dict)
    _speeds: dict[tuple[object, ...], tuple[float, float]] = field(default_factory=dict)

    def run(self) -> list[Tried]:
        """Every candidate that passes, best first; those that don't are in `tried` with the reason."""
        for settings in self._ideas():
            if settings not in self.tried:
                self.tried[settings] = self.attempt(settings)
                self.heard(self.tried[settings].candidate)
            if time.monotonic() > self.until_s:
                break
        return self.ranked()

    def ranked(self) -> list[Tried]:
        """Those that pass, best first: about as fast as the fastest, then of these about as close to float32 as the closest."""
        passing = self._passing()
        speeds = {tried.settings: _speedup(tried.candidate, self.reference) for tried in passing}
        least = EQUALLY_FAST * max(speeds.values(), default=0.0)
        closest = max((_fidelity(tried) for tried in passing if speeds[tried.settings] >= least), default=0.0)

        def rank(tried: Tried) -> tuple[bool, bool, float, float]:
            speed, fidelity = speeds[tried.settings], _fidelity(tried)
            return speed >= least, fidelity >= closest - EQUALLY_CLOSE_DB, speed, fidelity

        return sorted(passing, key=rank, reverse=True)

    def best(self) -> Tried:
        """The candidate closest to float32, passing or not."""
        return max(self.tried.values(), key=lambda tried: _fidelity(tried, float("-inf")))

    def _ideas(self) -> Iterator[Settings]:
        """Settings to try next, in the light of what is known of those before."""
        yield from self.hints
        if self.hints and self._is_enough() and self.qat != "always":
            return
        for calibrator in CALIBRATORS:
            yield Settings(calibrator=calibrator)
        if self.target.has_silu():
            yield replace(self.best().settings, float_silu=True)
        if self._is_enough() and self.qat != "always":
            return
        rounded = self.best().settings
        yield replace(rounded, rounding="corrected")
        full = self.best().settings
        if not self._is_enough():
            yield from self._mixed(rounded)
        mixed = [tried.settings for tried in self.ranked()[:1]] or [self.best().settings]
        for settings in dict.fromkeys((full, *mixed)):
            loses = lost(self.tried[settings].candidate, self.reference, self.gates)  # which is all that training mends
            is_wanted = self.qat == "always" or (self.qat == "auto" and bool(loses) and not self._passing())
            if is_wanted and self.train(settings):
                yield replace(settings, rounding="qat")

    def _mixed(self, start: Settings) -> Iterator[Settings]:
        """More and more of the noisiest layers left in float, until they are no use; then the best of these corrected."""
        noise = self.noise()
        order = sorted(noise, key=lambda layer: noise[layer], reverse=True)
        for count in KEPT_FLOAT:
            if count >= len(order) or (self._is_enough() and count > KEPT_FLOAT[1]):
                break
            yield replace(start, float_layers=tuple(order[:count]))
        mixed = sorted((one for one in self.tried if one.float_layers), key=lambda settings: len(settings.float_layers))
        if not mixed:
            return
        fast = [tried.settings for tried in self.ranked() if tried.settings.float_layers]
        for settings in dict.fromkeys([self._knee(mixed), *fast[:1]]):
            yield replace(settings, rounding="corrected")

    def _knee(self, mixed: Sequence[Settings]) -> Settings:
        """The fewest layers in float after which the next two steps gain next to nothing."""
        fidelity = [_fidelity(self.tried[settings]) for settings in mixed]
        for index, reached in enumerate(fidelity[:-2]):
            if max(fidelity[index + 1 : index + 3]) - reached < LITTLE_DB:
                return mixed[index]
        return mixed[-1]

    def _is_enough(self) -> bool:
        """Whether what was found leaves nothing to ask for."""
        for tried in self._passing():
            candidate = tried.candidate
            drop = self.reference.metric - (candidate.metric or 0.0)
            is_sure = len(self.judge.truth) >= ENOUGH_PICTURES and drop <= self.gates.max_drop / 2
            if is_sure or _fidelity(tried) >= CLEAR_DB:
                return True
        return False

    def _passing(self) -> list[Tried]:
        return [tried for tried in self.tried.values() if not tried.candidate.refused]

    def identity(self, settings: Settings) -> str:
        """What a candidate is kept under."""
        return digest(VERSION, self.key, self.target.kind.name, settings)

    def attempt(self, settings: Settings) -> Tried:
        """A candidate, built and measured, or as it was kept; its gates are judged anew."""
        kind, identity = self.target.kind, self.identity(settings)
        data = self.store.get(f"file-{identity}")
        candidate = self.store.record(f"candidate-{identity}", Candidate)
        if data is not None and candidate is not None:
            return Tried(settings, data, self._gated(candidate))
        started = time.monotonic()
        data = self.target.build(settings)
        variant = variant_of(kind, data, next(iter(self.reference.variant.outputs)))
        with closing(open_engine(data, variant, EngineOptions(self.threads, exact=True))) as engine:
            verdict = self.judge.verdict(variant, self.judge.run(engine))
        made_of = read_back(data, kind.engine)
        candidate = Candidate(
            id=identity,
            target=kind.name,
            settings=settings.as_dict(),
            fidelity_db=verdict.fidelity_db,
            metric=verdict.metric,
            metric_error=verdict.error,
            bytes=len(data),
            integer_operators=made_of.integer,
            float_operators=made_of.floats,
        )
        self._measure_speed(candidate, settings, data, variant)
        candidate.seconds = round(time.monotonic() - started, 2)
        self.store.put(f"file-{identity}", data)
        self.store.put_record(f"candidate-{identity}", candidate)
        return Tried(settings, data, self._gated(candidate))

    def _measure_speed(self, candidate: Candidate, settings: Settings, data: bytes, variant: Variant) -> None:
        """Here in pairs, where the variant is meant for here, and on ARM by instructions, where it is not hopeless anyway.

        Once for each set of float layers: other settings change numbers in the file and not what is computed.
        """
        kind, picture = self.target.kind, self.judge.tensors[0].data
        structure = _structure(settings)
        if not kind.machines:
            if structure not in self._speeds:
                _, speed = paired([(self.reference.data, self.reference.variant), (data, variant)], picture)
                self._speeds[structure] = round(speed.ms, 3), round(speed.ratio, 3)
            candidate.ms, candidate.speedup = self._speeds[structure]
        if self.counter is not None and kind.cpus and not lost(candidate, self.reference, self.gates):
            alike = (one.candidate.instructions for known, one in self.tried.items() if _structure(known) == structure)
            known = next((counted for counted in alike if counted), None)
            candidate.instructions = known or self.counter.millions(data, variant, picture, kind.cpus)

    def _gated(self, candidate: Candidate) -> Candidate:
        """The candidate with the first gate that it misses, if any."""
        candidate.refused = refusal(candidate, self.reference, self.gates)
        return candidate


def _fidelity(tried: Tried, unknown: float = 0.0) -> float:
    return tried.candidate.fidelity_db or unknown


def _structure(settings: Settings) -> tuple[object, ...]:
    return settings.float_layers, settings.float_silu


def refusal(candidate: Candidate, reference: Reference, gates: Gates) -> str:
    """The gate that a candidate misses on the pictures that choose; nothing when it passes all."""
    if points := lost(candidate, reference, gates):
        return points
    if slow := slower(candidate, reference, gates):
        return slow
    if gates.max_bytes is not None and candidate.bytes > gates.max_bytes:
        return f"{candidate.bytes / 1e6:.2f} MB, {gates.max_bytes / 1e6:g} are allowed"
    return ""


def lost(candidate: Candidate, reference: Reference, gates: Gates) -> str:
    """What a candidate loses when it is more than may be lost, given how far chance moves so few pictures; else nothing."""
    drop, error = reference.metric - (candidate.metric or 0.0), candidate.metric_error or 0.0
    if drop <= gates.max_drop + error + 1e-9:
        return ""
    return f"loses {drop * 100:.2f} points, give or take {error * 100:.2f}; {gates.max_drop * 100:g} are allowed"


def slower(candidate: Candidate, reference: Reference, gates: Gates) -> str:
    """How slow a candidate is when it is known to be slower than it may be; else nothing."""
    speedup = _speedup(candidate, reference)
    is_known = candidate.speedup is not None or bool(candidate.instructions)
    if not is_known or speedup >= gates.min_speedup:
        return ""
    return f"{speedup:.2f} times float32's speed, {gates.min_speedup:g} is asked for"


def _speedup(candidate: Candidate, reference: Reference) -> float:
    """The least of what was measured here and counted for ARM; unknown, it counts as no gain."""
    known = list(instruction_ratios(candidate.instructions, reference.instructions).values())
    return min(known if candidate.speedup is None else [candidate.speedup, *known], default=1.0)


def instruction_ratios(own: dict[str, float], reference: dict[str, float]) -> dict[str, float]:
    """CPU → float32's instructions over a variant's own."""
    return {cpu: reference[cpu] / count for cpu, count in own.items() if cpu in reference and count}


def noisiest(noise: dict[str, float], names: dict[str, str], count: int = 3) -> str:
    """The layers to blame, in words: name and share of the noise."""
    total = sum(noise.values())
    order: Sequence[str] = sorted(noise, key=lambda layer: noise[layer], reverse=True)
    if not total:
        return ""
    return ", ".join(f"{names.get(layer, layer)} ({noise[layer] / total:.0%} of the noise)" for layer in order[:count])
