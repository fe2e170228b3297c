"""Scoring from the lake and into it: pinned, committed with its lineage, and never on a protected branch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from tidemill.runtime import batch_scoring, data
from tidemill.runtime.common.errors import ConfigError, NotFoundError, UnvalidatedError, UserError
from tidemill.runtime.common.settings import LakeSettings
from tidemill.runtime.data.lake_client import Lake
from tidemill.stacks.cli.app import run

from tests.support.saved import fitted, flights, save, table
from tests.support.servers import Server, lakefs_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with lakefs_server(tmp_path_factory.mktemp("lakefs")) as started:
        made = {"name": "flights", "storage_namespace": "local://flights", "default_branch": "main"}
        httpx.post(
            f"{started.url}/api/v1/repositories", json=made, auth=started.auth, trust_env=False
        ).raise_for_status()
        yield started


@pytest.fixture(scope="module")
def settings(server: Server) -> LakeSettings:
    return LakeSettings(
        endpoint=server.url, key_id_file=server.files["key_id"], secret_file=server.files["secret"]
    )  # fmt: skip


@pytest.fixture(scope="module")
def lake(server: Server, settings: LakeSettings) -> Iterator[Lake]:
    """A lake with two months of flights on `main`, which is then protected."""
    with Lake(settings) as connection:
        for month in (1, 2):
            data.write(table(100, month), f"flights/main/departures/2013-0{month}.parquet", lake=connection)
        data.commit("flights/main", "Add two months", lake=connection)
        httpx.put(
            f"{server.url}/api/v1/repositories/flights/settings/branch_protection",
            json=[{"pattern": "main"}, {"pattern": "release-*"}], auth=server.auth, trust_env=False,
        ).raise_for_status()  # fmt: skip
        yield connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "delays", fitted())


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    monkeypatch.delenv("TIDEMILL_RUNTIME", raising=False)
    monkeypatch.setenv("TIDEMILL_CACHE", str(tmp_path_factory.getbasetemp() / "score-cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own() -> np.ndarray:
    """Return the probabilities which the model itself gives for both months."""
    model = fitted()
    return np.concatenate([model.predict_proba(flights(100, month).drop(columns="id"))[:, 1] for month in (1, 2)])


def test_lake_to_lake_is_pinned_and_committed_with_its_lineage(lake: Lake, folder: Path) -> None:
    head = lake.head("flights", "main").id
    done = batch_scoring.score(
        str(folder), "flights/main/departures", "flights/scored/scores/2013.parquet", keep=["id"], lake=lake
    )
    assert done.input == f"flights/{head}/departures"
    assert done.input_commit == head
    assert (done.rows, done.files) == (200, 2)
    made = lake.head("flights", "scored")
    assert (made.id, made.parents) == (done.output_commit, (head,))
    assert made.message == f"Score with delays version {done.version}"
    assert made.metadata == done.lineage
    assert made.metadata["tidemill.input.commit"] == head
    assert made.metadata["tidemill.input.ref"] == "main"
    found = data.read("flights/scored/scores", lake=lake).to_arrow()
    ids = pa.concat_arrays([table(100, month).column("id").combine_chunks() for month in (1, 2)])
    assert found.column("id").to_pylist() == ids.to_pylist()
    np.testing.assert_allclose(found.column("score").to_numpy(), own(), rtol=0, atol=1e-9)
    assert next(lake.staged("flights", "scored"), None) is None


def test_what_is_there_is_replaced_only_when_asked(lake: Lake, folder: Path) -> None:
    out = "lakefs://flights/again/scores.parquet"
    first = batch_scoring.score(str(folder), "flights/main/departures", out, lake=lake)
    with pytest.raises(UserError, match="--overwrite"):
        batch_scoring.score(str(folder), "flights/main/departures", out, lake=lake)
    assert lake.head("flights", "again").id == first.output_commit
    second = batch_scoring.score(str(folder), "flights/main/departures", out, keep=["id"], overwrite=True, lake=lake)
    assert lake.head("flights", "again").id == second.output_commit != first.output_commit


@pytest.mark.parametrize("branch", ["main", "release-1"])
def test_a_protected_branch_is_refused_before_anything_is_done(lake: Lake, folder: Path, branch: str) -> None:
    head = lake.head("flights", "main").id
    with pytest.raises(UserError, match="the branch is protected"):
        batch_scoring.score(str(folder), "flights/main/departures", f"flights/{branch}/scores.parquet", lake=lake)
    assert lake.head("flights", "main").id == head
    assert not lake.has_branch("flights", "release-1")


def test_what_others_left_uncommitted_is_not_swept_in(lake: Lake, folder: Path) -> None:
    data.branch("flights/busy", lake=lake)
    data.write(table(3), "flights/busy/theirs.parquet", lake=lake)
    with pytest.raises(UserError, match=r"uncommitted changes \(theirs.parquet\)"):
        batch_scoring.score(str(folder), "flights/main/departures", "flights/busy/scores.parquet", lake=lake)
    assert list(lake.staged("flights", "busy")) == ["theirs.parquet"]


@pytest.mark.parametrize(
    ("source", "output", "error", "text"),
    [
        ("flights/main/departures", "boats/scored/x.parquet", NotFoundError, "boats"),
        ("flights/main/departures", "lakefs://flights/scored", ConfigError, "add a path"),
        ("flights/main/nothing", "x.parquet", NotFoundError, "no Parquet file"),
        ("flights/nobranch/departures", "x.parquet", NotFoundError, "nobranch"),
    ],
)
def test_what_is_not_in_the_lake_is_said(
    lake: Lake, folder: Path, source: str, output: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        batch_scoring.score(str(folder), source, output, lake=lake)


def test_data_which_passed_no_gate_is_refused_when_validated_is_asked(lake: Lake, folder: Path) -> None:
    with pytest.raises(UnvalidatedError):
        batch_scoring.score(str(folder), "flights/main/departures", "x.parquet", validated=True, lake=lake)


def test_a_local_folder_of_the_same_name_goes_first_and_the_scheme_names_the_lake(
    lake: Lake, settings: LakeSettings, folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import pyarrow.parquet as pq

    registry = {"tracking_uri": "http://127.0.0.1:1"}
    runtime = {"stack": "a-b", "lake": settings.model_dump(mode="json"), "registry": registry}
    (place / "runtime.json").write_text(json.dumps(runtime))
    monkeypatch.setenv("TIDEMILL_RUNTIME", str(place / "runtime.json"))
    (place / "flights" / "main" / "departures").mkdir(parents=True)
    pq.write_table(table(7), "flights/main/departures/x.parquet")
    for source, rows in (("flights/main/departures", 7), ("lakefs://flights/main/departures", 200)):
        code = run(["score", str(folder), source, "out.parquet", "--overwrite", "--json"])
        output = capsys.readouterr()
        assert code == 0, output.err
        assert json.loads(output.out)["rows"] == rows
