"""The lake's gate with a real lakeFS: what it lets in, what it keeps out, and what readers then accept."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
from tidemill.runtime import data
from tidemill.runtime.common.errors import ConfigError, GateError, NotFoundError, UnreachableError, UnvalidatedError
from tidemill.runtime.common.settings import LakeSettings
from tidemill.runtime.data.lake_client import Lake
from tidemill.runtime.validation.suite import SuiteFile, SuiteRunner
from tidemill.stacks.flights import departures

from tests.support.gate import ACTION_FILE, PROJECT, SUITE, GatedLake, gated_lake

pytestmark = pytest.mark.integration

MAIN = "flights/main/departures"


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedLake]:
    with gated_lake(tmp_path_factory.mktemp("gate")) as made:
        yield made


@pytest.fixture
def lake(gated: GatedLake) -> Iterator[Lake]:
    """A connection; whatever a test leaves on main stays, so each uses a file of its own."""
    with Lake(gated.settings) as connection:
        yield connection


def good(rows: int = 500) -> pd.DataFrame:
    return departures.month_frame(1).head(rows)


def test_good_data_is_published_and_read_back_by_commit(lake: Lake) -> None:
    made = data.add(good(), f"{MAIN}/a.parquet", message="a", metadata={"why": "test"}, lake=lake)
    assert data.is_validated("flights", made.commit, lake=lake)
    assert lake.head("flights", "main").id == made.commit
    assert lake.head("flights", "main").metadata["why"] == "test"
    later = data.add(good(300), f"{MAIN}/a.parquet", message="a again", lake=lake)

    before = data.read(f"flights/{made.commit[:16]}/departures/a.parquet", validated=True, lake=lake)
    assert before.commit == made.commit, "a short id is pinned as the whole one"
    pd.testing.assert_frame_equal(before.to_pandas(), good())
    now = data.read(f"{MAIN}/a.parquet", validated=True, lake=lake)
    assert (now.commit, len(now.to_pandas())) == (later.commit, 300)
    assert sum(batch.num_rows for batch in now.batches(["hour"], rows=70)) == 300


def test_bad_data_is_refused_with_reasons_and_main_stays(lake: Lake) -> None:
    head = lake.head("flights", "main").id
    frame = good().assign(origin="SFO").astype({"delayed": "float64"})
    frame.loc[:3, "delayed"] = None
    with pytest.raises(GateError) as refused:
        data.add(frame, f"{MAIN}/bad.parquet", message="bad", lake=lake)
    reasons = " ".join(refused.value.reasons)
    assert len(refused.value.reasons) == 2
    assert "bad.parquet: column origin" in reasons
    assert "SFO" in reasons
    assert "column delayed: expect_column_values_to_not_be_null" in reasons
    assert lake.head("flights", "main").id == head


def test_files_which_are_no_tables_or_lack_columns_are_refused(lake: Lake, tmp_path: Path) -> None:
    broken = tmp_path / "x"
    broken.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(GateError, match="not readable as Parquet"):
        data.add(broken, f"{MAIN}/broken.parquet", message="broken", lake=lake)
    with pytest.raises(GateError, match=r'missing": \["precip"\]'):
        data.add(good().drop(columns="precip"), f"{MAIN}/narrow.parquet", message="narrow", lake=lake)


def test_publishing_and_adding_again_changes_nothing(lake: Lake) -> None:
    first = data.add(good(), f"{MAIN}/twice.parquet", message="once", lake=lake)
    again = data.add(good(), f"{MAIN}/twice.parquet", message="twice", lake=lake)
    assert again.commit == first.commit
    data.branch("flights/idle", lake=lake)
    assert data.publish("flights/idle", lake=lake).commit == first.commit


def test_a_merge_around_the_gate_is_not_validated_and_is_judged_later(gated: GatedLake, lake: Lake) -> None:
    honest = data.add(good(), f"{MAIN}/honest.parquet", message="honest", lake=lake)
    data.branch("flights/sly", lake=lake)
    url = f"{gated.lakefs.url}/api/v1/repositories/flights/branches/sly/objects"
    httpx.delete(url, params={"path": ACTION_FILE}, auth=gated.lakefs.auth, trust_env=False).raise_for_status()
    data.write(good().assign(hour=77.0), "flights/sly/departures/sly.parquet", lake=lake)
    data.commit("flights/sly", "around the gate", lake=lake)
    smuggled = data.publish("flights/sly", lake=lake)

    assert not data.is_validated("flights", smuggled.commit, lake=lake)
    with pytest.raises(UnvalidatedError, match=honest.commit):
        data.read(MAIN, validated=True, lake=lake)
    assert data.newest_validated(MAIN, lake=lake) == honest.commit
    assert data.read(MAIN, lake=lake).commit == smuggled.commit, "nobody asked for validated data here"

    # With the gate's file back, a merge which is fine by itself has to answer for what came in before.
    gated.guard("flights")
    assert data.newest_validated(MAIN, lake=lake) == honest.commit, "its commit says nothing about the data"
    data.branch("flights/next", lake=lake)
    data.write(good(400), "flights/next/departures/next.parquet", lake=lake)
    data.commit("flights/next", "fine by itself", lake=lake)
    with pytest.raises(GateError, match=r"sly\.parquet: column hour"):
        data.publish("flights/next", lake=lake)
    data.write(good(400), "flights/next/departures/sly.parquet", lake=lake)
    data.commit("flights/next", "fixed", lake=lake)
    fixed = data.publish("flights/next", lake=lake)
    assert data.read(MAIN, validated=True, lake=lake).commit == fixed.commit


def test_data_cannot_be_committed_or_cherry_picked_onto_main(gated: GatedLake, lake: Lake) -> None:
    data.branch("flights/cherry", lake=lake)
    data.write(good(), "flights/cherry/departures/cherry.parquet", lake=lake)
    picked = data.commit("flights/cherry", "cherry", lake=lake)
    routes = f"{gated.lakefs.url}/api/v1/repositories/flights/branches/main"
    options = {"auth": gated.lakefs.auth, "trust_env": False, "timeout": 60}
    assert httpx.post(f"{routes}/cherry-pick", json={"ref": picked.commit}, **options).status_code == 412
    try:
        data.write(good(), f"{MAIN}/direct.parquet", lake=lake)
        with pytest.raises(GateError, match="only by a merge"):
            data.commit("flights/main", "direct", lake=lake)
    finally:
        httpx.put(routes, json={"type": "reset"}, **options).raise_for_status()


def test_the_newest_validated_commit_is_the_one_which_brought_the_data(lake: Lake) -> None:
    brought = data.add(good(), f"{MAIN}/newest.parquet", message="data", lake=lake)
    other = data.add(good(), "flights/main/notes/x.parquet", message="elsewhere", lake=lake)
    assert data.newest_validated("flights/main", lake=lake) == other.commit
    assert data.brought_by(f"{MAIN}/newest.parquet", lake=lake) == brought.commit
    assert data.newest_validated(MAIN, lake=lake) == brought.commit


def test_without_an_answer_of_the_gate_nothing_is_merged(gated: GatedLake, lake: Lake) -> None:
    gated.validation.stop()
    try:
        head = lake.head("flights", "main").id
        with pytest.raises(UnreachableError, match="could not be called"):
            data.add(good(), f"{MAIN}/down.parquet", message="down", lake=lake)
        assert lake.head("flights", "main").id == head
    finally:
        gated.validation.start()
    # Asked at once after its start, it answers when it can.
    data.add(good(), f"{MAIN}/down.parquet", message="up", lake=lake)


def test_the_hook_asks_for_its_secret(gated: GatedLake) -> None:
    body = {"event_type": "pre-merge", "repository_id": "flights", "branch_id": "main", "commit_id": "ab" * 32}
    with httpx.Client(base_url=gated.validation.url, trust_env=False, timeout=60) as client:
        for headers in ({}, {"X-Tidemill-Hook": ""}, {"X-Tidemill-Hook": "wrong"}):
            assert client.post("/hooks/lakefs", json=body, headers=headers).status_code == 401
        right = {"X-Tidemill-Hook": gated.hook_secret}
        assert client.get("/hooks/lakefs", headers=right).status_code == 405
        assert client.post("/hooks/lakefs/", json=body, headers=right).status_code == 404, "no redirect"
        assert client.post("/hooks/lakefs", content=b"{", headers=right).status_code == 400
        assert client.post("/hooks/lakefs", content=b"x" * 70_000, headers=right).status_code == 413
        unknown = {**body, "repository_id": "../other"}
        assert client.post("/hooks/lakefs", json=unknown, headers=right).status_code == 422
        escape = {**body, "commit_id": "../x"}
        assert client.post("/hooks/lakefs", json=escape, headers=right).status_code == 400
        # A commit which lakeFS does not have cannot be judged: an error is no yes.
        assert client.post("/hooks/lakefs", json=body, headers=right).status_code == 503
        assert client.get("/metrics").status_code == 401
        metrics = client.get("/metrics", headers={"Authorization": f"Bearer {gated.token}"}).text
        assert 'tidemill_validations_total{repository="flights",verdict="accepted"}' in metrics
    assert gated.hook_secret not in gated.validation.log


def test_wrong_names_and_a_dead_server_are_told_apart(gated: GatedLake, lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        data.read("flights/no-such-branch/departures", lake=lake)
    with pytest.raises(NotFoundError, match="no Parquet file"):
        data.read("flights/main/nothing", lake=lake)
    with pytest.raises(ConfigError, match="REPOSITORY/REF/PATH"):
        data.read("flights", lake=lake)
    gone = LakeSettings.model_validate({**gated.settings.model_dump(), "endpoint": "http://127.0.0.1:9"})
    with pytest.raises(UnreachableError):
        data.read(MAIN, lake=gone)


def test_seeding_again_leaves_what_is_there(gated: GatedLake, lake: Lake, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime.json"
    registry = {"tracking_uri": "http://127.0.0.1:9", "username": "u", "password_file": "/nowhere"}
    lake_settings = gated.settings.model_dump(mode="json")
    runtime.write_text(json.dumps({"stack": "flights-test", "lake": lake_settings, "registry": registry}))
    command = [sys.executable, "stacks/flights/seed.py", "--months", "2"]
    heads: list[str] = []
    for _ in range(2):
        environment = {**os.environ, "TIDEMILL_RUNTIME": str(runtime)}
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        heads.append(lake.head("flights", "main").id)
    assert heads[0] == heads[1]
    seeded = data.read(f"{MAIN}/2013-02.parquet", validated=True, lake=lake).to_pandas()
    pd.testing.assert_frame_equal(seeded, departures.month_frame(2))


@pytest.fixture(scope="module")
def runner() -> SuiteRunner:
    return SuiteRunner({"flights": SuiteFile.read(SUITE)})


def test_every_month_and_a_labelled_window_meet_the_expectations(runner: SuiteRunner) -> None:
    for month in (1, 2, 7, 12):
        assert runner.judge("flights", f"{month}", departures.month_frame(month)) == []
    # As a monitor writes it: columns in another order, labels as doubles, times without a zone.
    window = departures.month_frame(7).sample(1000, random_state=0).astype({"delayed": "float64"})
    window[departures.EVENT_TIME] = window[departures.EVENT_TIME].dt.tz_localize(None)
    assert runner.judge("flights", "window", window[sorted(window.columns)]) == []


def test_an_expectation_which_the_library_does_not_know_is_an_error(runner: SuiteRunner) -> None:
    # The library itself logs it and goes on with the others: the gate would have a hole.
    for wrong in ({"type": "expect_nonsense", "kwargs": {}}, {"type": "expect_column_to_exist", "kwargs": {"x": 1}}):
        right = {"type": "expect_column_to_exist", "kwargs": {"column": "a"}}
        with pytest.raises(ConfigError, match="expectation"):
            SuiteRunner({"flights": SuiteFile("s", "p", (right, wrong))})
