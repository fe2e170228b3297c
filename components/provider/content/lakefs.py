"""Content of lakeFS: repositories, branches, their protection, and action files.

The metadata of a repository names the stack that owns it with everything in it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, cast

from ....runtime.common.errors import ConfigError, PlatformError
from ....runtime.common.http import escaped
from ..base import UNKNOWN, Context, Named, NativeResource, Properties, without
from .base import OWNER, ContentResource, foreign
from .lakefs_action import FOLDER, validate_action
from .rest import Answer, Rest

if TYPE_CHECKING:
    from ..base import Text

# lakeFS caches the metadata of a repository for a few seconds.
_SETTLE_SECONDS = 30.0
_USER = "tidemill"


class LakeInputs(TypedDict):
    """How to reach lakeFS."""

    stack: Text
    url: Text
    key_id_file: Text
    secret_file: Text


class RepositoryInputs(Named, LakeInputs):
    """Inputs of a repository; `namespace` is the place of its objects."""

    namespace: Text
    default_branch: Text


class BranchInputs(Named, LakeInputs):
    """Inputs of a branch; `source` is the ref at which it starts."""

    repository: Text
    source: Text


class BranchProtectionInputs(LakeInputs):
    """Inputs of a branch protection."""

    repository: Text
    branches: Sequence[Text]


class ActionInputs(LakeInputs):
    """Inputs of an action file."""

    repository: Text
    branch: Text
    path: Text
    content: Text


class _LakeResource(ContentResource):
    access: ClassVar[tuple[str, ...]] = ("stack", "url", "keyIdFile", "secretFile")

    def connect(self, properties: Properties) -> Rest:
        key_id, secret = Path(properties["keyIdFile"]), Path(properties["secretFile"])
        return Rest.with_files("lakeFS", f"{properties['url'].rstrip('/')}/api/v1", key_id, secret)

    def _owned(self, inputs: Properties) -> Rest:
        """Return a connection, after a check that the stack owns the repository."""
        rest = self.connect(inputs)
        owner = _owner(rest, inputs["repository"])
        if owner != inputs["stack"]:
            raise foreign("repository", inputs["repository"], owner)
        return rest


class Repository(_LakeResource, inputs=RepositoryInputs):
    """A repository, marked with the stack's name.

    Outputs: `storageNamespace`, the actual place of its objects (not `namespace` after it was recreated, because lakeFS
    refuses a used place), and `created`, seconds since the epoch, which tells it from a later one of the same name.
    """

    token: ClassVar[str] = "tidemill-native:lakefs:Repository"
    outputs: ClassVar[tuple[str, ...]] = ("storageNamespace", "created")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "namespace", "defaultBranch")
    holds_data: ClassVar[bool] = True

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create or adopt the repository."""
        return inputs["name"], self._ensure(context, inputs, again=False)

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Mark the repository again, or recreate it when it is gone."""
        return self._ensure(context, inputs, again=bool(state.get("missing")))

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state, with `missing` when the repository is gone or another one has its name."""
        found = rest.get(_repository(state["name"]), ok=(404,))
        if found.status == 404:
            return {**state, "missing": True}
        created = int(found.body["creation_date"])
        if created != state.get("created") and _owner(rest, state["name"]) != state["stack"]:
            return {**state, "missing": True}
        return without(state, "missing") | {"created": created, "storageNamespace": found.body["storage_namespace"]}

    def remove(self, rest: Rest, state: Properties) -> None:
        """Delete the repository, and wait until lakeFS reports it as deleted."""
        route = _repository(state["name"])
        if rest.get(route, ok=(404,)).status == 404:
            return
        owner = _owner(rest, state["name"])
        if owner != state["stack"]:
            raise foreign("repository", state["name"], owner)
        rest.send("DELETE", route, ok=(404,))
        end = time.monotonic() + _SETTLE_SECONDS
        while rest.get(route, ok=(404,)).status != 404 and time.monotonic() < end:
            time.sleep(0.5)

    def _ensure(self, context: Context, inputs: Properties, *, again: bool) -> Properties:
        rest = self.connect(inputs)
        set_up(rest)
        name = inputs["name"]
        found = rest.get(_repository(name), ok=(404,))
        if found.status == 404:
            found = self._create(context, rest, inputs, again=again)
        else:
            owner = _owner(rest, name)
            # A creation may have been interrupted before the mark; adopt a repository that nobody has used.
            if owner != inputs["stack"] and (owner or not _untouched(rest, found.body, inputs["namespace"])):
                raise foreign("repository", name, owner)
        rest.send("POST", f"{_repository(name)}/metadata", json={"metadata": {OWNER: inputs["stack"]}})
        return {
            **inputs,
            "storageNamespace": found.body["storage_namespace"],
            "created": int(found.body["creation_date"]),
        }

    def _create(self, context: Context, rest: Rest, inputs: Properties, *, again: bool) -> Answer:
        wanted = {"name": inputs["name"], "default_branch": inputs["defaultBranch"]}
        places = (f"{inputs['namespace']}-{number}" for number in range(2, 100)) if again else iter(())
        place = inputs["namespace"]
        end = time.monotonic() + _SETTLE_SECONDS
        while True:
            made = rest.send("POST", "/repositories", json={**wanted, "storage_namespace": place}, ok=(400, 409))
            if made.status == 409 and time.monotonic() < end and not context.cancelled.wait(1.0):
                continue  # one of this name is still being deleted
            if made.status == 400 and "already in use" in made.message and (other := next(places, None)):
                place = other
                continue
            if made.status in (400, 409):
                raise PlatformError(f"lakeFS did not create the repository ({made.message})", field=inputs["name"])
            return made


