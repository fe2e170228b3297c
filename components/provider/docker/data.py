"""Volume, Scratch and Files, which containers mount, and Bounds, which they keep to."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, cast

from ....runtime.common.errors import ConfigError, TidemillError
from ..base import UNKNOWN, Context, Diff, NativeResource, Properties
from ..local.files import claim, root_of, secret_value
from ..local.placeholders import Placeholders, check_placeholders
from ..local.process import known
from .daemon import STACK, connect, put, require_own, talking

__all__ = ["Bounds", "Files", "Scratch", "Volume"]

_DIGEST = "tidemill.files"


def _labels(inputs: Properties) -> dict[str, str]:
    given = inputs.get("labels")
    return {**(cast("dict[str, str]", given) if isinstance(given, dict) else {}), STACK: str(inputs["stack"])}


def _inspect(inputs: Properties, volume: str) -> dict[str, Any] | None:
    """Return what the daemon says of `volume`, or None where there is none."""
    import docker.errors

    client = connect(inputs.get("host"))
    with talking(volume):
        try:
            return client.api.inspect_volume(volume)
        except docker.errors.NotFound:
            return None


def _make(inputs: Properties, volume: str, files: dict[str, tuple[bytes, int]], **labels: str) -> None:
    """Make `volume`, owned by the wanted user, with `files` in it; take it back where that fails."""
    client = connect(inputs.get("host"))
    with talking(volume):
        client.api.create_volume(name=volume, labels={**_labels(inputs), **labels})
        try:
            put(client, volume, files, int(inputs["owner"]))
        except BaseException:
            client.api.remove_volume(volume)
            raise


def _remove(state: Properties, volume: str) -> None:
    import docker.errors

    found = _inspect(state, volume)
    if found is None:
        return
    require_own("volume", volume, found.get("Labels"), str(state["stack"]))
    client = connect(state.get("host"))
    with talking(volume):
        try:
            client.api.remove_volume(volume)
        except docker.errors.NotFound:
            return


class Volume(NativeResource):
    """A volume which holds data and belongs to the user of the containers that mount it.

    State beside the inputs: `volume`, its name in Docker. When it was made is not kept: what Docker says of that
    changes with what is in it.
    """

    token: ClassVar[str] = "tidemill-native:docker:Volume"
    required: ClassVar[tuple[str, ...]] = ("stack", "name", "owner")
    optional: ClassVar[tuple[str, ...]] = ("host", "labels")
    outputs: ClassVar[tuple[str, ...]] = ("volume",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "owner")
    holds_data: ClassVar[bool] = True

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Make it, or adopt the one which is there."""
        del context
        volume = f"tidemill-{inputs['stack']}-{inputs['name']}"
        found = _inspect(inputs, volume)
        if found is None:
            _make(inputs, volume, {})
        else:
            require_own("volume", volume, found.get("Labels"), str(inputs["stack"]))
        return volume, {**inputs, "volume": volume}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell whether it is there still."""
        del context
        found = _inspect(state, str(state["volume"]))
        kept = {key: value for key, value in state.items() if key != "missing"}
        if found is not None and (found.get("Labels") or {}).get(STACK) == state["stack"]:
            return kept
        return {**kept, "missing": True} if self.holds_data else None

    def delete(self, context: Context, state: Properties) -> None:
        """Delete it and all in it."""
        del context
        _remove(state, str(state["volume"]))


class Scratch(Volume):
    """A volume whose contents may be lost at any time."""

    token: ClassVar[str] = "tidemill-native:docker:Scratch"
    holds_data: ClassVar[bool] = False


class Files(NativeResource):
    """A volume with the config files and secrets of one container, readable by its user alone.

    Inputs beside the names: `files`, path -> text in which `@{secret:NAME}` and `@{bcrypt:NAME}` may stand, and
    `secrets`, names of secrets each of which becomes the file `secrets/NAME`. Values come from the stack's root on this
    machine, so that none passes through the program or the state. A volume is never changed: other contents are
    another volume, whose name ends with their digest.
    """

    token: ClassVar[str] = "tidemill-native:docker:Files"
    required: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "owner")
    optional: ClassVar[tuple[str, ...]] = ("host", "labels", "files", "secrets")
    outputs: ClassVar[tuple[str, ...]] = ("volume", "digest")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "owner", "files", "secrets", "digest")
    delete_before_replace: ClassVar[bool] = False

    def check(self, inputs: Properties) -> Properties:
        """Check paths and placeholders."""
        inputs = super().check(inputs)
        for path, text in _texts(inputs).items():
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or not parts.parts or parts.parts[0] == "secrets":
                raise ConfigError("must be a relative path which is not below `secrets`", field="files", value=path)
            if text is not UNKNOWN:
                check_placeholders(str(text), f"files.{path}", secrets=True)
        return inputs

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """It differs too when a secret in it is another one by now."""
        found = super().diff(context, state, inputs)
        if found.changes or not known(inputs):
            return found
        try:
            same = state.get("digest") == _digest(inputs)
        except TidemillError:
            same = False
        return found if same else Diff(("digest",), ("digest",))

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Make the volume, or take the one which has the same contents already."""
        claim(context, inputs)
        digest = _digest(inputs)
        volume = f"tidemill-{inputs['stack']}-{inputs['name']}-files-{digest[:12]}"
        found = _inspect(inputs, volume)
        if found is not None:
            require_own("volume", volume, found.get("Labels"), str(inputs["stack"]))
        if found is None or (found.get("Labels") or {}).get(_DIGEST) != digest:
            _make(inputs, volume, _contents(inputs), **{_DIGEST: digest})
        return volume, {**inputs, "volume": volume, "digest": digest}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell whether it is there still; it holds nothing which could not be made again."""
        del context
        return state if _inspect(state, str(state["volume"])) is not None else None

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Take note of other labels."""
        del context
        return {**inputs, "volume": state["volume"], "digest": state["digest"]}

    def delete(self, context: Context, state: Properties) -> None:
        """Delete it."""
        del context
        _remove(state, str(state["volume"]))


