"""The watcher: what serves is what the alias says, unless that cannot serve."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tidemill.runtime.common.errors import UnreachableError
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.versions import alias_watcher as following
from tidemill.runtime.serving.versions.alias_watcher import AliasWatcher
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
        self.promoted = False
        self.gone: list[str] = []

    def resolve(self) -> VersionInfo | None:
        if self.down:
            raise UnreachableError("down")
        return self.alias

    def cached(self, info: VersionInfo) -> Path | None:
        return Path(info.version) if info.version in self.fetched and info.version not in self.forgotten else None

    def fetch(self, info: VersionInfo) -> Path:
        self.fetched.append(info.version)
        return Path(info.version)

    def evict(self, info: VersionInfo) -> None:
        self.forgotten.append(info.version)

    def record_served(self, info: VersionInfo) -> None:
        self.state = info

    def last_served(self) -> VersionInfo | None:
        return self.state

    def had_version(self) -> bool:
        return self.state is not None or self.promoted

    def deleted(self, info: VersionInfo) -> bool:
        return info.version in self.gone


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


def follow(
    source: FakeSource, *, without_alias: bool = False, broken: tuple[str, ...] = (), other_output: tuple[str, ...] = ()
) -> Any:
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
    made = AliasWatcher(source, load, poll_seconds=1, serve_without_alias=without_alias, swapped=swapped)
    made.closed, made.told = closed, swaps  # type: ignore[attr-defined]
    return made


def serving(watcher: AliasWatcher) -> str | None:
    return watcher.current.info.version if watcher.current else None


def test_missing_alias_and_a_silent_registry_are_told_apart(source: FakeSource) -> None:
    watcher = follow(source)
    source.down = True
    watcher.step()
    assert (watcher.reachable, watcher.missing, serving(watcher)) == (False, False, None)
    source.down = False
    watcher.step()
    assert (watcher.reachable, watcher.missing) == (True, True)
    source.alias = info("1")
    watcher.step()
    assert (watcher.missing, serving(watcher)) == (False, "1")
    source.alias = None
    watcher.step()
    assert (watcher.missing, serving(watcher)) == (True, "1"), "an alias taken away stops no answers"


def test_without_its_alias_the_last_version_serves_from_the_cache(source: FakeSource) -> None:
    watcher = follow(source, without_alias=True)
    watcher.step()
    assert (watcher.missing, watcher.lost, serving(watcher)) == (True, False, None), "there never was a version"
    source.promoted = True
    watcher.step()
    assert (watcher.lost, serving(watcher)) == (True, None), "another server had one; this cache is empty"
    source.state = info("1")
    watcher.step()
    watcher.step()
    assert (watcher.missing, watcher.lost, watcher.deleted, serving(watcher)) == (True, True, False, "1")
    source.gone = ["1"]
    watcher.step()
    assert (watcher.deleted, serving(watcher)) == (True, "1")
    source.alias = info("2")
    watcher.step()
    assert (watcher.missing, watcher.lost, watcher.deleted, serving(watcher)) == (False, False, False, "2")


def test_a_shadow_without_its_alias_shadows_nothing(source: FakeSource) -> None:
    watcher = follow(source)
    source.state = info("1")
    watcher.step()
    assert (watcher.missing, serving(watcher)) == (True, None)


def test_the_same_number_made_anew_is_another_version(source: FakeSource) -> None:
    watcher = follow(source)
    source.alias = info("1", "models:/m-old")
    watcher.step()
    source.alias = info("1", "models:/m-new")
    watcher.step()
    watcher.step()
    assert source.fetched == ["1", "1"]
    assert watcher.current
    assert watcher.current.info.source == "models:/m-new"


def test_a_broken_version_is_tried_again_with_growing_patience(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(following.time, "monotonic", lambda: now[0])
    watcher = follow(source, broken=("2",))
    for version in ("1", "2"):
        source.alias = info(version)
        watcher.step()
    assert serving(watcher) == "1"
    assert watcher.failure
    assert watcher.failure.error == "ZeroDivisionError: broken model"
    for moment, attempts in ((9, 1), (10, 2), (29, 2), (30, 3), (69, 3), (70, 4)):
        now[0] = moment
        watcher.step()
        assert source.fetched.count("2") == attempts, f"after {moment} s"
    assert source.forgotten == ["2"], "a damaged download is fetched again, once"
    source.alias = info("3")
    watcher.step()
    assert (serving(watcher), watcher.failure) == ("3", None), "the alias moving on is not waited for"


def test_a_restart_serves_what_served_last(source: FakeSource) -> None:
    source.state = info("1")
    source.down = True
    watcher = follow(source)
    watcher.step()
    assert serving(watcher) == "1"
    source.down, source.alias = False, info("2")
    watcher.step()
    assert serving(watcher) == "2"

    source.state, source.alias = info("1"), info("2")
    watcher = follow(source, broken=("2",))
    watcher.step()
    assert serving(watcher) == "1", "the champion is broken, and a version which works is at hand"
    assert watcher.failure


def test_swaps_are_told_and_remembered_the_newest_first(source: FakeSource) -> None:
    watcher = follow(source, broken=("2",))
    for version in ("1", "2", "3"):
        source.alias = info(version)
        watcher.step()
        watcher.step()
    assert watcher.told == [(None, "1"), ("1", "3")]
    assert [(swap["from"], swap["to"], swap["error"]) for swap in watcher.swaps] == [
        ("1", "3", None),
        ("1", "2", "ZeroDivisionError: broken model"),
        (None, "1", None),
    ]
    assert watcher.counts == {"done": 2, "failed": 1}, "a failure which is tried again is one failure"


def test_a_version_of_another_output_is_refused_and_closed(source: FakeSource) -> None:
    watcher = follow(source, other_output=("2",))
    for version in ("1", "2"):
        source.alias = info(version)
        watcher.step()
    assert serving(watcher) == "1"
    assert "the output changed from score to scores" in watcher.failure.error
    assert watcher.closed == ["2"]
