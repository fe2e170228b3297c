"""Fixtures which several kinds of tests share; each starts what it needs when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

# No test depends on how long an example takes: another program may be using the machine.
hypothesis.settings.register_profile("tidemill", deadline=None)
hypothesis.settings.load_profile("tidemill")

pytest.register_assert_rewrite(
    "tests.support.scenario", "tests.support.platform", "tests.support.docker_platform", "tests.support.attacks"
)

from tests.support.platform import RunningPlatform, copy_project  # noqa: E402 - what is rewritten is imported after
from tests.support.scenario import standing  # noqa: E402

pytest_plugins = [
    "tests.support.prepare",
    "tests.support.docker_told",
    "tests.support.grouping",
    "tests.support.drill",
    "tests.compat.table",
]


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """One platform with the flights team, brought up by `tidemill up` in a copy of the project, and shared."""
    project = copy_project(tmp_path_factory.mktemp("platform") / "project")
    with standing(RunningPlatform(project, "flights-dev")) as running:
        yield running
