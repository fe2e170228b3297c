"""A pytest plugin that keeps tests which share servers together when pytest-xdist spreads the suite over processes.

A module stays whole, since its tests share its servers. Tests that share a platform, a daemon or an MLflow server
across modules form one group. The long groups begin first, so that the processes end at about the same time.

The groups are made here and not by the marker `xdist_group`: with pytest 9.2, xdist 3.8 ignores it without a word.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_KINDS = ("e2e", "integration", "compat", "unit", "benchmarks")
# What a module says when it shares something with other modules. One with its own fixture `platform` shares none.
_SHARED = {
    "docker": re.compile(r"\bdocker_(daemon|platform)\b"),
    "platform": re.compile(r"\bimport circle\b|\bsupport\.attacks\b|def test_\w+\([^)]*\bplatform: RunningPlatform\b"),
    "mlflow": re.compile(r"\bshared_mlflow\b"),
}


@functools.cache
def _group_of_module(path: str) -> str:
    text = (_ROOT / path).read_text(encoding="utf-8")
    own = "def platform(" in text
    found = (name for name, pattern in _SHARED.items() if pattern.search(text) and not (own and name == "platform"))
    return next(found, path)


def group_of(nodeid: str) -> str:
    """Return the group of a test: tests of one group run in one process, in order."""
    return _group_of_module(nodeid.split("::", 1)[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        """Hands a whole group to one process."""

        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups: dict[str, int] = {}

    def rank(item: pytest.Item) -> tuple[int, int, bool]:
        group = group_of(item.nodeid)
        kind = item.nodeid.split("/")[1] if "/" in item.nodeid else ""
        first = -1 if group in {"docker", "platform"} else _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
        # Attacks leave versions, alerts and runs behind, which other tests of a shared platform do not expect.
        return (first, groups.setdefault(group, len(groups)), "/attacks/" in item.nodeid)

    # Stable: tests of a module keep their order.
    items.sort(key=rank)
