"""Servers which several modules of tests may share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import Server, mlflow_server


@pytest.fixture(scope="session")
def shared_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One MLflow; each module has a model of its own there."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
