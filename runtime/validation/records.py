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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.errors import NotFoundError, TidemillError, UnreachableError
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
        suites: repository -> the suite for its data.
        signing_key: the private key of the signatures.
    """

    def __init__(self, folder: Path, lake: Lake, suites: Mapping[str, SuiteFile], signing_key: str) -> None:
        self._folder = folder
        self._lake = lake
        self._suites = suites
        self._signing_key = signing_key
        # lakeFS refuses a commit if the branch moves meanwhile.
        self._publishing = threading.Lock()
        self._digests: dict[Path, tuple[tuple[int, int], str | None]] = {}

    @property
    def public_key(self) -> str:
        """The public key with which readers verify the signatures."""
        return public_key(self._signing_key)

    def read(self, repository: str, commit: str) -> Verdict | None:
        """Return the recorded verdict on `commit`, or None."""
        file = self._file(repository, commit)
        try:
            return self._parse(file.read_bytes(), repository)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("the record is unreadable", extra={"file": str(file), "error": str(error)})
            return None

    def write(self, verdict: Verdict) -> None:
        """Record the verdict, and publish its signed copy.

        Raises:
            PlatformError, UnreachableError: lakeFS did not accept the copy.
        """
        file = self._file(verdict.repository, verdict.commit)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(file, verdict.model_dump_json(indent=1), durable=True)
        self._publish(verdict.repository, [verdict])

    def restore(self, repository: str) -> int:
        """Publish the verdicts whose signed copies are missing or different; return their number.

        After a change of the signing key, this signs all verdicts again.

        Raises:
            PlatformError, UnreachableError: lakeFS did not accept the copies.
        """
        digests = {commit: self._md5(repository, commit) for commit in self._commits(repository)}
        if not any(digests.values()):
            return 0
        found = self._published(repository)
        # lakeFS's checksum of an uploaded object is its MD5.
        missing = [commit for commit, digest in digests.items() if digest and found.get(verdict_file(commit)) != digest]
        verdicts = [verdict for commit in missing if (verdict := self.read(repository, commit)) is not None]
        if verdicts:
            self._publish(repository, verdicts)
        return len(verdicts)

    def _commits(self, repository: str) -> list[str]:
        return sorted(file.stem for file in (self._folder / repository).glob("*.json"))

    def _parse(self, content: bytes, repository: str) -> Verdict:
        """Return the verdict in a record; convert one of an earlier version, which knew no path and no digests."""
        raw: dict[str, Any] = json.loads(content)
        if "path" in raw:
            return Verdict.model_validate(raw)
        return Verdict(
            repository=repository,
            commit=str(raw["commit"]),
            branch=str(raw["branch"]),
            success=raw["success"] is True,
            path=self._suites[repository].path,
            base=raw["base"],
            judged=[str(path) for path in raw["files"]],
            suite=str(raw["suite"]),
            reasons=[str(reason["message"]) for reason in raw["reasons"]],
            judged_at=str(raw["judged_at"]),
        )

    def _file(self, repository: str, commit: str) -> Path:
        return self._folder / repository / f"{commit}.json"

    def _md5(self, repository: str, commit: str) -> str | None:
        """Return the MD5 of the signed copy, or None if the record is unreadable; read only changed files."""
        file = self._file(repository, commit)
        status = file.stat()
        signature = (status.st_mtime_ns, status.st_size)
        known = self._digests.get(file)
        if known is None or known[0] != signature:
            verdict = self.read(repository, commit)
            digest = None
            if verdict is not None:
                digest = hashlib.md5(sign(verdict, self._signing_key), usedforsecurity=False).hexdigest()
            known = self._digests[file] = (signature, digest)
        return known[1]

    def _published(self, repository: str) -> dict[str, str]:
        try:
            return {item.path: item.checksum for item in self._lake.objects(repository, VERDICT_BRANCH, "verdicts/")}
        except NotFoundError:
            return {}

    def _publish(self, repository: str, verdicts: list[Verdict]) -> None:
        with self._publishing:
            self._create_branch(repository)
            try:
                self._upload(repository, verdicts)
                self._commit(repository, verdicts)
            except TidemillError as error:
                if isinstance(error, UnreachableError) and error.field == "lake":
                    raise  # lakeFS itself does not answer
                # Someone may have added hooks or other changes to the branch.
                _log.warning("the branch of verdicts is created again", extra={"error": str(error)})
                self._lake.delete_branch(repository, VERDICT_BRANCH)
                self._create_branch(repository)
                recorded = (self.read(repository, commit) for commit in self._commits(repository))
                verdicts = [verdict for verdict in recorded if verdict is not None]
                self._upload(repository, verdicts)
                try:
                    self._commit(repository, verdicts)
                except TidemillError as again:
                    # lakeFS remembers hooks for some seconds. Readers also see what is not committed yet.
                    _log.warning("the verdicts are not committed yet", extra={"error": str(again)})

    def _create_branch(self, repository: str) -> None:
        """Create the branch of verdicts, if needed, from the first commit: it is empty, so no hooks run on it."""
        if not self._lake.has_branch(repository, VERDICT_BRANCH):
            *_, first = self._lake.log(repository, self._lake.default_branch(repository))
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
