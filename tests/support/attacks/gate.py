"""Attacks of a data writer: merges around the gate, and forged verdicts."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tidemill.runtime import data
from tidemill.runtime.common.errors import NotFoundError, UnvalidatedError
from tidemill.runtime.common.verdicts import VERDICT_BRANCH, Verdict, generate_signing_key, sign, verdict_file
from tidemill.runtime.data.lake_client import Lake
from tidemill.stacks.flights import departures

from tests.support.attacks.s3_gateway import lake_settings
from tests.support.drill import Attack, Drill
from tests.support.platform import RunningPlatform, wait_for

AREA = "gate"
REPOSITORY = "flights"
_MAIN = f"{REPOSITORY}/main/departures"
_ACTION = "_lakefs_actions/tidemill-gate.yaml"
_BAD = "departures/forged.parquet"

# An action of the gate's name, that accepts everything.
_FORGED_ACTION = """\
name: tidemill-gate
on:
  pre-merge:
    branches: ["main"]
  pre-commit:
    branches: ["main"]
hooks:
  - id: validate
    type: lua
    properties:
      script: |
        print("accepted")
"""


class Attacker:
    """Someone with a key of the lake, who wants readers to accept a bad file."""

    def __init__(self, platform: RunningPlatform, lake: Lake, folder: Path) -> None:
        self.lake = lake
        self._folder = folder
        self.api = httpx.Client(
            base_url=f"{platform.url('lakefs')}/api/v1/repositories/{REPOSITORY}",
            auth=(platform.secret("lakefs-key-id"), platform.secret("lakefs-secret")),
            timeout=60,
            trust_env=False,
        )
        self.good = data.newest_validated(_MAIN, lake=lake)

    def branch(self, name: str, source: str = "main") -> None:
        self.api.delete(f"/branches/{name}")
        self.lake.create_branch(REPOSITORY, name, source)

    def put(self, branch: str, path: str, content: str | bytes) -> None:
        file = self._folder / "upload"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.lake.upload(REPOSITORY, branch, path, file)

    def put_bad(self, branch: str) -> None:
        """Upload a file with an hour that no day has."""
        file = self._folder / "bad.parquet"
        departures.month_frame(1).head(500).assign(hour=77.0).to_parquet(file)
        self.put(branch, _BAD, file.read_bytes())

    def commit(self, branch: str) -> httpx.Response:
        return self.api.post(f"/branches/{branch}/commits", json={"message": "forged"})

    def merge(self, branch: str, **options: Any) -> httpx.Response:
        return self.api.post(f"/refs/{branch}/merge/main", json={"message": "forged", **options})

    def head(self) -> str:
        return self.lake.head(REPOSITORY, "main").id

    def protect(self, rules: list[dict[str, Any]]) -> None:
        self.api.put("/settings/branch_protection", json=rules).raise_for_status()

    def reset(self, commit: str) -> None:
        """Set main to `commit`. lakeFS applies the old rules for some more seconds."""
        self.protect([])
        self._reset("main", commit)

    def restore(self, heads: Mapping[str, str], rules: list[dict[str, Any]]) -> None:
        """Set main to its commit, delete the branches that were made since, and protect the branches again.

        The validation service keeps the branch of the verdicts.
        """
        self.protect([])
        for branch in set(self.heads()) - set(heads) - {VERDICT_BRANCH}:
            ended = lambda name=branch: self.api.delete(f"/branches/{name}").status_code != 403  # noqa: E731
            wait_for(f"{branch} to end", ended, 30, 0.3)
        self._reset("main", heads["main"])
        self.protect(rules)

    def heads(self) -> dict[str, str]:
        """Return branch -> commit."""
        listed = self.api.get("/branches", params={"amount": 1000}).raise_for_status().json()["results"]
        return {branch["id"]: branch["commit_id"] for branch in listed}

    def _reset(self, branch: str, commit: str) -> None:
        undo = lambda: self.api.put(f"/branches/{branch}", json={"type": "reset"}).is_success  # noqa: E731
        wait_for("the rules to end", undo, 30, 0.3)
        self.api.put(f"/branches/{branch}/hard_reset", params={"ref": commit}).raise_for_status()

    def judge(self, attack: Attack, what: str) -> None:
        """Record whether readers accept the bad file, or a commit with it."""
        head = self.head()
        holds = any(item.path == _BAD for item in self.lake.objects(REPOSITORY, head, "departures"))
        attack.tried(
            f"{what}: the commit is validated", not holds or not data.is_validated(REPOSITORY, head, lake=self.lake)
        )
        for address in (_MAIN, f"{REPOSITORY}/{head}/departures", f"{REPOSITORY}/{head}/{_BAD}"):
            try:
                read = data.read(address, validated=True, lake=self.lake)
            except (UnvalidatedError, NotFoundError):
                accepted = False
            else:
                accepted = any(file.path == _BAD for file in read.files)
            attack.tried(f"{what}: read of {address.replace(head, 'COMMIT')}", not accepted)
        newest = data.newest_validated(_MAIN, lake=self.lake)
        files = {item.path for item in self.lake.objects(REPOSITORY, newest, "departures")}
        attack.tried(f"{what}: the newest validated commit", _BAD not in files, newest)


@contextmanager
def _attacker(platform: RunningPlatform, folder: Path) -> Generator[Attacker]:
    """Yield an attacker with the lake's key; reset the branches afterwards."""
    with Lake(lake_settings(platform)) as lake:
        attacker = Attacker(platform, lake, folder)
        with attacker.api as api:
            before = attacker.heads()
            rules = api.get("/settings/branch_protection").raise_for_status().json()
            try:
                yield attacker
            finally:
                attacker.restore(before, rules)
                assert attacker.heads()["main"] == before["main"]


