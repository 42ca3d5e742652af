"""How far a build is, on one line of a terminal, and its candidates as lines where there is none."""

from __future__ import annotations

from collections.abc import Callable

from edge.progress import Progress as Shown
from quantize.record import Candidate


class Progress:
    """Shows how far a build is, within a search of so many minutes; candidates are said, when asked."""

    def __init__(self, say: Callable[[str], None], shown: Shown, minutes: float, verbose: bool) -> None:
        self._say, self._shown = say, shown
        self._minutes = minutes
        self._verbose = verbose

    def show(self, text: str, share: float | None) -> None:
        """What is being done, and how much of it is, where that is known."""
        if share is None:
            self._shown(text, note=f"searching for at most {self._minutes:g} min")
        else:
            self._shown(text, share, 1.0)

    def candidate(self, candidate: Candidate) -> None:
        """A candidate that was measured."""
        if not self._verbose:
            return
        settings = candidate.settings
        kept = f", {len(settings['float_layers'])} layers in float" if settings["float_layers"] else ""
        silu = ", SiLU in float" if settings["float_silu"] else ""
        fidelity = "no" if candidate.fidelity_db is None else f"{candidate.fidelity_db:.1f}"  # none of noise without bounds
        speed = f", {candidate.speedup:.2f} times float32's speed" if candidate.speedup is not None else ""
        self._say(
            f"{candidate.target}: {settings['calibrator']} ranges, {settings['rounding']} weights{kept}{silu}: "
            f"{fidelity} dB, metric {candidate.metric:.4f}{speed}" + (f"; {candidate.refused}" if candidate.refused else "")
        )

    def done(self) -> None:
        """Clear the line."""
        self._shown.done()
