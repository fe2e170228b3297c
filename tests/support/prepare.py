"""A pytest plugin which gets the tools before the first test that needs them, with progress in plain sight.

Without it a fresh machine would build for minutes inside the first test: silent, and against that test's time limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

_WITHOUT_TOOLS = ("tests/unit/", "tests/compat/")


def pytest_collection_finish(session: pytest.Session) -> None:
    # With pytest-xdist the processes that collect are not the one that has the terminal; see below.
    if not session.config.option.collectonly and not hasattr(session.config, "workerinput"):
        _prepare(session.config, (item.nodeid for item in session.items))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Iterable[str]) -> None:
    """Get the tools in the process that spreads the tests; it waits here before it hands out the first."""
    _prepare(node.config, ids)


def _prepare(config: pytest.Config, ids: Iterable[str]) -> None:
    if all(name.startswith(_WITHOUT_TOOLS) for name in ids):
        return
    from tidemill.components import tools
    from tidemill.runtime.common.errors import ToolError

    reporter = config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None

    def say(text: str) -> None:
        reporter.write(f"{text}\n", flush=True)

    toolbox = tools.default_toolbox()
    for package in toolbox.packages:
        if package.optional:
            continue
        try:
            toolbox.ensure(package.programs[0].name, say)
        except ToolError as error:
            say(str(error))  # the tests which need it will fail, the others are worth running
