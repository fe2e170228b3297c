"""Attacks on the gate by someone with the lake's key, and the rotation of its keys, with a real lakeFS."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill.runtime import data
from tidemill.runtime.common.errors import GateError, UnvalidatedError
from tidemill.runtime.common.verdicts import (
    VERDICT_BRANCH,
    Verdict,
    generate_signing_key,
    public_key,
    sign,
    verdict_file,
)
from tidemill.runtime.data import Lake
from tidemill.runtime.validation.action import HOOK_HEADER
from tidemill.stacks.flights import departures

from tests.support.gate import ACTION_FILE, GatedLake, gated_lake
from tests.support.platform import wait_for
from tests.support.servers import secret_file

pytestmark = pytest.mark.integration

TESTS = 10
LUA = """\
name: tidemill-gate
on:
  pre-merge:
    branches: ["main"]
hooks:
  - id: validate
    type: lua
    properties:
      script: print("accepted")
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedLake]:
    with gated_lake(tmp_path_factory.mktemp("gate"), [f"flights-{number}" for number in range(TESTS)]) as made:
        yield made


@pytest.fixture
def gated(running: GatedLake) -> Iterator[GatedLake]:
    """The running lake, with its original settings after each test."""
    file = running.validation.folder / "settings.json"
    settings = file.read_text()
    yield running
    if file.read_text() != settings:
        running.validation.stop()
        file.write_text(settings)
        running.validation.start()


@pytest.fixture
def lake(gated: GatedLake) -> Iterator[Lake]:
    with Lake(gated.settings) as connection:
        yield connection


@pytest.fixture
def repo(lake: Lake, unused: Iterator[str]) -> str:
    """A repository for one test, because attacks change it; `main` has one good file."""
    name = next(unused)
    data.add(good(), f"{name}/main/departures/honest.parquet", message="honest", lake=lake)
    return name


@pytest.fixture(scope="module")
def unused() -> Iterator[str]:
    return (f"flights-{number}" for number in range(TESTS))


def good(rows: int = 200) -> pd.DataFrame:
    return departures.month_frame(1).head(rows)


def bad() -> pd.DataFrame:
    return good().assign(hour=77.0)


def put(lake: Lake, repo: str, branch: str, path: str, content: str | bytes, folder: Path) -> None:
    """Write an object, as anyone with the lake's key can."""
    file = folder / "object"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    lake.upload(repo, branch, path, file)


def forge_the_gate(lake: Lake, repo: str, folder: Path, name: str = "forged") -> str:
    """Merge a bad file past the gate, with a forged action that accepts everything; return the commit."""
    data.branch(f"{repo}/{name}", lake=lake)
    put(lake, repo, name, ACTION_FILE, LUA, folder)
    data.write(bad(), f"{repo}/{name}/departures/bad.parquet", lake=lake)
    data.commit(f"{repo}/{name}", "looks harmless", lake=lake)
    return data.publish(f"{repo}/{name}", lake=lake).commit


def stored_bytes(lake: Lake, repo: str, ref: str, path: str) -> bytes:
    stream = io.BytesIO()
    lake.download(repo, ref, path, stream)
    return stream.getvalue()


def hook(gated: GatedLake, repo: str, commit: str, branch: str = "main") -> httpx.Response:
    """Call the gate, as an action on any branch can with the secret that lakeFS gives it."""
    event = {"event_type": "pre-merge", "repository_id": repo, "branch_id": branch, "commit_id": commit}
    headers = {HOOK_HEADER: gated.hook_secret}
    return httpx.post(f"{gated.validation.url}/hooks/lakefs", json=event, headers=headers, timeout=60, trust_env=False)


def is_ready(gated: GatedLake) -> bool:
    return httpx.get(f"{gated.validation.url}/readyz", trust_env=False).status_code == 200


def restarted(gated: GatedLake, **changes: object) -> None:
    """Restart the validation service with other settings, and wait until it restored the verdicts."""
    gated.validation.stop()
    file = gated.validation.folder / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    gated.validation.start()
    wait_for("the gate", lambda: is_ready(gated) or None, 60, every=0.2)


