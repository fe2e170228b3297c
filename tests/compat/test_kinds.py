"""Each kind of signature with the MLflow of this environment: served, by which engine, with MLflow's answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.kinds import SAMPLES
from tests.compat.oracle import Oracle, agree, mlflow, quiet
from tests.compat.server import InProcess
from tests.compat.table import Key, record

_VERSION = ".".join(mlflow.__version__.split(".")[:2])
ROWS = [Key(flavour, _VERSION, kind) for flavour, kind in SAMPLES]
# The tolerance of compiled engines.
_TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    found = InProcess(tmp_path_factory.mktemp("server"), compiled=True)
    yield found
    found.close()


@pytest.mark.parametrize("key", ROWS, ids=lambda key: f"{key.flavour}, {key.signature_kind}")
def test_kind(server: InProcess, tmp_path: Path, key: Key) -> None:
    with quiet():
        sample = SAMPLES[key.flavour, key.signature_kind](tmp_path / "model")
    oracle = Oracle(sample.folder)
    theirs = [oracle.invocations(body) for body in sample.requests]
    assert all(answer.ok for answer in theirs), theirs
    try:
        served = server.load(sample.folder)
    except Exception as error:  # noqa: BLE001 - a broken model may raise anything
        reason = re.split(r" \(|; ", " ".join(str(error).split()))[0]
        record(*key, served=False, engine="", same=False, note=reason)
        return
    ours = [server.invocations(body) for body in sample.requests]
    different = [pair for pair in zip(ours, theirs, strict=True) if not agree(*pair, _TOLERANCE)]
    print(*different, sep="\n")
    record(*key, served=True, engine=served.engine.name, same=not different)
