"""One inference between two marks: what quantize.instructions runs under emulation, where only `edge` and an engine are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import numpy as np

from edge.card import Variant
from edge.engines import EngineOptions, open_engine
from edge.types import Geometry, Tensor


def main(folder: Path) -> None:
    """Infer `picture.npy` with `model` as `variant.json` says, twice, the second time between marks; leave `outputs.npz`."""
    variant = msgspec.json.decode((folder / "variant.json").read_bytes(), type=Variant)
    picture = np.load(folder / "picture.npy")
    tensor = Tensor(picture, Geometry((1.0, 1.0), (0.0, 0.0), (picture.shape[2], picture.shape[1])))
    engine = open_engine((folder / "model").read_bytes(), variant, EngineOptions())
    engine.infer(tensor)  # the first one allocates
    os.getppid()
    outputs = engine.infer(tensor)
    os.getppid()
    np.savez(folder / "outputs.npz", allow_pickle=False, **outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
