"""Content of MLflow: experiments, registered models, users, and their permissions.

A tag on experiments and models names the stack that owns them. Users have no tags: a user is the stack's own if the
stack's password works.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, cast

from ....runtime.common.errors import ConfigError, PlatformError
from ....runtime.common.secrets import read_secret
from ..base import UNKNOWN, Context, Diff, Named, NativeResource, Properties, without
from .base import OWNER, ContentResource, foreign
from .rest import Rest

if TYPE_CHECKING:
    from ..base import Text

_KINDS = ("experiment", "registered_model")
_PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "DENY")

# Version 3.0 of the API replaces the older grants by kind.
_API = "/api/2.0/mlflow"
_GRANTS = "/api/3.0/mlflow/users/permissions"
_ROLES = "/api/3.0/mlflow/roles/permissions"


class RegistryInputs(TypedDict):
    """How to reach MLflow, as the administrator."""

    stack: Text
    url: Text
    admin: Text
    password_file: Text


class NamedInputs(Named, RegistryInputs):
    """Inputs of an experiment or a registered model."""


class UserInputs(RegistryInputs):
    """Inputs of a user."""

    username: Text
    user_password_file: Text


class PermissionInputs(RegistryInputs):
    """Inputs of a permission: `kind` is `experiment` or `registered_model`, `target` its name."""

    username: Text
    kind: Text
    target: Text
    permission: Text


class _RegistryResource(ContentResource):
    access: ClassVar[tuple[str, ...]] = ("stack", "url", "admin", "passwordFile")

    def connect(self, properties: Properties) -> Rest:
        return Rest.with_files("MLflow", properties["url"], properties["admin"], Path(properties["passwordFile"]))


class Experiment(_RegistryResource, inputs=NamedInputs):
    """An experiment.

    A deleted experiment keeps its name, runs and id in MLflow, so `create` restores it. Outputs: `experimentId`.
    """

    token: ClassVar[str] = "tidemill-native:mlflow:Experiment"
    outputs: ClassVar[tuple[str, ...]] = ("experimentId",)
    holds_data: ClassVar[bool] = True

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create, adopt or restore the experiment."""
        rest, name = self.connect(inputs), inputs["name"]
        found = _experiment(rest, name)
        if found is None:
            body = {"name": name, "tags": [{"key": OWNER, "value": inputs["stack"]}]}
            identity = rest.send("POST", f"{_API}/experiments/create", json=body).body["experiment_id"]
        else:
            identity = found["experiment_id"]
            if (owner := _owner(found)) != inputs["stack"]:
                raise foreign("experiment", name, owner)
            if found["lifecycle_stage"] != "active":
                rest.send("POST", f"{_API}/experiments/restore", json={"experiment_id": identity})
                context.warn(f"the experiment {name} was deleted; it is restored with its runs")
        return name, {**inputs, "experimentId": identity}

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state, with `missing` when the experiment is deleted or another one has its name."""
        found = _experiment(rest, state["name"])
        if found is None or found["lifecycle_stage"] != "active":
            return {**state, "missing": True}
        if found["experiment_id"] != state.get("experimentId") and _owner(found) != state["stack"]:
            return {**state, "missing": True}
        return without(state, "missing") | {"experimentId": found["experiment_id"]}

    def remove(self, rest: Rest, state: Properties) -> None:
        """Delete the experiment; its runs stay in MLflow's database."""
        found = _experiment(rest, state["name"])
        if found is None or found["lifecycle_stage"] != "active":
            return
        if (owner := _owner(found)) != state["stack"]:
            raise foreign("experiment", state["name"], owner)
        rest.send("POST", f"{_API}/experiments/delete", json={"experiment_id": found["experiment_id"]})


