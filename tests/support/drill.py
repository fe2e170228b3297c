"""A pytest plugin for attacks: the fixture `drill`, and a table at the end of what was tried and what held.

The table is built from the tries themselves. An attack that succeeds fails its test; so does one that tried nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

_PROPERTY = "attack"
_SHOWN = 12


@dataclass
class Attack:
    """One kind of attack.

    Attributes:
        succeeded: what the platform did not withstand.
    """

    area: str
    name: str
    count: int = 0
    succeeded: list[str] = field(default_factory=list[str])

    def tried(self, what: object, held: bool, saw: object = "") -> None:
        """Record one try.

        Args:
            what: the try, for people.
            held: whether the platform withstood it.
            saw: what it did instead.
        """
        self.count += 1
        if not held:
            self.succeeded.append(f"{what}: {str(saw)[:300]}" if saw != "" else str(what))


class Drill:
    """Records the attacks of one test, which fails at its end if one of them succeeded."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._succeeded: list[str] = []

    @contextmanager
    def __call__(self, area: str, name: str) -> Generator[Attack]:
        """Try one kind of attack in the block. To try none counts as one that did not hold."""
        attack = Attack(area, name)
        try:
            yield attack
        except Exception as error:
            attack.tried("the attack could not be tried to its end", held=False, saw=error)
            raise
        finally:
            self._record(attack)

    def verdict(self) -> None:
        """Fail if an attack succeeded."""
        if self._succeeded:
            pytest.fail("\n".join(["these attacks succeeded:", *self._succeeded]), pytrace=False)

    def _record(self, attack: Attack) -> None:
        failed = len(attack.succeeded)
        # pytest-xdist hands on what a report's `user_properties` hold.
        row = [attack.area, attack.name, attack.count, attack.count - failed]
        self._item.user_properties.append((_PROPERTY, row))
        if failed or not attack.count:
            self._succeeded.append(f"{attack.area}: {attack.name}: {failed} of {attack.count} tries")
            self._succeeded += [f"  {each}" for each in attack.succeeded[:_SHOWN]]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Judge the attacks of a test that ended without an error."""
    result = yield
    if isinstance(found := pyfuncitem.funcargs.get("drill"), Drill):
        found.verdict()
    return result


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Drill:
    """Return what records the attacks of this test."""
    return Drill(request.node)


class _Table:
    """Collects the attacks from the reports of the tests."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[str, str, int, int]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: list[Any] = [value for name, value in report.user_properties if name == _PROPERTY]
        if found and report.when == "call":
            self.rows[report.nodeid] = [(area, name, tried, held) for area, name, tried, held in found]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        rows = sorted(row for found in self.rows.values() for row in found)
        if not rows:
            return
        widths = [
            max(len(row[0]) for row in [*rows, ("area", "")]),
            max(len(row[1]) for row in [*rows, ("", "attack")]),
        ]
        terminalreporter.section("attacks: what was tried, and what held")
        terminalreporter.write_line(f"{'area':{widths[0]}}  {'attack':{widths[1]}}  tried   held")
        for area, name, tried, held in rows:
            line = f"{area:{widths[0]}}  {name:{widths[1]}}  {tried:5d}  {held:5d}"
            terminalreporter.write_line(f"{line}  DID NOT HOLD" if held < tried or not tried else line)
        tried, held = sum(row[2] for row in rows), sum(row[3] for row in rows)
        terminalreporter.write_line(f"{'all':{widths[0]}}  {'':{widths[1]}}  {tried:5d}  {held:5d}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Table(), "attacks-table")
