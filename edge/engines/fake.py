"""An engine without a model, for tests of everything around the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.errors import EngineError
from edge.types import Float32, Outputs, Tensor, UInt8


class FakeEngine:
    """Answers with `answer(tensor.data)`; by default one logit per class that depends only on the picture's mean."""

    name = "fake"

    def __init__(self, classes: int = 10, threads: int = 1, answer: Callable[[UInt8], Float32] | None = None) -> None:
        self.threads = threads
        self.lanes = self.batch = 1
        self.closed = False
        self._answer = answer or (lambda data: np.cos(np.arange(classes) * (1.0 + data.mean() / 255)).astype(np.float32))

    def infer(self, tensor: Tensor) -> Outputs:
        """One output, `logits` float32 [1, classes]."""
        if self.closed:
            raise EngineError("the engine is closed")
        return {"logits": np.array(self._answer(tensor.data), np.float32).reshape(1, -1)}

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True
