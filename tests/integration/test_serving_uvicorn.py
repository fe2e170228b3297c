"""The real server with another version of uvicorn: plain ASGI, the same answers, and a drain at SIGTERM."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.support.alone import server_of
from tests.support.serving import small_pipeline

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# Python imports `sitecustomize` when it starts: the server then sees a version without the fast path.
OTHER_VERSION = 'import uvicorn\nuvicorn.__version__ = "0.55.0"\n'


def test_another_uvicorn_serves_without_the_fast_path(tmp_path: Path) -> None:
    pipeline, frame = small_pipeline(1)
    row = {"distance": 1400.0, "hour": 17, "carrier": "UA"}
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(OTHER_VERSION)
    variables = {"PYTHONPATH": str(tmp_path / "site")}
    with server_of(tmp_path, pipeline, frame, variables=variables, drain_seconds=1.5) as served:
        assert served.process
        with served.client() as client:
            answer = client.post("/invocations", json={"dataframe_records": [row]})
            assert answer.status_code == 200, answer.text
            expected = pipeline.predict_proba(pd.DataFrame([row]))[0, 1]
            assert answer.json()["predictions"][0][1] == pytest.approx(expected, abs=1e-6)
            assert answer.headers["x-tidemill-model-version"] == answer.json()["version"]
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
            refused = client.post("/invocations", json={}, headers={"Authorization": "Bearer wrong"})
            assert (refused.status_code, refused.json()["status"]) == (401, 401)
            label = {"request_id": answer.json()["request_id"], "row": 0, "label": 1}
            kept = client.post("/labels", json={"labels": [label]})
            assert kept.status_code == 200, kept.text
            os.kill(served.process.pid, signal.SIGTERM)
            served.wait(lambda: client.get("/readyz").status_code == 503)
            assert client.post("/predict", json={"rows": [row]}).status_code == 200, "it answers while it drains"
        assert served.process.wait(30) == 0
        served.process = None
    lines = [json.loads(line) for line in served.log.splitlines()]
    [told] = [line for line in lines if "without the fast path" in line.get("message", "")]
    assert (told["uvicorn"], told["needed"]) == ("0.55.0", "0.54.*")
    assert not [line for line in lines if line.get("exception")]
