"""A pytest plugin which says, in the very last line, whether the tests which need a Docker daemon had one."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from _pytest.terminal import TerminalReporter

from tests.support import docker


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not isinstance(reporter, TerminalReporter):
        return
    if docker.RAN:
        reporter.write_line(f"docker: run {docker.RAN[-1]}")
    elif docker.REFUSED:
        reporter.write_line(f"docker: NOT RUN, {docker.REFUSED[-1]}")
