"""A pytest plugin which gets the tools before the first test that needs them, with progress in plain sight.

Without it a fresh machine would build for minutes inside the first test: silent, and against that test's time limit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_UNIT = Path(__file__).resolve().parents[1] / "unit"


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly or all(item.path.is_relative_to(_UNIT) for item in session.items):
        return
    from tidemill.components import tools
    from tidemill.runtime.common.errors import ToolError

    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
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
