"""The model under LitServe: `python lit_app.py PORT`. LitServe looks at annotations, so there are none as strings."""

import os
import sys
from pathlib import Path
from typing import Any

import joblib
import litserve
import pandas as pd
from frames import Frames

_FOLDER = Path(os.environ["BENCHMARK_MODEL"])


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = joblib.load(_FOLDER / "model.joblib")
        self.frames = Frames(_FOLDER)

    def decode_request(self, request: dict[str, Any]) -> list[Any]:
        return request["row"]

    def batch(self, inputs: list[list[Any]]) -> pd.DataFrame:
        return self.frames.of(inputs)

    def predict(self, frame: pd.DataFrame) -> list[float]:
        return self.model.predict_proba(frame)[:, 1].tolist()

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, float]:
        return {"output": output}


if __name__ == "__main__":
    # Tried: a longer wait and the fast queue, which were slower here.
    api = Api(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