class RegisteredModel(_RegistryResource, inputs=NamedInputs):
    """A registered model.

    Outputs: `created`, milliseconds since the epoch, which tells it from a later one of the same name.
    """

    token: ClassVar[str] = "tidemill-native:mlflow:RegisteredModel"
    outputs: ClassVar[tuple[str, ...]] = ("created",)
    holds_data: ClassVar[bool] = True

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create or adopt the model."""
        rest, name = self.connect(inputs), inputs["name"]
        found = _model(rest, name)
        if found is None:
            body = {"name": name, "tags": [{"key": OWNER, "value": inputs["stack"]}]}
            found = rest.send("POST", f"{_API}/registered-models/create", json=body).body["registered_model"]
        elif (owner := _owner(found)) != inputs["stack"]:
            raise foreign("registered model", name, owner)
        return name, {**inputs, "created": int(found["creation_timestamp"])}

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state, with `missing` when the model is gone or another one has its name."""
        found = _model(rest, state["name"])
        if found is None:
            return {**state, "missing": True}
        created = int(found["creation_timestamp"])
        if created != state.get("created") and _owner(found) != state["stack"]:
            return {**state, "missing": True}
        return without(state, "missing") | {"created": created}

    def remove(self, rest: Rest, state: Properties) -> None:
        """Delete the model with its versions."""
        found = _model(rest, state["name"])
        if found is None:
            return
        if (owner := _owner(found)) != state["stack"]:
            raise foreign("registered model", state["name"], owner)
        rest.send("DELETE", f"{_API}/registered-models/delete", json={"name": state["name"]}, ok=(404,))


class User(_RegistryResource, inputs=UserInputs):
    """A user without permissions, with the password of a file.

    Outputs: `opens`, whether the file's password works; if not, the next update sets it.
    """

    token: ClassVar[str] = "tidemill-native:mlflow:User"
    outputs: ClassVar[tuple[str, ...]] = ("opens",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "username")
    label: ClassVar[str] = "username"

    def check(self, inputs: Properties) -> Properties:
        """Refuse the administrator, whose password MLflow manages."""
        checked = super().check(inputs)
        if checked["username"] is not UNKNOWN and checked["username"] == checked["admin"]:
            raise ConfigError("is the administrator's name", field="username", value=checked["username"])
        return checked

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a password that does not work is a change."""
        found = super().diff(context, state, inputs)
        return found if state.get("opens", True) else found.adding("opens")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create the user, or adopt one with the stack's password."""
        rest, name = self.connect(inputs), inputs["username"]
        if _user(rest, name) is not None:
            if not _opens(rest, inputs):
                raise foreign("user", name, None)
        else:
            self._set(rest, inputs, new=True)
        return name, {**inputs, "opens": True}

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Set the password if the current one does not work."""
        rest = self.connect(inputs)
        new = _user(rest, inputs["username"]) is None
        if new or not _opens(rest, inputs):
            self._set(rest, inputs, new=new)
        return {**inputs, "opens": True}

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state with whether the password works, or None if there is no such user."""
        if _user(rest, state["username"]) is None:
            return None
        return {**state, "opens": _opens(rest, state)}

    def remove(self, rest: Rest, state: Properties) -> None:
        """Delete the user with its permissions."""
        rest.send("DELETE", f"{_API}/users/delete", json={"username": state["username"]}, ok=(404,))

    def _set(self, rest: Rest, inputs: Properties, *, new: bool) -> None:
        body = {"username": inputs["username"], "password": read_secret(Path(inputs["userPasswordFile"]))}
        method, route = ("POST", "create") if new else ("PATCH", "update-password")
        done = rest.send(method, f"{_API}/users/{route}", json=body, ok=(400,))
        if done.status == 400:
            raise ConfigError(f"MLflow does not accept the password ({done.message})", field=inputs["username"])


