"""A small client of lakeFS's REST API (https://docs.lakefs.io/latest/reference/api/), for the parts the runtime uses.

It takes the server and the key from the settings it is given and from nowhere else: no `~/.lakectl.yaml`, no
environment. `tidemill.runtime.data` is what most code wants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import httpx

from ..common.errors import GateError, NotFoundError, PlatformError, UnreachableError
from ..common.secrets import is_loopback, read_secret
from ..common.settings import LakeSettings

__all__ = ["GATE_ACTION", "Commit", "Lake", "ObjectInfo", "Run"]

GATE_ACTION = "tidemill-gate"
"""Name of the lakeFS action which asks the validation service."""

_PAGE = 1000
# A merge waits for its hooks, which may take minutes on large data.
_TIMEOUT = httpx.Timeout(30.0, read=600.0)


@dataclass(frozen=True)
class Commit:
    """A commit of a repository; `created` in seconds since the epoch."""

    id: str
    parents: tuple[str, ...]
    message: str
    created: int
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class ObjectInfo:
    """An object at a ref; `size` in bytes, `checksum` as lakeFS keeps it (mostly an MD5)."""

    path: str
    size: int
    checksum: str


@dataclass(frozen=True)
class Run:
    """A run of a repository's actions."""

    id: str
    branch: str
    event: str
    status: str
    commit: str


