"""A run's state on disk: whole or not at all, whatever ends the process or the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch

from edge.errors import InputError
from train.loop import Row, State

PERIOD_S = 60.0


class Checkpoint:
    """The keeper of train.loop whose state lies in one file; written at the end of each epoch and once a minute."""

    def __init__(self, path: Path, period_s: float = PERIOD_S) -> None:
        self._path = path
        self._period_s = period_s
        self._kept_s = time.monotonic()

    def restore(self, state: State) -> bool:
        """Bring a new state to where the file left it; whether there is one. Raises InputError for one that does not fit."""
        if not self._path.exists():
            return False
        try:
            said: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            state.network.load_state_dict(said["network"])
            state.averaged.load_state_dict(said["averaged"])
            state.optimizer.load_state_dict(said["optimizer"])
            state.scaler.load_state_dict(said["scaler"])
            state.step, state.seconds, state.losses = said["step"], said["seconds"], said["losses"]
            state.history = [Row(**row) for row in said["history"]]
            state.best = said["best"]
        except Exception as error:  # torch raises classes of its own for each way in which a file can be wrong
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self._path}: not this run's checkpoint, or a damaged one ({reason}); begin anew") from None
        return True

    def keep(self, state: State, *, now: bool) -> None:
        """Write the state down, at once or where the last time is a period ago."""
        if not now and time.monotonic() - self._kept_s < self._period_s:
            return
        said = {
            "network": state.network.state_dict(),
            "averaged": state.averaged.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
            "step": state.step,
            "seconds": state.seconds,
            "losses": state.losses,
            "history": [asdict(row) for row in state.history],
            "best": state.best,
        }
        write_whole(self._path, lambda file: torch.save(said, file))
        self._kept_s = time.monotonic()


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """What `write` writes to a file, at `path` when all of it has reached the disk; until then what was there before."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else a power cut could undo the renaming
    finally:
        os.close(folder)