class Bounds(NativeResource):
    """How many processes a container may have, which the vendor's provider cannot say; Docker changes it in place."""

    token: ClassVar[str] = "tidemill-native:docker:Bounds"
    required: ClassVar[tuple[str, ...]] = ("stack", "name", "container", "processes")
    optional: ClassVar[tuple[str, ...]] = ("host",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "container")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Set the bound."""
        del context
        # The SDK's `update_container` does not know this one.
        api: Any = connect(inputs.get("host")).api
        with talking(str(inputs["name"])):
            url = api._url("/containers/{0}/update", inputs["container"])
            api._result(api._post_json(url, data={"PidsLimit": int(inputs["processes"])}), True)
        return str(inputs["container"]), dict(inputs)

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell what it is; a container which is gone has none."""
        del context
        import docker.errors

        client = connect(state.get("host"))
        with talking(str(state["name"])):
            try:
                found = client.api.inspect_container(str(state["container"]))
            except docker.errors.NotFound:
                return None
        return {**state, "processes": found["HostConfig"].get("PidsLimit") or 0}

    def delete(self, context: Context, state: Properties) -> None:
        """Leave it: the bound goes with the container."""
        del context, state


def _texts(inputs: Properties) -> dict[str, Any]:
    value = inputs.get("files")
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _placeholders(inputs: Properties, *, hashed: bool) -> Placeholders:
    def no_tool(name: str) -> Path:
        raise ConfigError("an image knows its programs", field="files", value=name)

    return Placeholders(root_of(inputs), Path("/"), None, no_tool, hashed)


def _contents(inputs: Properties) -> dict[str, tuple[bytes, int]]:
    """Return path -> content and mode of everything in the volume."""
    texts = _placeholders(inputs, hashed=False)
    files = {path: (texts.resolve(str(text)).encode(), 0o400) for path, text in _texts(inputs).items()}
    root = root_of(inputs)
    for name in inputs.get("secrets") or ():
        files[f"secrets/{name}"] = (secret_value(root, str(name)).encode(), 0o400)
    return files


def _digest(inputs: Properties) -> str:
    """Return a hash of the contents; keyed, so that no secret can be guessed from it."""
    texts = _placeholders(inputs, hashed=True)
    root = root_of(inputs)
    wanted = {path: texts.resolve(str(text)) for path, text in _texts(inputs).items()}
    values = {str(name): secret_value(root, str(name)) for name in inputs.get("secrets") or ()}
    said = json.dumps([wanted, values, inputs["owner"]], sort_keys=True)
    return hmac.digest(texts.salt_key(), said.encode(), hashlib.sha256).hex()
