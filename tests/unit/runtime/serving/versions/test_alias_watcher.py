"""The follower: what serves is what the alias says, unless that cannot serve."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tidemill.runtime.common.errors import UnreachableError
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.versions import alias_watcher as following
from tidemill.runtime.serving.versions.alias_watcher import Follower
from tidemill.runtime.serving.versions.model import VersionInfo


def info(version: str, source: str = "") -> VersionInfo:
    return VersionInfo("flights", version, "champion", source or f"models:/m-{version}", "run", {})


class FakeSource:
    """A registry which says what it is told to."""

    def __init__(self) -> None:
        self.alias: VersionInfo | None = None
        self.down = False
        self.state: VersionInfo | None = None
        self.fetched: list[str] = []
        self.forgotten: list[str] = []

    def resolve(self) -> VersionInfo | None:
        if self.down:
            raise UnreachableError("down")
        return self.alias

    def fetch(self, info: VersionInfo) -> Path:
        self.fetched.append(info.version)
        return Path(info.version)

    def forget(self, info: VersionInfo) -> None:
        self.forgotten.append(info.version)

    def remember(self, info: VersionInfo) -> None:
        self.state = info

    def remembered(self) -> VersionInfo | None:
        return self.state


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


def follow(source: FakeSource, *, broken: tuple[str, ...] = (), other_output: tuple[str, ...] = ()) -> Any:
    def load(info: VersionInfo, _: Path) -> Any:
        if info.version in broken:
            raise ZeroDivisionError("broken model")
        return SimpleNamespace(
            info=info,
            contract=Contract((Column("a", "double"),)),
            output="scores" if info.version in other_output else "score",
            engine=SimpleNamespace(name="sklearn"),
            close=lambda: closed.append(info.version),
        )

    def swapped(old: Any, new: Any) -> None:
        swaps.append((old.info.version if old else None, new.info.version))

    closed: list[str] = []
    swaps: list[tuple[str | None, str]] = []
    made = Follower(source, load, poll_seconds=1, swapped=swapped)
    made.closed, made.told = closed, swaps  # type: ignore[attr-defined]
    return made


def serving(follower: Follower) -> str | None:
    return follower.current.info.version if follower.current else None


def test_missing_alias_and_a_silent_registry_are_told_apart(source: FakeSource) -> None:
    follower = follow(source)
    source.down = True
    follower.step()
    assert (follower.reachable, follower.missing, serving(follower)) == (False, False, None)
    source.down = False
    follower.step()
    assert (follower.reachable, follower.missing) == (True, True)
    source.alias = info("1")
    follower.step()
    assert (follower.missing, serving(follower)) == (False, "1")
    source.alias = None
    follower.step()
    assert (follower.missing, serving(follower)) == (True, "1"), "an alias taken away stops no answers"


def test_the_same_number_made_anew_is_another_version(source: FakeSource) -> None:
    follower = follow(source)
    source.alias = info("1", "models:/m-old")
    follower.step()
    source.alias = info("1", "models:/m-new")
    follower.step()
    follower.step()
    assert source.fetched == ["1", "1"]
    assert follower.current
    assert follower.current.info.source == "models:/m-new"


def test_a_broken_version_is_tried_again_with_growing_patience(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(following.time, "monotonic", lambda: now[0])
    follower = follow(source, broken=("2",))
    for version in ("1", "2"):
        source.alias = info(version)
        follower.step()
    assert serving(follower) == "1"
    assert follower.failure
    assert follower.failure.error == "ZeroDivisionError: broken model"
    for moment, attempts in ((9, 1), (10, 2), (29, 2), (30, 3), (69, 3), (70, 4)):
        now[0] = moment
        follower.step()
        assert source.fetched.count("2") == attempts, f"after {moment} s"
    assert source.forgotten == ["2"], "a damaged download is fetched anew, once"
    source.alias = info("3")
    follower.step()
    assert (serving(follower), follower.failure) == ("3", None), "the alias moving on is not waited for"


def test_a_restart_serves_what_served_last(source: FakeSource) -> None:
    source.state = info("1")
    source.down = True
    follower = follow(source)
    follower.step()
    assert serving(follower) == "1"
    source.down, source.alias = False, info("2")
    follower.step()
    assert serving(follower) == "2"

    source.state, source.alias = info("1"), info("2")
    follower = follow(source, broken=("2",))
    follower.step()
    assert serving(follower) == "1", "the champion is broken, and a version which works is at hand"
    assert follower.failure


def test_swaps_are_told_and_remembered_the_newest_first(source: FakeSource) -> None:
    follower = follow(source, broken=("2",))
    for version in ("1", "2", "3"):
        source.alias = info(version)
        follower.step()
        follower.step()
    assert follower.told == [(None, "1"), ("1", "3")]
    assert [(swap["from"], swap["to"], swap["error"]) for swap in follower.swaps] == [
        ("1", "3", None),
        ("1", "2", "ZeroDivisionError: broken model"),
        (None, "1", None),
    ]
    assert follower.counts == {"done": 2, "failed": 1}, "a failure which is tried again is one failure"


def test_a_version_of_another_output_is_refused_and_closed(source: FakeSource) -> None:
    follower = follow(source, other_output=("2",))
    for version in ("1", "2"):
        source.alias = info(version)
        follower.step()
    assert serving(follower) == "1"
    assert "it gives scores where version 1 gives score" in follower.failure.error
    assert follower.closed == ["2"]