def test_a_forged_action_does_not_validate_data(gated: GatedLake, lake: Lake, repo: str, tmp_path: Path) -> None:
    honest = lake.head(repo, "main").id
    forged = forge_the_gate(lake, repo, tmp_path)
    assert lake.head(repo, "main").id == forged, "lakeFS itself cannot prevent it"
    verdict = lake.verdict(repo, honest)
    assert verdict is not None
    digest = hashlib.sha256(stored_bytes(lake, repo, honest, "departures/honest.parquet")).hexdigest()
    assert verdict.files == {"departures/honest.parquet": digest}
    for address in (f"{repo}/main/departures", f"{repo}/{forged}/departures"):
        with pytest.raises(UnvalidatedError, match=honest):
            data.read(address, validated=True, lake=lake)
    assert data.newest_validated(f"{repo}/main/departures", lake=lake) == honest
    # Branches inherit the forged action; data that it accepts is not validated either.
    data.branch(f"{repo}/heir", lake=lake)
    data.write(good(), f"{repo}/heir/departures/fine.parquet", lake=lake)
    data.commit(f"{repo}/heir", "fine", lake=lake)
    inherited = data.publish(f"{repo}/heir", lake=lake).commit
    assert not data.is_validated(repo, inherited, lake=lake)
    named = data.unvalidated(f"{repo}/main/departures", lake=lake)
    assert [(commit.commit, commit.files) for commit in named] == [
        (inherited, ("departures/fine.parquet",)),
        (forged, ("departures/bad.parquet",)),
    ]
    assert named[1].message == "Publish forged"

    # `up` puts the action file back, although the branch holds bad data; that does not make the data good.
    data.branch(f"{repo}/repair", lake=lake)
    action = gated.action()
    put(lake, repo, "repair", ACTION_FILE, action, tmp_path)
    data.commit(f"{repo}/repair", "put the gate back", lake=lake)
    repaired = data.publish(f"{repo}/repair", lake=lake).commit
    assert not data.is_validated(repo, repaired, lake=lake)
    verdict = lake.verdict(repo, repaired)
    assert verdict is not None
    assert any("bad.parquet" in reason for reason in verdict.reasons)
    with pytest.raises(UnvalidatedError):
        data.read(f"{repo}/main/departures", validated=True, lake=lake)

    done = data.restore(f"{repo}/main", lake=lake)
    assert (done.accepted, sorted(done.removed)) == (honest, ["departures/bad.parquet", "departures/fine.parquet"])
    assert data.unvalidated(f"{repo}/main/departures", lake=lake) == []
    assert data.read(f"{repo}/main/departures", validated=True, lake=lake).commit == done.commit
    assert data.restore(f"{repo}/main", lake=lake).commit is None


def test_forged_and_replayed_verdicts_are_ignored(gated: GatedLake, lake: Lake, repo: str, tmp_path: Path) -> None:
    honest = lake.head(repo, "main").id
    forged = forge_the_gate(lake, repo, tmp_path)
    real = lake.verdict(repo, honest)
    assert real is not None
    claim = Verdict.model_validate({**real.model_dump(), "commit": forged})
    replayed = tmp_path / "replayed"
    with replayed.open("wb") as stream:
        lake.download(repo, VERDICT_BRANCH, verdict_file(honest), stream)
    envelopes = {
        "no signature": json.dumps({"payload": claim.model_dump_json(), "signatures": []}),
        "own key": sign(claim, generate_signing_key()),
        "replay": replayed.read_bytes(),
        "no JSON": b"\0" * 1000,
    }
    for name, envelope in envelopes.items():
        put(lake, repo, VERDICT_BRANCH, verdict_file(forged), envelope, tmp_path)
        assert not data.is_validated(repo, forged, lake=lake), name
        with pytest.raises(UnvalidatedError):
            data.read(f"{repo}/{forged}/departures", validated=True, lake=lake)


