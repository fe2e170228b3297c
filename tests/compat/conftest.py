"""Fixtures of the comparison with MLflow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.pair import Pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers."""
    found = Pair(tmp_path_factory.mktemp("pair"))
    yield found
    found.close()
