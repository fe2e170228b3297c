"""A pytest plugin which says, at the end, whether the tests which need a Docker daemon had one."""

from __future__ import annotations

from typing import Any

from tests.support import docker


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if docker.RAN:
        terminalreporter.write_line(f"docker: run {docker.RAN[-1]}")
    elif docker.REFUSED:
        terminalreporter.write_line(f"docker: NOT RUN, {docker.REFUSED[-1]}")