class Lake:
    """A connection to a lakeFS server; safe to share between threads, closed by `close` or `with`.

    Args:
        settings: where the server is, and the files which hold its key.

    Raises:
        NotFoundError, ConfigError: a key file is missing or empty.
    """

    def __init__(self, settings: LakeSettings) -> None:
        self.settings = settings
        endpoint = settings.endpoint.rstrip("/")
        self._http = httpx.Client(
            base_url=f"{endpoint}/api/v1",
            auth=(read_secret(settings.key_id_file), read_secret(settings.secret_file)),
            timeout=_TIMEOUT,
            # A proxy of the environment has no way to this machine's own loopback.
            trust_env=not is_loopback(endpoint),
        )

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def head(self, repository: str, ref: str) -> Commit:
        """Return the commit which `ref` (branch, tag, commit id or its prefix) names now.

        Raises:
            NotFoundError: there is no such repository or ref.
        """
        params = {"amount": 1, "limit": True}
        answer = self._json("GET", _ref(repository, ref, "commits"), what=f"{repository}/{ref}", params=params)
        return _commit(answer["results"][0])

    def log(self, repository: str, ref: str) -> Iterator[Commit]:
        """Yield the commits of `ref`, newest first, along first parents."""
        params: dict[str, Any] = {"first_parent": True, "amount": 100}
        for item in self._pages(_ref(repository, ref, "commits"), params, f"{repository}/{ref}"):
            yield _commit(item)

    def objects(self, repository: str, ref: str, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects at `ref` whose path starts with `prefix`, in order of path."""
        params: dict[str, Any] = {"prefix": prefix, "amount": _PAGE, "user_metadata": False}
        for item in self._pages(_ref(repository, ref, "objects/ls"), params, f"{repository}/{ref}"):
            if item.get("path_type") == "object":
                yield ObjectInfo(str(item["path"]), int(item.get("size_bytes") or 0), str(item["checksum"]))

    def changed(self, repository: str, left: str, right: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield (`added`, `changed` or `removed`, path) for what is otherwise in `right` than in `left`."""
        params: dict[str, Any] = {"prefix": prefix, "amount": _PAGE, "type": "two_dot"}
        route = f"{_ref(repository, left, 'diff')}/{quote(right, safe='')}"
        for item in self._pages(route, params, f"{repository}/{left}..{right}"):
            yield str(item["type"]), str(item["path"])

    def staged(self, repository: str, branch: str) -> Iterator[str]:
        """Yield the paths on `branch` which are written or deleted and not committed yet."""
        route = f"{_repository(repository)}/branches/{quote(branch, safe='')}/diff"
        for item in self._pages(route, {"amount": _PAGE}, f"{repository}/{branch}"):
            yield str(item["path"])

    def download(self, repository: str, ref: str, path: str, into: BinaryIO) -> None:
        """Write the object's bytes to `into`, in constant memory."""
        what = f"{repository}/{ref}/{path}"
        try:
            with self._http.stream("GET", _ref(repository, ref, "objects"), params={"path": path}) as response:
                if response.is_error:
                    response.read()
                    raise self._error(response, what)
                into.writelines(response.iter_bytes(1 << 20))
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def upload(self, repository: str, branch: str, path: str, file: Path) -> ObjectInfo:
        """Upload `file` to `path` on `branch`, in constant memory; the change is not committed by that."""
        route = f"{_repository(repository)}/branches/{quote(branch, safe='')}/objects"
        with file.open("rb") as stream:
            answer = self._json(
                "POST",
                route,
                what=f"{repository}/{branch}/{path}",
                params={"path": path},
                content=iter(lambda: stream.read(1 << 20), b""),
                headers={"content-type": "application/octet-stream", "content-length": str(file.stat().st_size)},
            )
        return ObjectInfo(path, int(answer.get("size_bytes") or 0), str(answer["checksum"]))

    def has_branch(self, repository: str, name: str) -> bool:
        """Tell whether there is a branch of that name.

        Raises:
            NotFoundError: there is no such repository.
        """
        response = self._send("GET", f"{_repository(repository)}/branches/{quote(name, safe='')}")
        if response.status_code == HTTPStatus.NOT_FOUND:
            self._json("GET", _repository(repository), what=repository)
            return False
        self._check(response, f"{repository}/{name}")
        return True

    def protected(self, repository: str, branch: str) -> bool:
        """Tell whether only merges may change `branch`; it need not exist.

        Raises:
            NotFoundError: there is no such repository.
        """
        response = self._send("GET", f"{_repository(repository)}/settings/branch_protection")
        self._check(response, repository)
        return any(fnmatchcase(branch, str(rule["pattern"])) for rule in response.json())

    def create_branch(self, repository: str, name: str, source: str) -> bool:
        """Make the branch `name` at `source`; return False when there already is one of that name."""
        response = self._send("POST", f"{_repository(repository)}/branches", json={"name": name, "source": source})
        if response.status_code == HTTPStatus.CONFLICT:
            return False
        self._check(response, f"{repository}/{name}")
        return True

    def delete_branch(self, repository: str, name: str) -> None:
        """Delete the branch `name`; one which does not exist is as good."""
        response = self._send("DELETE", f"{_repository(repository)}/branches/{quote(name, safe='')}")
        if response.status_code != HTTPStatus.NOT_FOUND:
            self._check(response, f"{repository}/{name}")

    def commit(self, repository: str, branch: str, message: str, metadata: Mapping[str, str]) -> Commit | None:
        """Commit what was written to `branch`; return None when nothing was.

        Raises:
            GateError, UnreachableError: a hook said no, or could not be asked.
        """
        route = f"{_repository(repository)}/branches/{quote(branch, safe='')}/commits"
        response = self._send("POST", route, json={"message": message, "metadata": dict(metadata)})
        if response.status_code == HTTPStatus.BAD_REQUEST and "no changes" in response.text:
            return None
        if response.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise self._refused(repository, f"the commit on {branch}", response)
        self._check(response, f"{repository}/{branch}")
        return _commit(response.json())

    def merge(
        self, repository: str, source: str, destination: str, message: str, metadata: Mapping[str, str]
    ) -> str | None:
        """Merge `source` into `destination`; return the merge commit's id, or None when there is nothing to merge.

        Raises:
            GateError: the gate said no; it holds the reasons.
            UnreachableError: the gate could not be asked, which also refuses the merge.
        """
        route = f"{_repository(repository)}/refs/{quote(source, safe='')}/merge/{quote(destination, safe='')}"
        response = self._send("POST", route, json={"message": message, "metadata": dict(metadata)})
        if response.status_code == HTTPStatus.BAD_REQUEST and "no changes" in response.text:
            return None
        if response.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise self._refused(repository, f"the merge of {source} into {destination}", response)
        self._check(response, f"{repository}/{source}")
        return str(response.json()["reference"])

    def runs(self, repository: str, commit: str) -> list[Run]:
        """Return the runs of actions which lakeFS keeps for `commit`."""
        items = self._pages(f"{_repository(repository)}/actions/runs", {"commit": commit}, repository)
        return [
            Run(item["run_id"], item["branch"], item["event_type"], item["status"], item["commit_id"]) for item in items
        ]

    def gated(self, repository: str, commit: str) -> bool:
        """Tell whether `commit` is a merge for which the gate's own hook said yes.

        A merge is all that the gate can judge: before a commit, a cherry-pick or a revert its content is not readable.
        """
        return any(
            hook["action"] == GATE_ACTION and hook["status"] == "completed"
            for run in self.runs(repository, commit)
            if run.status == "completed" and run.event == "pre-merge"
            for hook in self._hooks(repository, run.id)
        )

    def _hooks(self, repository: str, run: str) -> Iterator[dict[str, Any]]:
        return self._pages(f"{_repository(repository)}/actions/runs/{quote(run, safe='')}/hooks", {}, repository)

    def _refused(self, repository: str, what: str, response: httpx.Response) -> Exception:
        """Return the error for what a hook refused: the hook's own words are behind the run's id."""
        text = _message(response)
        run = _run_id(text)
        reasons: list[str] = []
        for hook in self._hooks(repository, run) if run else ():
            if hook["status"] == "completed":
                continue
            route = f"{_repository(repository)}/actions/runs/{run}/hooks/{hook['hook_run_id']}/output"
            output = self._send("GET", route)
            reasons += _reasons(output.text)
        if not reasons:
            return UnreachableError(
                f"the gate of {repository} could not be asked, so {what} was refused",
                field="validation",
                value=text,
                hint="see `tidemill logs validation`, then publish again",
            )
        return GateError(f"the gate of {repository} refused {what}", reasons=reasons)

    def _pages(self, route: str, params: Mapping[str, Any], what: str) -> Iterator[dict[str, Any]]:
        after: str | None = None
        while True:
            asked = {**params, "after": after} if after is not None else dict(params)
            answer = self._json("GET", route, what=what, params=asked)
            yield from answer["results"]
            pagination = answer["pagination"]
            if not pagination["has_more"]:
                return
            after = pagination["next_offset"]

    def _json(self, method: str, route: str, *, what: str, **options: Any) -> dict[str, Any]:
        response = self._send(method, route, **options)
        self._check(response, what)
        return cast("dict[str, Any]", response.json())

    def _send(self, method: str, route: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, route, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        return UnreachableError(
            f"lakeFS does not answer ({type(error).__name__})",
            field="lake",
            value=self.settings.endpoint,
            hint="see `tidemill status`; `tidemill start` brings it back",
        )

    def _check(self, response: httpx.Response, what: str) -> None:
        if not response.is_success:
            raise self._error(response, what)

    def _error(self, response: httpx.Response, what: str) -> Exception:
        if response.status_code == HTTPStatus.NOT_FOUND:
            return NotFoundError(f"lakeFS has no such thing ({_message(response)})", field="lake", value=what)
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return PlatformError(f"lakeFS did not permit it ({_message(response)})", field="lake", value=what)
        return PlatformError(f"lakeFS answered {response.status_code} ({_message(response)})", field="lake", value=what)


def _commit(item: Mapping[str, Any]) -> Commit:
    return Commit(
        str(item["id"]),
        tuple(item.get("parents") or ()),
        str(item.get("message") or ""),
        int(item["creation_date"]),
        dict(item.get("metadata") or {}),
    )


def _repository(name: str) -> str:
    return f"/repositories/{quote(name, safe='')}"


def _ref(repository: str, ref: str, rest: str) -> str:
    return f"{_repository(repository)}/refs/{quote(ref, safe='')}/{rest}"


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return response.text.strip()[:300] or response.reason_phrase


def _run_id(message: str) -> str | None:
    """Return the run's id from lakeFS's sentence about a failed hook.

    >>> _run_id("pre-merge hook aborted, run id '76f0lcrqmv7s': 1 error occurred")
    '76f0lcrqmv7s'
    """
    _, _, rest = message.partition("run id '")
    run, quoted, _ = rest.partition("'")
    return run if quoted else None


def _reasons(output: str) -> list[str]:
    """Return the validation service's reasons from a hook's output, which holds its JSON answer among other lines.

    >>> _reasons('HTTP/1.1 422 Unprocessable {"success": false, "reasons": [{"message": "too few rows"}]}')
    ['too few rows']
    """
    start = output.find("{")
    while start >= 0:
        try:
            found, _ = json.JSONDecoder().raw_decode(output[start:])
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(given := cast("dict[str, Any]", found).get("reasons"), list):
            return [str(reason["message"]) for reason in cast("list[dict[str, Any]]", given)]
        start = output.find("{", start + 1)
    return []