def test_the_hook_secret_gets_only_the_truth(gated: GatedLake, lake: Lake, repo: str, tmp_path: Path) -> None:
    honest = lake.head(repo, "main").id
    forged = forge_the_gate(lake, repo, tmp_path)
    answer = hook(gated, repo, forged, branch="forged")
    assert answer.json()["reasons"], "the gate reads the commit, whatever the caller says about it"
    assert not data.is_validated(repo, forged, lake=lake)
    assert hook(gated, repo, honest).json()["success"] is True
    assert hook(gated, repo, "0" * 64).status_code == 503
    assert data.is_validated(repo, honest, lake=lake)


def test_deleted_verdicts_come_back_and_hooks_on_their_branch_are_removed(
    gated: GatedLake, lake: Lake, repo: str, tmp_path: Path
) -> None:
    honest = lake.head(repo, "main").id
    lake.delete_branch(repo, VERDICT_BRANCH)
    with Lake(gated.settings) as reader, pytest.raises(UnvalidatedError):
        data.read(f"{repo}/main/departures", validated=True, lake=reader)
    restarted(gated)
    with Lake(gated.settings) as reader:
        assert data.read(f"{repo}/main/departures", validated=True, lake=reader).commit == honest
    # An action that refuses every commit on the branch of verdicts.
    refusing = LUA.replace("pre-merge", "pre-commit").replace('"main"', f'"{VERDICT_BRANCH}"').replace("print", "error")
    put(lake, repo, VERDICT_BRANCH, "_lakefs_actions/stop.yaml", refusing, tmp_path)
    route = f"{gated.lakefs.url}/api/v1/repositories/{repo}/branches/{VERDICT_BRANCH}/commits"
    httpx.post(route, json={"message": "x"}, auth=gated.lakefs.auth, timeout=60, trust_env=False)
    made = data.add(good(250), f"{repo}/main/departures/more.parquet", message="more", lake=lake)
    assert data.is_validated(repo, made.commit, lake=lake)
    restarted(gated)
    with Lake(gated.settings) as reader:
        assert data.is_validated(repo, honest, lake=reader), "earlier verdicts are restored too"


def test_keys_are_rotated_and_revoked(gated: GatedLake, lake: Lake, repo: str, tmp_path: Path) -> None:
    first = lake.head(repo, "main").id
    new = generate_signing_key()
    file = secret_file(tmp_path / "secrets", "verdict-signing-key-2", new)
    old = gated.settings.verdict_keys
    settings = json.loads((gated.validation.folder / "settings.json").read_text())["lake"]
    restarted(gated, signing_key_file=str(file), lake={**settings, "verdict_keys": [*old, public_key(new)]})
    both = gated.settings.model_copy(update={"verdict_keys": (*old, public_key(new))})
    with Lake(both) as reader:
        second = data.add(good(250), f"{repo}/main/departures/second.parquet", message="second", lake=reader).commit
        assert data.is_validated(repo, first, lake=reader)
        assert data.is_validated(repo, second, lake=reader)
    with Lake(gated.settings) as reader:
        assert not data.is_validated(repo, second, lake=reader), "a reader that does not know the new key"
    # The old key is not trusted any more: the gate's own record, not the signature, decides what stays accepted.
    with Lake(both.model_copy(update={"verdict_keys": (public_key(new),)})) as reader:
        assert data.is_validated(repo, first, lake=reader)
        put(
            lake,
            repo,
            VERDICT_BRANCH,
            verdict_file(first),
            sign(_verdict(lake, repo, first), _signing_key(gated)),
            tmp_path,
        )
    with Lake(both.model_copy(update={"verdict_keys": (public_key(new),)})) as reader:
        assert not data.is_validated(repo, first, lake=reader), "signed with the revoked key"


def _verdict(lake: Lake, repo: str, commit: str) -> Verdict:
    with Lake(lake.settings) as reader:
        found = reader.verdict(repo, commit)
    return found or Verdict(
        repository=repo, commit=commit, branch="main", success=True, path="departures", suite="x", judged_at="x"
    )


