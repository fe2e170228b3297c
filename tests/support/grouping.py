"""A pytest plugin that keeps tests which share servers together when pytest-xdist spreads the suite over processes.

A module stays whole, since its tests share its servers. Tests that share a platform, a daemon or an MLflow server
across modules form one group. The long groups begin first, so that the processes end at about the same time.
"""

from __future__ import annotations

import pytest

# Fixture of a whole session, or a helper a module imports -> the group.
_SHARED = {"platform": "platform", "shared_mlflow": "mlflow"}
_DOCKER = ("docker_daemon", "docker_platform")
_KINDS = ("e2e", "integration", "unit", "benchmarks")


def group_of(item: pytest.Item) -> str:
    """Return the group of a test: tests of one group run in one process, in order."""
    module = getattr(item, "module", None)
    if any(hasattr(module, name) for name in _DOCKER):
        return "docker"
    fixtures = getattr(item, "fixturenames", ())
    for name, group in _SHARED.items():
        # A module may have a fixture of that name for itself; then it shares nothing.
        if name in fixtures and name not in vars(module):
            return group
    return item.nodeid.split("::", 1)[0]


def _order(item: pytest.Item, groups: dict[str, int]) -> tuple[int, int]:
    kind = item.nodeid.split("/")[1] if "/" in item.nodeid else ""
    rank = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    group = group_of(item)
    return (-1 if group in {"docker", "platform"} else rank, groups[group])


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups: dict[str, int] = {}
    for item in items:
        group = group_of(item)
        groups.setdefault(group, len(groups))
        item.add_marker(pytest.mark.xdist_group(group))
    # Stable: tests of a module keep their order.
    items.sort(key=lambda item: _order(item, groups))
