"""Schemathesis against the real server: it accepts and refuses requests as its OpenAPI document says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.alone import server_of
from tests.support.serving import ModelServer, small_pipeline

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429"]

# Shapes and data must match, which a schema cannot express.
[[operations]]
include-operation-id = ["v2Infer", "v2InferOfVersion"]
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with server_of(tmp_path_factory.mktemp("alone"), *small_pipeline(1)) as one:
        yield one


def test_thousands_of_cases_are_answered_as_the_document_says(served: ModelServer, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(served.get("/openapi.json").text)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(tmp_path / "schemathesis.toml"), "run", str(tmp_path / "openapi.json")),
        *("--url", served.url, "--header", f"Authorization: Bearer {served.key}"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "100"),
        *("--suppress-health-check", "all", "--continue-on-failure", "--seed", "1"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    cases = re.search(r"([0-9]+) generated", done.stdout)
    assert cases, done.stdout
    assert int(cases[1]) > 2_000
    assert served.get("/readyz").status_code == 200
    assert "Traceback" not in served.log
