"""The gate's own record of its verdicts, and their signed copies in the lake.

The record is a folder that only the validation service can write. So this record, not the lake, says what the gate
accepted before. Signed copies that someone deleted or overwrote are written again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..common.errors import NotFoundError, TidemillError
from ..common.files import write_private
from ..common.verdicts import VERDICT_BRANCH, Verdict, public_key, sign, verdict_file
from ..data import Lake
from .suite import SuiteFile

_log = logging.getLogger(__name__)


class Records:
    """Keeps verdicts, and publishes them signed on the branch `tidemill-verdicts` of each repository.

    Args:
        folder: the record, with one file `REPOSITORY/COMMIT.json` per judged merge.
        lake: a connection to the lakeFS server.
        signing_key: the private key of the signatures.
    """

    def __init__(self, folder: Path, lake: Lake, signing_key: str) -> None:
        self._folder = folder
        self._lake = lake
        self._signing_key = signing_key
        # lakeFS refuses a commit if the branch moves meanwhile.
        self._publishing = threading.Lock()

    @property
    def public_key(self) -> str:
        """The public key with which readers verify the signatures."""
        return public_key(self._signing_key)

    def read(self, repository: str, commit: str) -> Verdict | None:
        """Return the recorded verdict on `commit`, or None."""
        try:
            return Verdict.model_validate_json(self._file(repository, commit).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            _log.warning("the record is unreadable", extra={"repository": repository, "commit": commit})
            return None

    def write(self, verdict: Verdict) -> None:
        """Record the verdict, and publish its signed copy.

        Raises:
            PlatformError, UnreachableError: lakeFS did not accept the copy.
        """
        self._write(verdict)
        self._publish(verdict.repository, [verdict])

    def restore(self, repository: str, suite: SuiteFile) -> int:
        """Publish the verdicts whose signed copies are missing or different; return their number.

        After a change of the signing key, this signs all verdicts again. It also converts the reports of earlier
        versions, which had no signature.

        Raises:
            PlatformError, UnreachableError: lakeFS did not accept the copies.
        """
        verdicts = list(self._all(repository, suite))
        if not verdicts:
            return 0
        found = self._published(repository)
        # lakeFS's checksum of an uploaded object is its MD5.
        missing = [verdict for verdict in verdicts if found.get(verdict_file(verdict.commit)) != self._md5(verdict)]
        if missing:
            self._publish(repository, missing)
        return len(missing)

    def _all(self, repository: str, suite: SuiteFile) -> Iterator[Verdict]:
        for file in sorted((self._folder / repository).glob("*.json")):
            try:
                raw: dict[str, Any] = json.loads(file.read_bytes())
                yield Verdict.model_validate(raw) if "path" in raw else self._converted(raw, suite)
            except (ValueError, KeyError, TypeError, NotFoundError) as error:
                _log.warning("the record is unreadable", extra={"file": str(file), "error": str(error)})

    def _converted(self, report: dict[str, Any], suite: SuiteFile) -> Verdict:
        """Convert and record a report of an earlier version."""
        repository, commit = str(report["repository"]), str(report["commit"])
        reasons = [str(reason["message"]) for reason in report["reasons"]]
        paths = [str(path) for path in report["files"]]
        verdict = Verdict(
            repository=repository,
            commit=commit,
            branch=str(report["branch"]),
            success=report["success"] is True,
            path=suite.path,
            base=report["base"],
            files=checksums(self._lake, repository, commit, paths),
            suite=str(report["suite"]),
            reasons=reasons,
            judged_at=str(report["judged_at"]),
        )
        self._write(verdict)
        return verdict

    def _write(self, verdict: Verdict) -> None:
        file = self._file(verdict.repository, verdict.commit)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(file, verdict.model_dump_json(indent=1), durable=True)

    def _file(self, repository: str, commit: str) -> Path:
        return self._folder / repository / f"{commit}.json"

    def _md5(self, verdict: Verdict) -> str:
        return hashlib.md5(sign(verdict, self._signing_key), usedforsecurity=False).hexdigest()

    def _published(self, repository: str) -> dict[str, str]:
        try:
            return {item.path: item.checksum for item in self._lake.objects(repository, VERDICT_BRANCH, "verdicts/")}
        except NotFoundError:
            return {}

    def _publish(self, repository: str, verdicts: list[Verdict]) -> None:
        with self._publishing:
            self._create_branch(repository, verdicts[0].branch)
            try:
                self._upload(repository, verdicts)
                self._commit(repository, verdicts)
            except TidemillError as error:
                # Someone may have added hooks or other changes to the branch.
                _log.warning("the branch of verdicts is created again", extra={"error": str(error)})
                self._lake.delete_branch(repository, VERDICT_BRANCH)
                self._create_branch(repository, verdicts[0].branch)
                self._upload(repository, verdicts)
                try:
                    self._commit(repository, verdicts)
                except TidemillError as again:
                    # lakeFS remembers hooks for some seconds. Readers also see what is not committed yet.
                    _log.warning("the verdicts are not committed yet", extra={"error": str(again)})

    def _create_branch(self, repository: str, guarded: str) -> None:
        """Create the branch of verdicts, if needed, from the first commit: it is empty, so no hooks run on it."""
        if not self._lake.has_branch(repository, VERDICT_BRANCH):
            *_, first = self._lake.log(repository, guarded)
            self._lake.create_branch(repository, VERDICT_BRANCH, first.id)

    def _upload(self, repository: str, verdicts: list[Verdict]) -> None:
        with tempfile.TemporaryDirectory(prefix="tidemill-verdict-") as folder:
            for verdict in verdicts:
                file = Path(folder, "verdict.json")
                file.write_bytes(sign(verdict, self._signing_key))
                self._lake.upload(repository, VERDICT_BRANCH, verdict_file(verdict.commit), file)

    def _commit(self, repository: str, verdicts: list[Verdict]) -> None:
        message = f"Verdict on {verdicts[0].commit}" if len(verdicts) == 1 else f"{len(verdicts)} verdicts"
        self._lake.commit(repository, VERDICT_BRANCH, message, {})


def checksums(lake: Lake, repository: str, commit: str, paths: list[str]) -> dict[str, str]:
    """Return path -> lakeFS's checksum for the `paths` that exist at `commit`."""
    wanted = set(paths)
    if not wanted:
        return {}
    shared = _common_folder(paths)
    return {item.path: item.checksum for item in lake.objects(repository, commit, shared) if item.path in wanted}


def _common_folder(paths: list[str]) -> str:
    """Return the longest common prefix of `paths`.

    >>> _common_folder(["a/b/1.parquet", "a/b/2.parquet"])
    'a/b/'
    """
    first, last = min(paths), max(paths)
    length = next((index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length]
