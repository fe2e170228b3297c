"""Lists the commits of a branch that did not pass the gate, and removes their data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..common.errors import ConfigError, UnvalidatedError
from .dataset import LakeLike, newest_accepted, opened, prefix_of, split
from .lake_client import Commit, Lake, ObjectInfo

_MAX_COMMITS = 100
_MAX_FILES = 1000
_ACTIONS = "_lakefs_actions/"


@dataclass(frozen=True)
class UnvalidatedCommit:
    """A commit that changed data on a branch without passing the gate.

    Attributes:
        commit: the full commit id.
        message: its message.
        created: its time, UTC, ISO 8601.
        files: the changed paths, at most 1000.
    """

    commit: str
    message: str
    created: str
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"commit": self.commit, "message": self.message, "created": self.created, "files": [*self.files]}


@dataclass(frozen=True)
class Restored:
    """The result of `restore`.

    Attributes:
        commit: the merge that restored the branch; None if there was nothing to restore, or for a dry run.
        accepted: the accepted commit whose data the branch now has.
        removed, restored: the deleted paths, and the paths whose accepted content was restored.
    """

    commit: str | None
    accepted: str
    removed: tuple[str, ...]
    restored: tuple[str, ...]


def unvalidated(address: str, *, lake: LakeLike = None) -> list[UnvalidatedCommit]:
    """Return the commits of `REPOSITORY/BRANCH[/PATH]` that brought data past the gate, newest first, at most 100.

    These are the commits after the newest accepted one that changed something at or below the path. If the gate
    accepted no commit, these are all commits that changed something there.

    Raises:
        NotFoundError: the repository or branch does not exist.
        UnreachableError: lakeFS does not answer.
    """
    repository, ref, path = split(address)
    found: list[UnvalidatedCommit] = []
    with opened(lake) as connection:
        for item in connection.log(repository, ref):
            if connection.accepted(repository, item.id) or len(found) >= _MAX_COMMITS:
                break
            if files := _changed_files(connection, repository, item, path):
                created = datetime.fromtimestamp(item.created, UTC).isoformat()
                found.append(UnvalidatedCommit(item.id, item.message, created, files))
    return found


def restore(address: str, *, dry_run: bool = False, lake: LakeLike = None) -> Restored:
    """Restore the data of the newest accepted commit of `REPOSITORY/BRANCH`, through the gate.

    The history keeps the commits that did not pass. lakeFS action files stay as they are; `tidemill up` restores the
    gate's own. A repeated call changes nothing.

    Args:
        address: the branch.
        dry_run: only return what would change.
        lake: the lakeFS server.

    Raises:
        ConfigError: the address has a path.
        UnvalidatedError: the gate accepted no commit of the branch, or lakeFS merged without calling the gate.
        GateError: the gate refused the merge.
        UnreachableError: lakeFS or the gate does not answer; nothing was merged.
    """
    repository, branch, path = split(address)
    if path:
        raise ConfigError("must not have a path", field="data", value=address, hint="write REPOSITORY/BRANCH")
    with opened(lake) as connection:
        head = connection.head(repository, branch)
        good = newest_accepted(connection, repository, head.id)
        verdict = connection.verdict(repository, good.id) if good else None
        if good is None or verdict is None:
            raise UnvalidatedError("no commit passed the gate", field="data", value=address, hint="publish data first")
        # Not lakeFS's comparison, which does not see another address behind the same declared checksum.
        prefix = prefix_of(verdict.path)
        before, now = (_objects(connection, repository, commit, prefix) for commit in (good.id, head.id))
        removed = tuple(sorted(now.keys() - before.keys()))
        back = tuple(name for name, item in before.items() if now.get(name) != item)
        if dry_run or not (removed or back):
            return Restored(None, good.id, removed, back)
        temporary = f"tidemill-restore-{head.id[:12]}"
        connection.delete_branch(repository, temporary)
        connection.create_branch(repository, temporary, head.id)
        message = f"Restore the data of {good.id[:12]}"
        # lakeFS keeps an entry with the same declared checksum in a merge: it must be gone before it comes back.
        hidden = [name for name in back if name in now and _seem_equal(now[name], before[name])]
        for name in (*removed, *hidden):
            connection.delete(repository, temporary, name)
        if hidden:
            connection.commit(repository, temporary, f"{message}: remove changed objects", {})
            connection.merge(repository, temporary, branch, f"{message}: remove changed objects", {})
        for name in back:
            connection.copy(repository, temporary, name, good.id)
        connection.commit(repository, temporary, message, {})
        made = connection.merge(repository, temporary, branch, message, {})
        connection.delete_branch(repository, temporary)
        if made is not None and not connection.accepted(repository, made):
            raise UnvalidatedError(
                "the data is restored, but lakeFS did not call the gate: its action file on the branch was changed",
                field="data",
                value=address,
                hint="run `tidemill up`, which restores the action file",
            )
        return Restored(made, good.id, removed, back)


def _seem_equal(left: ObjectInfo, right: ObjectInfo) -> bool:
    return (left.size, left.checksum) == (right.size, right.checksum)


def _objects(lake: Lake, repository: str, ref: str, prefix: str) -> dict[str, ObjectInfo]:
    return {item.path: item for item in lake.objects(repository, ref, prefix) if not item.path.startswith(_ACTIONS)}


def _changed_files(lake: Lake, repository: str, item: Commit, path: str) -> tuple[str, ...]:
    if not item.parents:
        return ()
    changes = lake.changed(repository, item.parents[0], item.id, prefix_of(path))
    names = (name for _, name in changes if not name.startswith(_ACTIONS))
    return tuple(name for name, _ in zip(names, range(_MAX_FILES), strict=False))
