"""The data gate: judges an operation before lakeFS runs it.

The gate compares the future merge commit with the newest commit that it accepted itself, and judges the new and changed
Parquet files below the suite's path. So the next merge that changes data also judges data that bypassed the gate.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from ..common.errors import NotFoundError
from ..common.verdicts import Verdict
from ..data import Lake
from .records import Records, checksums
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
            return Decision(True, [], list(earlier.files), earlier.base)
        prefix = f"{suite.path}/" if suite.path else ""
        base = self._newest_accepted(repository, event.branch_id, suite)
        if base is None:
            paths = [item.path for item in self._lake.objects(repository, commit, prefix)]
        else:
            changes = self._lake.changed(repository, base, commit, prefix)
            paths = [path for kind, path in changes if kind != "removed"]
        files = [path for path in paths if path.endswith(".parquet")]
        reasons = [reason for path in files for reason in self._file(repository, commit, path)]
        self._records.write(
            Verdict(
                repository=repository,
                commit=commit,
                branch=event.branch_id,
                success=not reasons,
                path=suite.path,
                base=base,
                files=checksums(self._lake, repository, commit, files),
                suite=suite.name,
                suite_sha256=suite.sha256,
                reasons=[reason.message for reason in reasons],
                judged_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                hook=self._hook,
            )
        )
        if reasons and self._brings_no_data(repository, event.branch_id, commit, prefix):
            # The branch had this data before. `up` must still be able to restore the action file that guards it.
            return Decision(True, reasons, files, base)
        return Decision(not reasons, reasons, files, base)

    def _brings_no_data(self, repository: str, branch: str, commit: str, prefix: str) -> bool:
        """Tell whether the merge `commit` leaves the data of `branch` as it is."""
        try:
            return next(self._lake.changed(repository, branch, commit, prefix), None) is None
        except NotFoundError:
            return False

    def _commit(self, event: Event, suite: SuiteFile) -> Decision:
        """Accept commits that do not touch the data, such as the gate's own action file.

        The commit of an import has no staged files, so its content is unknown.
        """
        staged = list(self._lake.staged(event.repository_id, event.branch_id))
        data = [path for path in staged if not suite.path or path.startswith(f"{suite.path}/")]
        if staged and not data:
            return Decision(True)
        return _refusal(f"data reaches {event.branch_id} only by a merge: commit on another branch, then merge it")

    def _file(self, repository: str, commit: str, path: str) -> list[Reason]:
        with tempfile.TemporaryFile(prefix="tidemill-gate-") as stream:
            self._lake.download(repository, commit, path, stream)
            stream.seek(0)
            try:
                frame = pq.read_table(stream).to_pandas()
            except (pa.ArrowException, OSError) as error:
                return [Reason(f"{path}: not readable as Parquet ({error})", path, "parquet")]
        return self._runner.judge(repository, path, frame)

    def _newest_accepted(self, repository: str, branch: str, suite: SuiteFile) -> str | None:
        """Return the newest commit on `branch` whose data below the suite's path this gate accepted."""
        for item in self._lake.log(repository, branch):
            verdict = self._records.read(repository, item.id)
            if verdict is not None and verdict.success and verdict.covers(suite.path):
                return item.id
        return None


def hook_identifier(secret: str) -> str:
    """Return an identifier of a hook secret that does not reveal it: half of its SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def _refusal(message: str) -> Decision:
    return Decision(False, [Reason(message)])
