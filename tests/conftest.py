"""Fixtures which several kinds of tests share; each starts what it needs when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.platform import RunningPlatform, copy_project

pytest_plugins = ["tests.support.prepare"]


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """One platform with the flights team, brought up by `tidemill up` in a copy of the project, and shared."""
    project = copy_project(tmp_path_factory.mktemp("platform") / "project")
    running = RunningPlatform(project, "flights-dev")
    try:
        running.up()
        yield running
    finally:
        running.close()
