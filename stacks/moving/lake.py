"""Dumps and restores lakeFS repositories with lakeFS's own dump, which keeps all ids.

Objects never change once they are written, so they can be copied after the dump, while the lake is in use.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...components.provider.content.base import OWNER
from ...components.provider.content.rest import Rest
from ...components.targets.migration import LakeServer
from ...runtime.common.errors import PlatformError
from ...runtime.common.http import escaped
from .runs import Run

_PAGE = 1000
_TRIES = 5
_TASK_SECONDS = 3600.0


@dataclass(frozen=True)
class Refs:
    """lakeFS's dump of a repository: the names of three of its objects."""

    commits: str
    branches: str
    tags: str


@dataclass(frozen=True)
class Snapshot:
    """A consistent snapshot of a repository.

    Attributes:
        name: its name.
        namespace: its storage namespace.
        default_branch: its default branch.
        metadata: its metadata, without the ownership mark of its stack.
        protected: its branch protection rules.
        refs: lakeFS's dump.
        branches, tags: name -> commit.
        commits: ids of all commits reachable from a branch, a tag or `pinned`.
        pinned: existing commits that models were trained on.
    """

    name: str
    namespace: str
    default_branch: str
    metadata: Mapping[str, str]
    protected: Sequence[Mapping[str, Any]]
    refs: Refs
    branches: Mapping[str, str]
    tags: Mapping[str, str]
    commits: frozenset[str]
    pinned: tuple[str, ...] = field(default=())


