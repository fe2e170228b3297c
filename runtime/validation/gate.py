"""The data gate: judges an operation before lakeFS runs it.

The gate compares the future merge commit with the newest commit that it accepted itself. It judges the new and changed
Parquet files below the suite's path; a file is unchanged if its bytes are stored at the same place. So the next merge
that changes data also judges data that bypassed the gate.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from ..common.errors import NotFoundError
from ..common.verdicts import Verdict
from ..data import Lake, ObjectInfo
from .records import Records
from .suite import Reason, SuiteFile, SuiteRunner


class Event(BaseModel):
    """The body of a lakeFS webhook; other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    event_type: str
    repository_id: str
    branch_id: str
    source_ref: str = ""
    commit_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    merge_source: str | None = None
    committer: str = ""


@dataclass(frozen=True)
class Decision:
    """The gate's answer to lakeFS.

    Attributes:
        success: whether lakeFS may continue.
        reasons: why the gate refuses.
        files: the paths that were judged.
        base: the accepted commit that was compared, if any.
    """

    success: bool
    reasons: list[Reason] = field(default_factory=list[Reason])
    files: list[str] = field(default_factory=list[str])
    base: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the decision as the hook's JSON response."""
        return {
            "success": self.success,
            "reasons": [reason.to_json() for reason in self.reasons],
            "files": self.files,
            "base": self.base,
        }


class Gate:
    """Judges the events of lakeFS hooks.

    A forged call of the hook does not help an attacker: the gate reads the commit itself, and signs a verdict on
    exactly this commit.

    Args:
        suites: repository -> the suite for its data.
        lake: a connection to the lakeFS server.
        runner: runs the suites.
        records: keeps and publishes the verdicts.
        hook: identifier of the hook secret, for the verdicts.
    """

    def __init__(
        self, suites: Mapping[str, SuiteFile], lake: Lake, runner: SuiteRunner, records: Records, hook: str
    ) -> None:
        self._suites = suites
        self._lake = lake
        self._runner = runner
        self._records = records
        self._hook = hook

    def decide(self, event: Event) -> Decision:
        """Return the decision on `event`. A commit that was accepted once stays accepted.

        Raises:
            PlatformError, UnreachableError: lakeFS does not answer, or did not accept the signed verdict.
        """
        suite = self._suites.get(event.repository_id)
        if suite is None:
            return _refusal(f"the gate has no suite for the repository {event.repository_id}")
        if event.event_type == "pre-merge" and event.commit_id:
            return self._merge(event, event.commit_id, suite)
        if event.event_type == "pre-commit":
            return self._commit(event, suite)
        return _refusal(f"{event.event_type} on {event.branch_id} cannot be validated: merge a branch instead")

    def _merge(self, event: Event, commit: str, suite: SuiteFile) -> Decision:
        repository = event.repository_id
        earlier = self._records.read(repository, commit)
        if earlier is not None and earlier.success:
            self._records.write(earlier)
            return Decision(True, [], earlier.judged, earlier.base)
        base = self._newest_accepted(repository, event.branch_id, suite)
        before = {item.path: item for item in self._files(repository, base.commit, suite)} if base else {}
        known = (base.files if base else None) or {}
        files: dict[str, str] = {}
        judged: list[str] = []
        reasons: list[Reason] = []
        for item in self._files(repository, commit, suite):
            # lakeFS's own comparison does not see another address behind the same declared checksum.
            same = before.get(item.path) == item
            if same and item.path in known:
                files[item.path] = known[item.path]
                continue
            with tempfile.TemporaryFile(prefix="tidemill-gate-") as stream:
                self._lake.download(repository, commit, item.path, stream)
                stream.seek(0)
                files[item.path] = digest = hashlib.file_digest(stream, "sha256").hexdigest()
                if same or digest == known.get(item.path):
                    continue
                judged.append(item.path)
                reasons += self._judge(repository, item.path, stream)
        self._records.write(
            Verdict(
                repository=repository,
                commit=commit,
                branch=event.branch_id,
                success=not reasons,
                path=suite.path,
                base=base.commit if base else None,
                files=files,
                judged=judged,
                suite=suite.name,
                suite_sha256=suite.sha256,
                reasons=[reason.message for reason in reasons],
                judged_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                hook=self._hook,
            )
        )
        # Without a change, the branch had this data before: `up` must still be able to restore the action file.
        allowed = not reasons or self._brings_no_data(repository, event.branch_id, commit, suite)
        return Decision(allowed, reasons, judged, base.commit if base else None)

    def _files(self, repository: str, commit: str, suite: SuiteFile) -> Iterator[ObjectInfo]:
        """Yield the Parquet files that the suite covers."""
        for item in self._lake.objects(repository, commit, suite.prefix):
            if item.path.endswith(".parquet"):
                yield item

    def _brings_no_data(self, repository: str, branch: str, commit: str, suite: SuiteFile) -> bool:
        """Tell whether the merge `commit` leaves the data of `branch` as it is."""
        try:
            return list(self._files(repository, branch, suite)) == list(self._files(repository, commit, suite))
        except NotFoundError:
            return False

    def _commit(self, event: Event, suite: SuiteFile) -> Decision:
        """Accept commits that do not touch the data, such as the gate's own action file.

        The commit of an import has no staged files, so its content is unknown.
        """
        staged = list(self._lake.staged(event.repository_id, event.branch_id))
        data = [path for path in staged if path.startswith(suite.prefix)]
        if staged and not data:
            return Decision(True)
        return _refusal(f"data reaches {event.branch_id} only by a merge: commit on another branch, then merge it")

    def _judge(self, repository: str, path: str, stream: BinaryIO) -> list[Reason]:
        """Return why the file in `stream` fails the suite."""
        stream.seek(0)
        try:
            frame = pq.read_table(stream).to_pandas()
        except (pa.ArrowException, OSError) as error:
            return [Reason(f"{path}: not readable as Parquet ({error})", path, "parquet")]
        return self._runner.judge(repository, path, frame)

    def _newest_accepted(self, repository: str, branch: str, suite: SuiteFile) -> Verdict | None:
        """Return the verdict on the newest commit on `branch` whose data below the suite's path the gate accepted."""
        for item in self._lake.log(repository, branch):
            verdict = self._records.read(repository, item.id)
            if verdict is not None and verdict.success and verdict.covers(suite.path):
                return verdict
        return None


def hook_identifier(secret: str) -> str:
    """Return an identifier of a hook secret that does not reveal it: half of its SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def _refusal(message: str) -> Decision:
    return Decision(False, [Reason(message)])