def forged_gate(platform: RunningPlatform, drill: Drill, tmp_path: Path) -> None:
    """Replace the gate on a branch by an action of the same name that accepts everything, and merge."""
    with _attacker(platform, tmp_path) as attacker:
        with drill(AREA, "an action of the gate's name on a branch") as attack:
            attacker.branch("forged")
            attacker.put("forged", _ACTION, _FORGED_ACTION)
            attacker.put_bad("forged")
            attacker.commit("forged").raise_for_status()
            attacker.merge("forged")
            attacker.judge(attack, "forged action")
            attacker.branch("inherits")
            attacker.put("inherits", "departures/notes.txt", "x")
            attacker.commit("inherits")
            attacker.merge("inherits")
            attacker.judge(attack, "a branch that inherits the action")
        with drill(AREA, "forged, replayed and deleted verdicts") as attack:
            for what, content in _forged_verdicts(attacker):
                attacker.put(VERDICT_BRANCH, verdict_file(attacker.head()), content)
                attacker.commit(VERDICT_BRANCH)
                attacker.judge(attack, what)
            for path in [item.path for item in attacker.lake.objects(REPOSITORY, VERDICT_BRANCH, "")]:
                attacker.api.delete(f"/branches/{VERDICT_BRANCH}/objects", params={"path": path})
            attacker.commit(VERDICT_BRANCH)
            with contextlib.suppress(UnvalidatedError):  # without any verdict there is no validated commit
                attacker.judge(attack, "deleted verdicts")
        with drill(AREA, "what the platform says about a forged gate") as attack:
            named = {commit.commit: commit.files for commit in data.unvalidated(_MAIN, lake=attacker.lake)}
            attack.tried("the commits and files are named", (_BAD,) in named.values(), named)


def around_the_gate(platform: RunningPlatform, drill: Drill, tmp_path: Path) -> None:
    """Bring a bad file to main in the other ways that lakeFS has."""
    with _attacker(platform, tmp_path) as attacker, drill(AREA, "ways to main around the gate") as attack:
        good = attacker.head()
        attacker.branch("forged")
        attacker.put_bad("forged")
        attacker.commit("forged").raise_for_status()
        for what, options in (
            ("merge", {}),
            ("forced merge", {"force": True}),
            ("merge without a change", {"allow_empty": True}),
            ("merge that prefers its source", {"strategy": "source-wins"}),
            ("merge that prefers its destination", {"strategy": "dest-wins"}),
            ("squash merge", {"squash_merge": True}),
        ):
            answer = attacker.merge("forged", **options)
            attack.tried(what, answer.status_code >= 400 and attacker.head() == good, answer.status_code)
        picked = attacker.api.post("/branches/main/cherry-pick", json={"ref": "forged"})
        attack.tried("cherry-pick", picked.status_code >= 400 and attacker.head() == good, picked.status_code)
        attacker.branch("forged")
        attacker.api.delete("/branches/forged/objects", params={"path": _ACTION}).raise_for_status()
        attacker.put_bad("forged")
        attacker.commit("forged").raise_for_status()
        attacker.merge("forged")
        attacker.judge(attack, "merge without the action file")
        attacker.reset(good)
        attacker.put_bad("main")
        attacker.commit("main")
        attacker.judge(attack, "commit on the unprotected main")
        attacker.reset(attacker.lake.head(REPOSITORY, "forged").id)
        attacker.judge(attack, "main reset to the attacker's commit")


def _forged_verdicts(attacker: Attacker) -> Iterator[tuple[str, bytes]]:
    """Yield verdicts for the head of main: that of the good commit, altered ones, and invented ones."""
    bad = attacker.head()
    buffer = io.BytesIO()
    attacker.lake.download(REPOSITORY, VERDICT_BRANCH, verdict_file(attacker.good), buffer)
    real: dict[str, Any] = json.loads(buffer.getvalue())
    said: dict[str, Any] = json.loads(base64.b64decode(real["payload"]))
    claim = {**said, "commit": bad}
    payload = base64.b64encode(json.dumps(claim).encode()).decode()
    yield "the good commit's verdict", buffer.getvalue()
    yield "its signature on another payload", json.dumps({**real, "payload": payload}).encode()
    yield "no signature", json.dumps({**real, "payload": payload, "signatures": []}).encode()
    yield "a key of the attacker's own", sign(Verdict.model_validate(claim), generate_signing_key())
    yield "no envelope", json.dumps(claim).encode()
    yield "no JSON", b"\0" * 1000
    yield "deep JSON", b"[" * 100_000
