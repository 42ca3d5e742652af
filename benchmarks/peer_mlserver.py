"""An MLServer runtime of the same model: its session options, preprocessing and outputs; runs in MLServer's environment."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from edge.bundle import open_bundle
from edge.model import open_model
from edge.packaged import DEFAULT_BUNDLE
from edge.types import Frame


class Lite0(MLModel):
    """`image`, BYTES [n] of one JPEG each → `labels` and `scores`, as edge-cloud answers."""

    async def load(self) -> bool:
        lanes = int(self.settings.parameters.extra["lanes"])
        self._model = open_model(open_bundle(DEFAULT_BUNDLE), variant="int8-x86", threads=1, lanes=lanes)
        self._pool = ThreadPoolExecutor(lanes)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, payload)

    def _answer(self, payload: InferenceRequest) -> InferenceResponse:
        results = [self._see(jpeg) for jpeg in Base64Codec.decode_input(payload.inputs[0])]
        labels = [label for result in results for label in result.labels]
        scores = [score for result in results for score in result.scores.tolist()]
        shape = [len(results), 5]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="labels", datatype="BYTES", shape=shape, data=labels),
                ResponseOutput(name="scores", datatype="FP32", shape=shape, data=scores),
            ],
        )

    def _see(self, jpeg: bytes):
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        tensor = self._model.task.prepare(Frame(image, 0, 0.0, "request"))
        return self._model.task.decode(self._model.engine.infer(tensor), tensor)
