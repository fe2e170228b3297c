"""The model of mixed columns under MLServer: one tensor of the numbers, one of the texts, "" for a null among these."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
from frames import Frames
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class MixedModel(MLModel):
    async def load(self) -> bool:
        path = Path(self.settings.parameters.uri)
        self._model = joblib.load(path)
        self._frames = Frames(path.parent)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        numbers, texts = payload.inputs
        rows = numbers.shape[0]
        floats = np.array(numbers.data.root, dtype="float64").reshape(rows, -1)
        words = np.array(texts.data.root, dtype="object").reshape(rows, -1)
        words[words == ""] = None
        probability = self._model.predict_proba(self._frames.joined(floats, words))[:, 1]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probability", probability)])
