"""A small client of lakeFS's REST API (https://docs.lakefs.io/latest/reference/api/).

It reads the server's address and the key only from its settings, never from `~/.lakectl.yaml` or the environment.
Most code should use the functions of `tidemill.runtime.data` instead.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpx

from ..common.errors import GateError, NotFoundError, PlatformError, UnreachableError
from ..common.http import escaped, json_body, open_client, server_message, unreachable
from ..common.secrets import read_secret
from ..common.settings import LakeSettings
from ..common.verdicts import VERDICT_BRANCH, VERDICT_LIMIT, Verdict, verdict_file, verify

_PAGE = 1000
_REMEMBERED = 512
# A merge waits for its hooks, which can take minutes on large data.
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
    """An object at a ref.

    Attributes:
        path: its path.
        size: bytes, as its writer declared them.
        checksum: as its writer declared it; for an upload the MD5.
        address: where the store keeps its bytes; "" if unknown. Two objects with one address are the same.
    """

    path: str
    size: int
    checksum: str
    address: str = ""


class Lake:
    """A connection to a lakeFS server; safe to share between threads. Close it with `close` or `with`.

    Args:
        settings: the server's address and the files with its key.

    Raises:
        NotFoundError, ConfigError: a key file is missing or empty.
    """

    def __init__(self, settings: LakeSettings) -> None:
        self.settings = settings
        endpoint = settings.endpoint.rstrip("/")
        auth = (read_secret(settings.key_id_file), read_secret(settings.secret_file))
        self._http = open_client(f"{endpoint}/api/v1", auth=auth, timeout=_TIMEOUT)
        self._accepted: dict[tuple[str, str], Verdict] = {}

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def head(self, repository: str, ref: str) -> Commit:
        """Return the current commit of `ref`: a branch, tag, commit id or prefix of one.

        Raises:
            NotFoundError: the repository or ref does not exist.
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
        """Yield the objects at `ref` whose path starts with `prefix`, ordered by path."""
        params: dict[str, Any] = {"prefix": prefix, "amount": _PAGE, "user_metadata": False}
        for item in self._pages(_ref(repository, ref, "objects/ls"), params, f"{repository}/{ref}"):
            if item.get("path_type") == "object":
                size, address = int(item.get("size_bytes") or 0), str(item.get("physical_address") or "")
                yield ObjectInfo(str(item["path"]), size, str(item["checksum"]), address)

    def changed(self, repository: str, left: str, right: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the difference from `left` to `right` as pairs (`added`, `changed` or `removed`, path)."""
        params: dict[str, Any] = {"prefix": prefix, "amount": _PAGE, "type": "two_dot"}
        route = f"{_ref(repository, left, 'diff')}/{escaped(right)}"
        for item in self._pages(route, params, f"{repository}/{left}..{right}"):
            yield str(item["type"]), str(item["path"])

    def staged(self, repository: str, branch: str) -> Iterator[str]:
        """Yield the paths with uncommitted changes on `branch`, deletions included."""
        route = f"{_branch(repository, branch)}/diff"
        for item in self._pages(route, {"amount": _PAGE}, f"{repository}/{branch}"):
            yield str(item["path"])

    def download(self, repository: str, ref: str, path: str, into: BinaryIO) -> None:
        """Write the object's bytes to `into`, in constant memory."""
        with self._object(repository, ref, path) as blocks:
            into.writelines(blocks)

    def upload(self, repository: str, branch: str, path: str, file: Path) -> ObjectInfo:
        """Upload `file` to `path` on `branch`, in constant memory, without a commit."""
        route = f"{_branch(repository, branch)}/objects"
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

    def copy(self, repository: str, branch: str, path: str, source: str) -> None:
        """Copy the object `path` at the ref `source` to the same path on `branch`, without a commit."""
        self._json(
            "POST",
            f"{_branch(repository, branch)}/objects/copy",
            what=f"{repository}/{source}/{path}",
            params={"dest_path": path},
            json={"src_path": path, "src_ref": source},
        )

    def delete(self, repository: str, branch: str, path: str) -> None:
        """Delete the object `path` on `branch`, if it exists, without a commit."""
        response = self._send("DELETE", f"{_branch(repository, branch)}/objects", params={"path": path})
        if response.status_code != HTTPStatus.NOT_FOUND:
            self._check(response, f"{repository}/{branch}/{path}")

    def default_branch(self, repository: str) -> str:
        """Return the default branch, which nobody can delete.

        Raises:
            NotFoundError: the repository does not exist.
        """
        return str(self._json("GET", _repository(repository), what=repository)["default_branch"])

    def has_branch(self, repository: str, name: str) -> bool:
        """Tell whether the branch exists.

        Raises:
            NotFoundError: the repository does not exist.
        """
        response = self._send("GET", _branch(repository, name))
        if response.status_code == HTTPStatus.NOT_FOUND:
            self._json("GET", _repository(repository), what=repository)
            return False
        self._check(response, f"{repository}/{name}")
        return True

    def protected(self, repository: str, branch: str) -> bool:
        """Tell whether `branch`, which need not exist, can be changed only by merges.

        Raises:
            NotFoundError: the repository does not exist.
        """
        response = self._send("GET", f"{_repository(repository)}/settings/branch_protection")
        self._check(response, repository)
        return any(fnmatchcase(branch, str(rule["pattern"])) for rule in response.json())

    def create_branch(self, repository: str, name: str, source: str) -> bool:
        """Create the branch `name` from `source`; return False if it already exists."""
        response = self._send("POST", f"{_repository(repository)}/branches", json={"name": name, "source": source})
        if response.status_code == HTTPStatus.CONFLICT:
            return False
        self._check(response, f"{repository}/{name}")
        return True

    def delete_branch(self, repository: str, name: str) -> None:
        """Delete the branch `name` if it exists."""
        response = self._send("DELETE", _branch(repository, name))
        if response.status_code != HTTPStatus.NOT_FOUND:
            self._check(response, f"{repository}/{name}")

    def commit(self, repository: str, branch: str, message: str, metadata: Mapping[str, str]) -> Commit | None:
        """Commit the uncommitted changes of `branch`; return None if there are none.

        Raises:
            GateError: a hook refused the commit.
            UnreachableError: a hook could not be called, which also refuses the commit.
        """
        route = f"{_branch(repository, branch)}/commits"
        made = self._change(repository, route, message, metadata, what=f"the commit on {branch}")
        return _commit(made) if made else None

    def merge(
        self, repository: str, source: str, destination: str, message: str, metadata: Mapping[str, str]
    ) -> str | None:
        """Merge `source` into `destination`; return the merge commit's id, or None if there is nothing to merge.

        Raises:
            GateError: the gate refused the merge; the error has the reasons.
            UnreachableError: the gate could not be called, which also refuses the merge.
        """
        route = _ref(repository, source, f"merge/{escaped(destination)}")
        made = self._change(repository, route, message, metadata, what=f"the merge of {source} into {destination}")
        return str(made["reference"]) if made else None

    def _change(
        self, repository: str, route: str, message: str, metadata: Mapping[str, str], *, what: str
    ) -> dict[str, Any] | None:
        """Commit or merge; return lakeFS's answer, or None if there is nothing to change."""
        response = self._send("POST", route, json={"message": message, "metadata": dict(metadata)})
        if response.status_code == HTTPStatus.BAD_REQUEST and "no changes" in response.text:
            return None
        if response.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise self._refusal(repository, what, response)
        self._check(response, f"{repository}, {what}")
        return cast("dict[str, Any]", response.json())

    def verdict(self, repository: str, commit: str) -> Verdict | None:
        """Return the gate's verdict on `commit`; None without one, or if no trusted key signed it.

        Raises:
            ConfigError: a key in `verdict_keys` of the settings is invalid.
        """
        known = self._accepted.get((repository, commit))
        if known is not None:
            return known
        envelope = self._verdict_envelope(repository, commit)
        verdict = None if envelope is None else verify(envelope, self.settings.verdict_keys)
        if verdict is None or (verdict.repository, verdict.commit) != (repository, commit):
            return None
        if verdict.success:  # an accepted verdict never changes
            if len(self._accepted) >= _REMEMBERED:
                self._accepted.clear()
            self._accepted[repository, commit] = verdict
        return verdict

    def accepted(self, repository: str, commit: str) -> bool:
        """Tell whether the gate accepted `commit`."""
        verdict = self.verdict(repository, commit)
        return verdict is not None and verdict.success

    def _verdict_envelope(self, repository: str, commit: str) -> bytes | None:
        """Return the commit's file on the branch of verdicts; None if there is none, or if it is too large."""
        envelope = b""
        try:
            with self._object(repository, VERDICT_BRANCH, verdict_file(commit)) as blocks:
                for block in blocks:
                    envelope += block
                    if len(envelope) > VERDICT_LIMIT:
                        return None
        except NotFoundError:
            return None
        return envelope

    @contextmanager
    def _object(self, repository: str, ref: str, path: str) -> Generator[Iterator[bytes]]:
        """Yield the object's bytes in blocks."""
        try:
            with self._http.stream("GET", _ref(repository, ref, "objects"), params={"path": path}) as response:
                if response.is_error:
                    response.read()
                    raise self._error(response, f"{repository}/{ref}/{path}")
                yield response.iter_bytes(1 << 20)
        except httpx.TransportError as error:
            raise self._no_answer(error) from None

    def _hooks(self, repository: str, run: str) -> Iterator[dict[str, Any]]:
        return self._pages(f"{_repository(repository)}/actions/runs/{escaped(run)}/hooks", {}, repository)

    def _refusal(self, repository: str, what: str, response: httpx.Response) -> Exception:
        """Return the error for an operation that a hook refused, with the reasons from the hook's output."""
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
                f"the gate of {repository} could not be called, so {what} was refused",
                field="validation",
                value=text,
                hint="check `tidemill logs validation`, then publish again",
            )
        return GateError(f"the gate of {repository} refused {what}", reasons=reasons)

    def _pages(self, route: str, params: Mapping[str, Any], what: str) -> Iterator[dict[str, Any]]:
        after: str | None = None
        while True:
            page = {**params, "after": after} if after is not None else dict(params)
            answer = self._json("GET", route, what=what, params=page)
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
            raise self._no_answer(error) from None

    def _no_answer(self, error: httpx.TransportError) -> UnreachableError:
        return unreachable("lake", self.settings.endpoint, error, server="lakeFS")

    def _check(self, response: httpx.Response, what: str) -> None:
        if not response.is_success:
            raise self._error(response, what)

    def _error(self, response: httpx.Response, what: str) -> Exception:
        message = _message(response)
        if response.status_code == HTTPStatus.NOT_FOUND:
            return NotFoundError(f"not found in lakeFS ({message})", field="lake", value=what)
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return PlatformError(f"lakeFS denied access ({message})", field="lake", value=what)
        return PlatformError(f"lakeFS answered {response.status_code} ({message})", field="lake", value=what)


def _commit(item: Mapping[str, Any]) -> Commit:
    return Commit(
        str(item["id"]),
        tuple(item.get("parents") or ()),
        str(item.get("message") or ""),
        int(item["creation_date"]),
        dict(item.get("metadata") or {}),
    )


def _repository(name: str) -> str:
    return f"/repositories/{escaped(name)}"


def _branch(repository: str, name: str) -> str:
    return f"{_repository(repository)}/branches/{escaped(name)}"


def _ref(repository: str, ref: str, rest: str) -> str:
    return f"{_repository(repository)}/refs/{escaped(ref)}/{rest}"


def _message(response: httpx.Response) -> str:
    return server_message(json_body(response), response.text) or response.reason_phrase


def _run_id(message: str) -> str | None:
    """Return the run's id from lakeFS's message about a failed hook.

    >>> _run_id("pre-merge hook aborted, run id '76f0lcrqmv7s': 1 error occurred")
    '76f0lcrqmv7s'
    """
    _, _, rest = message.partition("run id '")
    run, quoted, _ = rest.partition("'")
    return run if quoted else None


def _reasons(output: str) -> list[str]:
    """Return the validation service's reasons from a hook's output, which contains its JSON answer.

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