class LakeClient:
    """A client of a lakeFS server for moving its repositories."""

    def __init__(self, server: LakeServer) -> None:
        self._rest = Rest("lakeFS", f"{server.url.rstrip('/')}/api/v1", server.key_id, server.secret)

    def version(self) -> str:
        """Return the server's version."""
        return str(self._rest.get("/config").body["version_config"]["version"])

    def repositories(self) -> list[str]:
        """Return the names of all repositories."""
        return [str(item["id"]) for item in self._pages("/repositories")]

    def snapshot(self, name: str, pinned: Collection[str] = ()) -> Snapshot:
        """Dump the repository `name`.

        Args:
            name: the repository.
            pinned: more commits to include, reachable from a branch or not; missing ones are ignored.

        Raises:
            PlatformError: its branches keep changing.
        """
        route = _repository(name)
        about = self._rest.get(route).body
        metadata = dict(self._rest.get(f"{route}/metadata", ok=(404,)).body or {})
        metadata.pop(OWNER, None)
        metadata.pop("message", None)
        for _ in range(_TRIES):
            before = self.heads(name)
            refs = self._dump(name)
            if self.heads(name) == before:
                break
        else:
            raise PlatformError("its branches keep changing", field=name, hint="export when fewer jobs run")
        branches, tags = before
        existing = [commit for commit in sorted(set(pinned)) if self._has(name, commit)]
        return Snapshot(
            name=name,
            namespace=str(about["storage_namespace"]).rstrip("/"),
            default_branch=str(about["default_branch"]),
            metadata=metadata,
            protected=self.rules(name),
            refs=refs,
            branches=branches,
            tags=tags,
            commits=self.commits(name, [*branches.values(), *tags.values(), *existing]),
            pinned=tuple(existing),
        )

    def restore(
        self,
        name: str,
        namespace: str,
        default_branch: str,
        refs: Refs,
        metadata: Mapping[str, str],
        protected: Sequence[Mapping[str, Any]],
    ) -> None:
        """Create the repository `name` from a dump whose objects are already in `namespace`."""
        body = {"name": name, "storage_namespace": namespace, "default_branch": default_branch}
        self._rest.send("POST", "/repositories", params={"bare": "true"}, json=body)
        route = _repository(name)
        wanted = {
            "commits_meta_range_id": refs.commits,
            "branches_meta_range_id": refs.branches,
            "tags_meta_range_id": refs.tags,
        }
        task = self._rest.send("POST", f"{route}/restore", json=wanted).body["id"]
        self._task(f"{route}/restore", task, name)
        self._rest.send("POST", f"{route}/metadata", json={"metadata": dict(metadata)})
        self._rest.send("PUT", _rules(name), json=[dict(rule) for rule in protected])

    def rules(self, name: str) -> list[dict[str, Any]]:
        """Return the branch protection rules."""
        return list(self._rest.get(_rules(name)).body)

    def heads(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return the branches and the tags of the repository, name -> commit."""
        branches, tags = (
            {str(item["id"]): str(item["commit_id"]) for item in self._pages(f"{_repository(name)}/{kind}")}
            for kind in ("branches", "tags")
        )
        return branches, tags

    def commits(self, name: str, starts: Collection[str]) -> frozenset[str]:
        """Return all commits reachable from `starts`, including them."""
        seen: set[str] = set()
        for start in starts:
            if start in seen:
                continue
            missing = {start}
            for item in self._pages(f"{_repository(name)}/refs/{escaped(start)}/commits"):
                identity = str(item["id"])
                missing.discard(identity)
                if identity not in seen:
                    seen.add(identity)
                    missing |= {str(parent) for parent in item["parents"]} - seen
                if not missing:
                    break  # the ancestors of commits seen earlier were seen with them
        return frozenset(seen)

    def uncommitted(self, name: str) -> Iterator[str]:
        """Yield the uncommitted changes of all branches, as `branch: path`."""
        for branch in self.heads(name)[0]:
            for item in self._pages(f"{_repository(name)}/branches/{escaped(branch)}/diff"):
                yield f"{branch}: {item['path']}"

    def addresses(self, name: str, commit: str) -> Iterator[tuple[str, str, int]]:
        """Yield the path, physical address and size of every object of a commit."""
        params = {"user_metadata": "false", "presign": "false"}
        for item in self._pages(f"{_repository(name)}/refs/{escaped(commit)}/objects/ls", **params):
            if item.get("path_type") == "object":
                yield str(item["path"]), str(item["physical_address"]), int(item.get("size_bytes") or 0)

    def runs(self, name: str) -> Iterator[Run]:
        """Yield all action runs of the repository, with their hooks."""
        route = f"{_repository(name)}/actions/runs"
        for item in self._pages(route):
            hooks = list(self._pages(f"{route}/{escaped(str(item['run_id']))}/hooks"))
            yield Run.model_validate({**item, "hooks": hooks})

    def _has(self, name: str, commit: str) -> bool:
        return self._rest.get(f"{_repository(name)}/commits/{escaped(commit)}", ok=(400, 404)).status not in (400, 404)

    def _dump(self, name: str) -> Refs:
        route = f"{_repository(name)}/dump"
        refs = self._task(route, self._rest.send("POST", route).body["id"], name)["refs"]
        return Refs(
            str(refs["commits_meta_range_id"]), str(refs["branches_meta_range_id"]), str(refs["tags_meta_range_id"])
        )

    def _task(self, route: str, task: str, name: str) -> dict[str, Any]:
        end = time.monotonic() + _TASK_SECONDS
        pause = 0.05
        while True:
            status = self._rest.get(route, task_id=task).body
            if status.get("error"):
                raise PlatformError(f"lakeFS could not dump or restore it ({status['error']})", field=name)
            if status.get("done"):
                return status
            if time.monotonic() > end:
                raise PlatformError(f"lakeFS did not dump or restore it within {_TASK_SECONDS:.0f} s", field=name)
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def _pages(self, route: str, **params: str) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            body = self._rest.send("GET", route, params={**params, "amount": str(_PAGE), **after}).body
            yield from body["results"]
            if not body["pagination"]["has_more"]:
                return
            after = {"after": str(body["pagination"]["next_offset"])}


def _rules(name: str) -> str:
    return f"{_repository(name)}/settings/branch_protection"


def _repository(name: str) -> str:
    return f"/repositories/{escaped(name)}"