class Permission(_RegistryResource, inputs=PermissionInputs):
    """The permission of a user on an experiment or a registered model.

    Outputs: `targetId`, MLflow's id of the target.
    """

    token: ClassVar[str] = "tidemill-native:mlflow:Permission"
    outputs: ClassVar[tuple[str, ...]] = ("targetId",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "username", "kind", "target")
    label: ClassVar[str] = "target"

    def check(self, inputs: Properties) -> Properties:
        """Refuse a kind or permission that MLflow does not have."""
        checked = super().check(inputs)
        for key, known in (("kind", _KINDS), ("permission", _PERMISSIONS)):
            if checked[key] is not UNKNOWN and checked[key] not in known:
                raise ConfigError(
                    f"is not a valid {key}", field=key, value=checked[key], hint=f"use one of {', '.join(known)}"
                )
        return checked

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Grant the permission, replacing the one granted before."""
        rest = self.connect(inputs)
        target = _target(rest, inputs)
        if target is None:
            raise PlatformError(f"no such {inputs['kind'].replace('_', ' ')}", field=inputs["target"])
        granted = _granted(rest, inputs, target)
        if granted is None:
            rest.send("POST", f"{_GRANTS}/grant", json={**_grant(inputs, target), "permission": inputs["permission"]})
        elif granted["permission"] != inputs["permission"]:
            _regrant(rest, granted, inputs["permission"])
        identity = ":".join((inputs["username"], inputs["kind"], inputs["target"]))
        return identity, {**inputs, "targetId": target}

    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state with the permission that is actually granted, or None if there is none."""
        target = _target(rest, state)
        if target is None:
            return None
        granted = _granted(rest, state, target)
        return None if granted is None else {**state, "permission": granted["permission"], "targetId": target}

    def remove(self, rest: Rest, state: Properties) -> None:
        """Revoke the permission."""
        target = _target(rest, state)
        if target is not None:
            rest.send("POST", f"{_GRANTS}/revoke", json=_grant(state, target), ok=(404,))


def _grant(properties: Properties, target: str) -> dict[str, str]:
    return {"username": properties["username"], "resource_type": properties["kind"], "resource_id": target}


def _granted(rest: Rest, properties: Properties, target: str) -> dict[str, Any] | None:
    """Return the grant of the user on `target`, or None."""
    found = rest.get(f"{_GRANTS}/list", ok=(404,), username=properties["username"])
    if found.status == 404:
        return None
    wanted = (properties["kind"], target)
    for grant in cast("list[dict[str, Any]]", found.body["permissions"]):
        # MLflow keeps a user's own grants in one role; grants of other roles are not the stack's.
        own = str(grant.get("role_name", "")).startswith("__user_")
        if own and (grant["resource_type"], grant["resource_pattern"]) == wanted:
            return grant
    return None


def _regrant(rest: Rest, granted: dict[str, Any], permission: str) -> None:
    """Change a grant in place, so that the user has it at all times."""
    found = rest.get(f"{_ROLES}/list", role_id=str(granted["role_id"]))
    same = ("resource_type", "resource_pattern")
    identity = next(
        item["id"] for item in found.body["role_permissions"] if all(item[key] == granted[key] for key in same)
    )
    rest.send("PATCH", f"{_ROLES}/update", json={"role_permission_id": identity, "permission": permission})


def _target(rest: Rest, properties: Properties) -> str | None:
    if properties["kind"] == "registered_model":
        return None if _model(rest, properties["target"]) is None else properties["target"]
    found = _experiment(rest, properties["target"])
    return None if found is None else str(found["experiment_id"])


def _experiment(rest: Rest, name: str) -> dict[str, Any] | None:
    found = rest.get(f"{_API}/experiments/get-by-name", ok=(404,), experiment_name=name)
    return None if found.status == 404 else cast("dict[str, Any]", found.body["experiment"])


def _model(rest: Rest, name: str) -> dict[str, Any] | None:
    found = rest.get(f"{_API}/registered-models/get", ok=(404,), name=name)
    return None if found.status == 404 else cast("dict[str, Any]", found.body["registered_model"])


def _user(rest: Rest, name: str) -> dict[str, Any] | None:
    found = rest.get(f"{_API}/users/get", ok=(404,), username=name)
    return None if found.status == 404 else cast("dict[str, Any]", found.body["user"])


def _opens(rest: Rest, properties: Properties) -> bool:
    """Return whether the password of the file works."""
    password = read_secret(Path(properties["userPasswordFile"]))
    user = Rest(rest.server, rest.url, properties["username"], password)
    return user.get(f"{_API}/users/current", ok=(401,)).status != 401


def _owner(tagged: dict[str, Any]) -> str | None:
    """Return the stack that owns an experiment or a model."""
    return next((tag["value"] for tag in tagged.get("tags", ()) if tag["key"] == OWNER), None)


RESOURCES: list[NativeResource] = [Experiment(), RegisteredModel(), User(), Permission()]