def set_up(rest: Rest) -> None:
    """Create the only user of a new lakeFS, with the stack's keys; an embedded lakeFS creates it itself."""
    if rest.get("/setup_lakefs").body.get("state") == "not_initialized":
        key = {"access_key_id": rest.user, "secret_access_key": rest.secret}
        # Another repository may be created at the same time.
        rest.send("POST", "/setup_lakefs", json={"username": _USER, "key": key}, ok=(409,))


class Branch(_LakeResource, inputs=BranchInputs):
    """A branch that starts at `source`; its users move it."""

    token: ClassVar[str] = "tidemill-native:lakefs:Branch"
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "repository", "name")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create or adopt the branch."""
        rest = self._owned(inputs)
        body = {"name": inputs["name"], "source": inputs["source"]}
        rest.send("POST", f"{_repository(inputs['repository'])}/branches", json=body, ok=(409,))
        return f"{inputs['repository']}/{inputs['name']}", dict(inputs)

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state, or None when the branch is gone."""
        found = rest.get(_branch(state["repository"], state["name"]), ok=(404,))
        return None if found.status == 404 else state

    def remove(self, rest: Rest, state: Properties) -> None:
        """Delete the branch."""
        rest.send("DELETE", _branch(state["repository"], state["name"]), ok=(404,))


class BranchProtection(_LakeResource, inputs=BranchProtectionInputs):
    """The branches of a repository that only merges may change.

    Other rules of the repository stay. A new rule takes effect after some seconds.
    """

    token: ClassVar[str] = "tidemill-native:lakefs:BranchProtection"
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "repository")
    label: ClassVar[str] = "repository"

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Add the missing rules."""
        self._change(self._owned(inputs), inputs["repository"], add=inputs["branches"])
        return inputs["repository"], dict(inputs)

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Add the missing rules and remove those no longer wanted."""
        unwanted = set(state["branches"]) - set(inputs["branches"])
        self._change(self._owned(inputs), inputs["repository"], add=inputs["branches"], remove=unwanted)
        return dict(inputs)

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state with the branches that are actually protected."""
        found = rest.get(_rules(state["repository"]), ok=(404,))
        if found.status == 404:
            return None
        patterns = {rule["pattern"] for rule in found.body}
        return {**state, "branches": [branch for branch in state["branches"] if branch in patterns]}

    def remove(self, rest: Rest, state: Properties) -> None:
        """Remove the stack's rules."""
        self._change(rest, state["repository"], remove=state["branches"])

    def _change(self, rest: Rest, repository: str, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        for _ in range(5):
            found = rest.get(_rules(repository), ok=(404,))
            if found.status == 404:
                if add:
                    raise PlatformError("no such repository", field=repository)
                return
            rules = [rule for rule in cast("list[dict[str, Any]]", found.body) if rule["pattern"] not in set(remove)]
            known = {rule["pattern"] for rule in rules}
            rules += [{"pattern": branch} for branch in add if branch not in known]
            if rules == found.body:
                return
            headers = {"If-Match": found.etag} if found.etag else {}
            if rest.send("PUT", _rules(repository), json=rules, headers=headers, ok=(412,)).status != 412:
                return
        raise PlatformError("the branch protection keeps changing", field=repository, hint="try again")


class Action(_LakeResource, inputs=ActionInputs):
    """An action file, committed on a branch.

    On a protected branch, the file is merged like everything else, so the hooks of the *new* file run: the services
    that they call must be up and accept it. On an unprotected branch, it is committed directly; so create a
    repository's first action before its protection.
    """

    token: ClassVar[str] = "tidemill-native:lakefs:Action"
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "repository", "branch", "path")
    label: ClassVar[str] = "path"

    def check(self, inputs: Properties) -> Properties:
        """Check that the file does not block its branch."""
        checked = super().check(inputs)
        path, content = checked["path"], checked["content"]
        if path is not UNKNOWN and not path.startswith(FOLDER):
            raise ConfigError("is outside the actions folder", field="path", value=path, hint=f"put it below {FOLDER}")
        if content is not UNKNOWN:
            validate_action(content, "content" if path is UNKNOWN else path)
        return checked

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Commit the file, unless the branch has it with this content."""
        rest = self._owned(inputs)
        if _committed(rest, inputs) != inputs["content"]:
            _commit(rest, inputs, inputs["content"].encode())
        return "/".join((inputs["repository"], inputs["branch"], inputs["path"])), dict(inputs)

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state with the committed content."""
        content = _committed(rest, state)
        return None if content is None else {**state, "content": content}

    def remove(self, rest: Rest, state: Properties) -> None:
        """Commit the file's removal, which no hook can refuse: the hooks of the merged state run."""
        if _committed(rest, state) is not None:
            _commit(rest, state, None)