def _signing_key(gated: GatedLake) -> str:
    return (gated.validation.folder.parent / "secrets" / "verdict-signing-key").read_text()


def test_a_service_that_signs_with_an_untrusted_key_does_not_start(gated: GatedLake, tmp_path: Path) -> None:
    file = secret_file(tmp_path / "secrets", "untrusted", generate_signing_key())
    gated.validation.stop()
    settings = gated.validation.folder / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "signing_key_file": str(file)}))
    with pytest.raises(AssertionError, match="not among the trusted keys"):
        gated.validation.start()


def test_a_stricter_suite_keeps_earlier_verdicts_and_reports_of_an_earlier_version_are_signed(
    gated: GatedLake, lake: Lake, repo: str, tmp_path: Path
) -> None:
    first = lake.head(repo, "main").id
    # A report as version 0.1.0 of the service wrote it, and no signed verdict.
    report = gated.validation.folder / "reports" / repo / f"{first}.json"
    kept = json.loads(report.read_text())
    old = {key: kept[key] for key in ("repository", "branch", "commit", "suite", "judged_at", "success", "base")}
    report.write_text(json.dumps({**old, "source": "x", "reasons": [], "files": ["departures/honest.parquet"]}))
    lake.delete_branch(repo, VERDICT_BRANCH)
    suite = json.loads(Path(gated.suite).read_text())
    suite["expectations"].append(
        {"type": "expect_column_max_to_be_between", "kwargs": {"column": "hour", "max_value": 1}}
    )
    strict = tmp_path / "strict.json"
    strict.write_text(json.dumps(suite))
    restarted(gated, suites={repo: str(strict)})
    with Lake(gated.settings) as reader:
        pinned = data.read(f"{repo}/{first}/departures", validated=True, lake=reader)
        assert pinned.commit == first, "a pinned read accepts the suite of its time"
        verdict = reader.verdict(repo, first)
    assert verdict is not None
    assert (verdict.suite_sha256, verdict.files, verdict.judged) == (None, None, ["departures/honest.parquet"])
    with pytest.raises(GateError, match="hour"):
        data.add(good(250), f"{repo}/main/departures/late.parquet", message="late", lake=lake)


def stage(gated: GatedLake, repo: str, branch: str, path: str, like: str, at: str) -> None:
    """Give `path` the bytes of the object `at`, and the checksum and size of the object `like` on main."""
    url = f"{gated.lakefs.url}/api/v1/repositories/{repo}"
    options = {"auth": gated.lakefs.auth, "timeout": 60, "trust_env": False}
    there, shown = (
        httpx.get(f"{url}/refs/{ref}/objects/stat", params={"path": name}, **options).raise_for_status().json()
        for ref, name in ((branch, at), ("main", like))
    )
    body = {
        "physical_address": there["physical_address"],
        "checksum": shown["checksum"],
        "size_bytes": shown["size_bytes"],
        "content_type": shown.get("content_type"),
    }
    httpx.put(f"{url}/branches/{branch}/objects", params={"path": path}, json=body, **options).raise_for_status()


def of_one_size(folder: Path) -> tuple[Path, Path]:
    """Write a good and a bad file with the same number of bytes; lakeFS notices another number when it reads."""
    files = folder / "good.parquet", folder / "bad.parquet"
    frame = good()
    for file, values in zip(files, (frame, frame.assign(hour=frame["hour"] * 0 + 77)), strict=True):
        table = pa.Table.from_pandas(values, preserve_index=False)
        pq.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)
    assert files[0].stat().st_size == files[1].stat().st_size
    return files


