"""The data gate: judges an operation before lakeFS runs it.

The gate compares the future merge commit with the newest commit that it accepted itself, and judges the new and changed
Parquet files below the suite's path. So data that bypassed the gate is judged with the next merge.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from ..data import Lake
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
class Verdict:
    """The gate's verdict.

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
        """Return the verdict as the hook's JSON response."""
        return {
            "success": self.success,
            "reasons": [reason.to_json() for reason in self.reasons],
            "files": self.files,
            "base": self.base,
        }


class Gate:
    """Judges the events of lakeFS hooks.

    Args:
        suites: repository -> the suite for its data.
        lake: a connection to the lakeFS server.
        runner: runs the suites.
        reports: folder with one report per judged merge; it is also the record of accepted commits.
    """

    def __init__(self, suites: Mapping[str, SuiteFile], lake: Lake, runner: SuiteRunner, reports: Path) -> None:
        self._suites = suites
        self._lake = lake
        self._runner = runner
        self._reports = reports

    def decide(self, event: Event) -> Verdict:
        """Return the verdict on `event`; the same commit always gets the same verdict."""
        suite = self._suites.get(event.repository_id)
        if suite is None:
            return _refusal(f"the gate has no suite for the repository {event.repository_id}")
        if event.event_type == "pre-merge" and event.commit_id:
            return self._merge(event, event.commit_id, suite)
        if event.event_type == "pre-commit":
            return self._commit(event, suite)
        return _refusal(f"{event.event_type} on {event.branch_id} cannot be validated: merge a branch instead")

    def _merge(self, event: Event, commit: str, suite: SuiteFile) -> Verdict:
        repository = event.repository_id
        prefix = f"{suite.path}/" if suite.path else ""
        base = self._newest_accepted(repository, event.branch_id)
        if base is None:
            paths = [item.path for item in self._lake.objects(repository, commit, prefix)]
        else:
            changes = self._lake.changed(repository, base, commit, prefix)
            paths = [path for kind, path in changes if kind != "removed"]
        files = [path for path in paths if path.endswith(".parquet")]
        reasons = [reason for path in files for reason in self._file(repository, commit, path)]
        verdict = Verdict(not reasons, reasons, files, base)
        self._write_report(event, commit, suite, verdict)
        return verdict

    def _commit(self, event: Event, suite: SuiteFile) -> Verdict:
        """Accept commits that do not touch the data, such as the gate's own action file.

        The commit of an import has no staged files, so its content is unknown.
        """
        staged = list(self._lake.staged(event.repository_id, event.branch_id))
        data = [path for path in staged if not suite.path or path.startswith(f"{suite.path}/")]
        if staged and not data:
            return Verdict(True)
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

    def _newest_accepted(self, repository: str, branch: str) -> str | None:
        """Return the newest commit on `branch` that this gate accepted."""
        return next(
            (item.id for item in self._lake.log(repository, branch) if self._has_accepted(repository, item.id)), None
        )

    def _has_accepted(self, repository: str, commit: str) -> bool:
        try:
            report = json.loads(self._report(repository, commit).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        return report["success"] is True

    def _report(self, repository: str, commit: str) -> Path:
        return self._reports / repository / f"{commit}.json"

    def _write_report(self, event: Event, commit: str, suite: SuiteFile, verdict: Verdict) -> None:
        """Write the report atomically."""
        report = {
            "repository": event.repository_id,
            "branch": event.branch_id,
            "commit": commit,
            "source": event.merge_source,
            "suite": suite.name,
            "judged_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **verdict.to_json(),
        }
        file = self._report(event.repository_id, commit)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = file.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(report, default=str, indent=1), encoding="utf-8")
        partial.replace(file)


def _refusal(message: str) -> Verdict:
    return Verdict(False, [Reason(message)])
