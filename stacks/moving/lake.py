"""The lake's repositories: lakeFS's own dump of commits, branches and tags, with the objects, so that ids survive.

Objects never change once they are written, so what is dumped first can be copied afterwards, while work goes on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...components.provider.content.base import OWNER
from ...components.provider.content.rest import Rest, escaped
from ...components.targets.migration import LakeServer
from ...runtime.common.errors import PlatformError
from .runs import Run

__all__ = ["LakeClient", "Refs", "Snapshot"]

_PAGE = 1000
_TRIES = 5
_TASK_SECONDS = 3600.0


@dataclass(frozen=True)
class Refs:
    """lakeFS's own dump of a repository: the names of three files among its objects."""

    commits: str
    branches: str
    tags: str


@dataclass(frozen=True)
class Snapshot:
    """A repository at one moment.

    Attributes:
        name: its name.
        namespace: where its objects are.
        default_branch: its default branch.
        metadata: what is kept with it, without the mark of its stack.
        protected: its rules of which branches only merges may change.
        refs: lakeFS's dump of it.
        branches, tags: name -> commit.
        commits: the id of each commit which a branch, a tag or a model leads to.
        pinned: those which models lead to.
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
    """What is asked of a lakeFS server when its repositories move.

    Args:
        server: the server.
    """

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
            pinned: commits which count too, though no branch leads to them; one which is not there does not.

        Raises:
            PlatformError: its branches keep moving.
        """
        route = _repository(name)
        about = self._rest.get(route).body
        metadata = dict(self._rest.get(f"{route}/metadata", ok=(404,)).body or {})
        metadata.pop(OWNER, None)
        metadata.pop("message", None)
        for _ in range(_TRIES):
            before = self._heads(name)
            refs = self._dump(name)
            if self._heads(name) == before:
                break
        else:
            raise PlatformError("its branches keep moving", field=name, hint="export when less is going on")
        branches, tags = before
        there = [commit for commit in sorted(set(pinned)) if self._has(name, commit)]
        return Snapshot(
            name=name,
            namespace=str(about["storage_namespace"]).rstrip("/"),
            default_branch=str(about["default_branch"]),
            metadata=metadata,
            protected=self.rules(name),
            refs=refs,
            branches=branches,
            tags=tags,
            commits=self.commits(name, [*branches.values(), *tags.values(), *there]),
            pinned=tuple(there),
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
        """Make the repository `name` of a dump, whose objects lie below `namespace` already."""
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
        """Return the rules of which branches only merges may change."""
        return list(self._rest.get(_rules(name)).body)

    def heads(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return branches and tags of the repository, name -> commit."""
        return self._heads(name)

    def commits(self, name: str, starts: Collection[str]) -> frozenset[str]:
        """Return every commit which one of `starts` leads to, those included."""
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
                    break  # all that is behind those which were seen before was seen with them
        return frozenset(seen)

    def uncommitted(self, name: str) -> Iterator[str]:
        """Yield `branch: path` of what is written or deleted on a branch and not committed."""
        for branch in self._heads(name)[0]:
            for item in self._pages(f"{_repository(name)}/branches/{escaped(branch)}/diff"):
                yield f"{branch}: {item['path']}"

    def addresses(self, name: str, commit: str) -> Iterator[tuple[str, str, int]]:
        """Yield path, physical address and size of every object of a commit."""
        params = {"user_metadata": "false", "presign": "false"}
        for item in self._pages(f"{_repository(name)}/refs/{escaped(commit)}/objects/ls", **params):
            if item.get("path_type") == "object":
                yield str(item["path"]), str(item["physical_address"]), int(item.get("size_bytes") or 0)

    def runs(self, name: str) -> Iterator[Run]:
        """Yield every run of the repository's actions, with its hooks."""
        route = f"{_repository(name)}/actions/runs"
        for item in self._pages(route):
            hooks = list(self._pages(f"{route}/{escaped(str(item['run_id']))}/hooks"))
            yield Run.model_validate({**item, "hooks": hooks})

    def _has(self, name: str, commit: str) -> bool:
        return self._rest.get(f"{_repository(name)}/commits/{escaped(commit)}", ok=(400, 404)).status not in (400, 404)

    def _heads(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        branches, tags = (
            {str(item["id"]): str(item["commit_id"]) for item in self._pages(f"{_repository(name)}/{kind}")}
            for kind in ("branches", "tags")
        )
        return branches, tags

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
                raise PlatformError(f"lakeFS failed at it ({status['error']})", field=name)
            if status.get("done"):
                return status
            if time.monotonic() > end:
                raise PlatformError(f"lakeFS was not done with it within {_TASK_SECONDS:.0f} s", field=name)
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
