"""The verdict on what lakeFS is about to do.

Judged are the Parquet files below the suite's path which the future merge commit has and the newest commit that this
gate itself accepted does not have. A change which came in around the gate is thus judged with the next merge, instead
of being taken for good because it is there.
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

__all__ = ["Event", "Gate", "Verdict"]


class Event(BaseModel):
    """What lakeFS tells a webhook; further fields are ignored."""

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
    """The gate's answer.

    Attributes:
        success: whether lakeFS may go on.
        reasons: why not.
        files: paths which were judged.
        base: the accepted commit they were compared to, if there was one.
    """

    success: bool
    reasons: list[Reason] = field(default_factory=list[Reason])
    files: list[str] = field(default_factory=list[str])
    base: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as the hook's JSON answer."""
        return {
            "success": self.success,
            "reasons": [reason.to_json() for reason in self.reasons],
            "files": self.files,
            "base": self.base,
        }


class Gate:
    """Judges the events of lakeFS's hooks.

    Args:
        suites: repository -> what its data must meet.
        lake: a connection to the server which asks.
        runner: runs the suites.
        reports: folder of one small report a judged merge, which also tells what was accepted before.
    """

    def __init__(self, suites: Mapping[str, SuiteFile], lake: Lake, runner: SuiteRunner, reports: Path) -> None:
        self._suites = suites
        self._lake = lake
        self._runner = runner
        self._reports = reports

    def decide(self, event: Event) -> Verdict:
        """Return the verdict on `event`; asked again about the same commit, it judges again and answers the same."""
        suite = self._suites.get(event.repository_id)
        if suite is None:
            return _no(f"the gate has no expectations for the repository {event.repository_id}")
        if event.event_type == "pre-merge" and event.commit_id:
            return self._merge(event, event.commit_id, suite)
        if event.event_type == "pre-commit":
            return self._commit(event, suite)
        return _no(f"{event.event_type} on {event.branch_id} cannot be judged beforehand: do it on a branch, and merge")

    def _merge(self, event: Event, commit: str, suite: SuiteFile) -> Verdict:
        repository = event.repository_id
        prefix = f"{suite.path}/" if suite.path else ""
        base = self._accepted(repository, event.branch_id)
        if base is None:
            paths = [item.path for item in self._lake.objects(repository, commit, prefix)]
        else:
            changes = self._lake.changed(repository, base, commit, prefix)
            paths = [path for kind, path in changes if kind != "removed"]
        files = [path for path in paths if path.endswith(".parquet")]
        reasons = [reason for path in files for reason in self._file(repository, commit, path)]
        verdict = Verdict(not reasons, reasons, files, base)
        self._keep(event, commit, suite, verdict)
        return verdict

    def _commit(self, event: Event, suite: SuiteFile) -> Verdict:
        """Let pass what visibly leaves the data alone, such as the gate's own action file.

        An import is committed without being visible here: nothing is staged then.
        """
        staged = list(self._lake.staged(event.repository_id, event.branch_id))
        data = [path for path in staged if not suite.path or path.startswith(f"{suite.path}/")]
        if staged and not data:
            return Verdict(True)
        return _no(f"data enters {event.branch_id} by a merge alone: commit on a branch, and merge")

    def _file(self, repository: str, commit: str, path: str) -> list[Reason]:
        with tempfile.TemporaryFile(prefix="tidemill-gate-") as stream:
            self._lake.download(repository, commit, path, stream)
            stream.seek(0)
            try:
                frame = pq.read_table(stream).to_pandas()
            except (pa.ArrowException, OSError) as error:
                return [Reason(f"{path}: not readable as Parquet ({error})", path, "parquet")]
        return self._runner.judge(repository, path, frame)

    def _accepted(self, repository: str, branch: str) -> str | None:
        """Return the newest commit on `branch` for which this gate's own report says yes."""
        return next(
            (item.id for item in self._lake.log(repository, branch) if self._said_yes(repository, item.id)), None
        )

    def _said_yes(self, repository: str, commit: str) -> bool:
        try:
            report = json.loads(self._report(repository, commit).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        return report["success"] is True

    def _report(self, repository: str, commit: str) -> Path:
        return self._reports / repository / f"{commit}.json"

    def _keep(self, event: Event, commit: str, suite: SuiteFile, verdict: Verdict) -> None:
        """Write the report as a whole or not at all."""
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


def _no(message: str) -> Verdict:
    return Verdict(False, [Reason(message)])