def test_bytes_behind_a_false_checksum_are_judged(gated: GatedLake, lake: Lake, repo: str, tmp_path: Path) -> None:
    """A branch shows the size and checksum of an accepted file, but points at other bytes."""
    path = "departures/x.parquet"
    right, wrong = of_one_size(tmp_path)
    accepted = data.add(right, f"{repo}/main/{path}", message="x", lake=lake).commit
    data.branch(f"{repo}/false", lake=lake)
    data.write(wrong, f"{repo}/false/hidden/bad.parquet", lake=lake)
    lake.delete(repo, "false", path)
    data.commit(f"{repo}/false", "remove it", lake=lake)
    stage(gated, repo, "false", path, like=path, at="hidden/bad.parquet")
    data.write(good(), f"{repo}/false/departures/benign.parquet", lake=lake)
    head = data.commit(f"{repo}/false", "and bring it back", lake=lake).commit
    assert stored_bytes(lake, repo, head, path) == wrong.read_bytes()
    changed = {name for _, name in lake.changed(repo, accepted, head, "departures/")}
    assert changed == {"departures/benign.parquet"}, "lakeFS's own comparison does not show it"
    with pytest.raises(GateError, match=r"x\.parquet: column hour"):
        data.publish(f"{repo}/false", lake=lake)
    # Past the gate, neither a reader nor the restoring of the branch is misled.
    put(lake, repo, "false", ACTION_FILE, LUA, tmp_path)
    data.commit(f"{repo}/false", "and forge the gate", lake=lake)
    merged = data.publish(f"{repo}/false", lake=lake).commit
    assert stored_bytes(lake, repo, merged, path) == wrong.read_bytes()
    pinned = data.read(f"{repo}/{accepted}/{path}", validated=True, lake=lake)
    assert pinned.to_pandas()["hour"].max() < 24
    assert data.read(f"{repo}/main/{path}", validated=True, lake=lake).commit == accepted
    put(lake, repo, "false", ACTION_FILE, gated.action(), tmp_path)
    data.commit(f"{repo}/false", "put the gate back", lake=lake)
    data.publish(f"{repo}/false", lake=lake)
    planned = data.restore(f"{repo}/main", dry_run=True, lake=lake)
    assert (planned.removed, planned.restored) == (("departures/benign.parquet",), (path,))
    done = data.restore(f"{repo}/main", lake=lake)
    assert done.commit is not None
    assert stored_bytes(lake, repo, "main", path) == right.read_bytes()
    assert data.is_validated(repo, done.commit, lake=lake)


def test_bytes_that_change_after_the_verdict_are_not_read(
    gated: GatedLake, lake: Lake, repo: str, tmp_path: Path
) -> None:
    right, wrong = of_one_size(tmp_path)
    address = f"{repo}/main/departures/x.parquet"
    data.add(right, address, message="x", lake=lake)
    (item,) = lake.objects(repo, "main", "departures/x.parquet")
    name = item.address.rpartition("/data/")[2]
    (stored,) = [file for file in gated.lakefs.folder.rglob("*") if file.is_file() and str(file).endswith(name)]
    assert data.read(address, validated=True, lake=lake).to_pandas()["hour"].max() < 24
    stored.write_bytes(wrong.read_bytes())
    assert data.read(address, lake=lake).to_pandas()["hour"].max() == 77
    with pytest.raises(UnvalidatedError, match="not those that the gate judged"):
        data.read(address, validated=True, lake=lake).to_pandas()


def test_only_the_judged_folder_counts_as_validated(lake: Lake, repo: str) -> None:
    elsewhere = data.add(bad(), f"{repo}/main/notes/x.parquet", message="elsewhere", lake=lake)
    assert data.is_validated(repo, elsewhere.commit, lake=lake)
    for address in (f"{repo}/main/notes", f"{repo}/main", f"{repo}/{elsewhere.commit}/notes/x.parquet"):
        with pytest.raises(UnvalidatedError, match="the gate judges only data below departures"):
            data.read(address, validated=True, lake=lake)
    with pytest.raises(UnvalidatedError, match="below departures"):
        data.newest_validated(f"{repo}/main/notes", lake=lake)
    assert data.read(f"{repo}/main/departures", validated=True, lake=lake).commit == elsewhere.commit
