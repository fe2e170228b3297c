"""A pytest plugin for attacks: the fixture `drill`, and a table of all attempts and how many the platform withstood.

The table is built from the recorded attempts. A test fails if an attack succeeds, or if it tried nothing.
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
    """One kind of attack, on one service or on the whole platform.

    Attributes:
        succeeded: the attempts that the platform did not withstand.
    """

    area: str
    name: str
    on: str = ""
    count: int = 0
    succeeded: list[str] = field(default_factory=list[str])

    def tried(self, what: object, held: bool, saw: object = "") -> None:
        """Record one attempt.

        Args:
            what: description of the attempt.
            held: whether the platform withstood it.
            saw: the platform's reaction, shown if it did not.
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
    def __call__(self, area: str, name: str, on: str = "") -> Generator[Attack]:
        """Record the attempts of one kind of attack in the block, `on` a service. No attempt counts as a failure."""
        attack = Attack(area, name, on)
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
        row = [attack.area, attack.name, attack.on, attack.count, attack.count - failed]
        self._item.user_properties.append((_PROPERTY, row))
        if failed or not attack.count:
            where = f" on {attack.on}" if attack.on else ""
            self._succeeded.append(f"{attack.area}: {attack.name}{where}: {failed} of {attack.count} tries")
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
    """Return the recorder of this test's attacks."""
    return Drill(request.node)


@dataclass
class _Row:
    """All attempts of one kind of attack."""

    tried: int = 0
    held: int = 0
    failed: list[str] = field(default_factory=list[str])


class _Table:
    """Collects the attacks from the reports of the tests."""

    def __init__(self) -> None:
        self._found: dict[str, list[list[Any]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the attacks of a test."""
        if report.when == "call":
            properties: list[tuple[str, Any]] = report.user_properties
            self._found[report.nodeid] = [value for name, value in properties if name == _PROPERTY]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table, one line for each kind of attack."""
        rows: dict[tuple[str, str], _Row] = {}
        for area, name, on, tried, held in (value for values in self._found.values() for value in values):
            row = rows.setdefault((area, name), _Row())
            row.tried += tried
            row.held += held
            if held < tried or not tried:
                row.failed.append(on or "the platform")
        if not rows:
            return
        widths = [max(len(key[at]) for key in [*rows, ("area", "attack")]) for at in (0, 1)]
        terminalreporter.section("attacks: attempts, and how many the platform withstood")
        terminalreporter.write_line(f"{'area':{widths[0]}}  {'attack':{widths[1]}}  tried   held")
        for (area, name), row in sorted(rows.items()):
            line = f"{area:{widths[0]}}  {name:{widths[1]}}  {row.tried:5d}  {row.held:5d}"
            failed = f"  DID NOT HOLD: {', '.join(sorted({*row.failed}))}" if row.failed else ""
            terminalreporter.write_line(line + failed)
        tried, held = sum(row.tried for row in rows.values()), sum(row.held for row in rows.values())
        terminalreporter.write_line(f"{'all':{widths[0]}}  {'':{widths[1]}}  {tried:5d}  {held:5d}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Table(), "attacks-table")