def _committed(rest: Rest, action: Properties) -> str | None:
    """Return the file at the branch's newest commit, ignoring staged changes."""
    branch = rest.get(_branch(action["repository"], action["branch"]), ok=(404,))
    if branch.status == 404:
        return None
    route = f"{_repository(action['repository'])}/refs/{branch.body['commit_id']}/objects"
    found = rest.get(route, ok=(404,), path=action["path"])
    return None if found.status == 404 else found.text


def _commit(rest: Rest, action: Properties, content: bytes | None) -> None:
    repository, branch = action["repository"], action["branch"]
    staged = rest.get(f"{_branch(repository, branch)}/diff", amount="10").body["results"]
    if others := [item["path"] for item in staged if item["path"] != action["path"]]:
        raise PlatformError(
            "the branch has uncommitted changes, which lakeFS would commit together with the action file",
            field=f"{repository}/{branch}",
            value=others[0],
            hint="commit or reset them",
        )
    rules = rest.get(_rules(repository)).body
    protected = any(fnmatch.fnmatchcase(branch, rule["pattern"]) for rule in rules)
    # A removed rule stays in effect for some seconds.
    if protected or not _commit_on(rest, action, branch, content):
        _commit_by_merge(rest, action, content)


def _commit_by_merge(rest: Rest, action: Properties, content: bytes | None) -> None:
    repository, branch = action["repository"], action["branch"]
    # lakeFS caches a branch's action files for some seconds, so other content needs another branch.
    digest = hashlib.sha256(f"{branch}/{action['path']}\n".encode() + (content or b""))
    temporary = f"tidemill-action-{digest.hexdigest()[:12]}"
    rest.send("DELETE", _branch(repository, temporary), ok=(404,))
    rest.send("POST", f"{_repository(repository)}/branches", json={"name": temporary, "source": branch})
    try:
        if not _commit_on(rest, action, temporary, content):
            raise PlatformError("is also protected: nothing can be committed", field=f"{repository}/{temporary}")
        route = f"{_repository(repository)}/refs/{temporary}/merge/{escaped(branch)}"
        _require_accepted(rest.send("POST", route, json=_message(action, content), ok=(412,)), action)
    finally:
        rest.send("DELETE", _branch(repository, temporary), ok=(404,))


def _commit_on(rest: Rest, action: Properties, branch: str, content: bytes | None) -> bool:
    """Write or delete the file and commit; return False, without a change, if the branch is protected."""
    route = _branch(action["repository"], branch)
    params = {"path": action["path"]}
    method = "DELETE" if content is None else "POST"
    try:
        if rest.send(method, f"{route}/objects", params=params, content=content, ok=(403,)).status == 403:
            return False
        _require_accepted(rest.send("POST", f"{route}/commits", json=_message(action, content), ok=(412,)), action)
    except PlatformError:
        # A staged change would block every merge into the branch.
        rest.send("PUT", route, json={"type": "object", "path": action["path"]}, ok=(403, 404, 500))
        raise
    return True


def _message(action: Properties, content: bytes | None) -> dict[str, Any]:
    verb = "Remove" if content is None else "Write"
    return {"message": f"{verb} {action['path']}", "metadata": {OWNER: action["stack"]}}


def _require_accepted(answer: Answer, action: Properties) -> None:
    if answer.status == 412:
        raise PlatformError(
            f"a hook refused the action file or did not answer ({answer.message})",
            field=action["path"],
            hint="see `tidemill logs validation`",
        )


def _untouched(rest: Rest, repository: dict[str, Any], namespace: str) -> bool:
    """Return whether `repository` is new, in our place: one commit, one branch, no objects."""
    name, branch = str(repository["id"]), str(repository["default_branch"])
    if str(repository["storage_namespace"]).rstrip("/") != namespace.rstrip("/"):
        return False
    commits = rest.get(f"{_repository(name)}/refs/{escaped(branch)}/commits", amount="2").body["results"]
    objects = rest.get(f"{_repository(name)}/refs/{escaped(branch)}/objects/ls", amount="1").body["results"]
    branches = rest.get(f"{_repository(name)}/branches", amount="2").body["results"]
    return len(commits) == 1 and not objects and len(branches) == 1


def _owner(rest: Rest, repository: str) -> str | None:
    """Return the stack that owns `repository`; None if the repository is unmarked or gone."""
    found = rest.get(f"{_repository(repository)}/metadata", ok=(404,))
    if found.status == 404 or not isinstance(found.body, dict):
        return None
    return cast("dict[str, str]", found.body).get(OWNER)


def _repository(name: str) -> str:
    return f"/repositories/{escaped(name)}"


def _branch(repository: str, branch: str) -> str:
    return f"{_repository(repository)}/branches/{escaped(branch)}"


def _rules(repository: str) -> str:
    return f"{_repository(repository)}/settings/branch_protection"


RESOURCES: list[NativeResource] = [Repository(), Branch(), BranchProtection(), Action()]
