"""A pytest plugin which says, in the very last line, whether the tests which need a Docker daemon had one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from tests.support import docker


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["docker"] = (docker.RAN, docker.REFUSED)
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not isinstance(reporter, TerminalReporter):
        return
    if docker.RAN:
        reporter.write_line(f"docker: run {docker.RAN[-1]}")
    elif docker.REFUSED:
        reporter.write_line(f"docker: NOT RUN, {docker.REFUSED[-1]}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over from a process of pytest-xdist, as it ends, what it knows."""
    ran, refused = getattr(node, "workeroutput", {}).get("docker", ([], []))
    docker.RAN.extend(ran)
    docker.REFUSED.extend(refused)
