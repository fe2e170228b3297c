"""Volumes of containers (Volume, Scratch, Files), and Bounds on their processes."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, cast

from ....runtime.common.errors import ConfigError, TidemillError
from ..base import UNKNOWN, Context, Diff, Named, NativeResource, Properties, without
from ..local.data import LocalInputs
from ..local.files import claim, root_of, secret_value
from ..local.placeholders import Placeholders, check_placeholders
from ..local.process import is_known
from .daemon import STACK, connect, put, require_own, talking

if TYPE_CHECKING:
    import pulumi

    from ..base import Text

_DIGEST = "tidemill.files"


class VolumeInputs(Named):
    """Inputs of a volume; `owner` is the number of a user, `host` the daemon's address."""

    stack: Text
    owner: pulumi.Input[int]
    host: NotRequired[Text | None]
    labels: NotRequired[Mapping[str, Text] | None]


class FilesInputs(LocalInputs):
    """Inputs of a volume of files.

    `files` maps relative paths to texts that may contain `@{secret:NAME}` and `@{bcrypt:NAME}`; each secret named in
    `secrets` becomes the file `secrets/NAME`.
    """

    owner: pulumi.Input[int]
    host: NotRequired[Text | None]
    labels: NotRequired[Mapping[str, Text] | None]
    files: NotRequired[Mapping[str, Text] | None]
    secrets: NotRequired[Sequence[Text] | None]


class BoundsInputs(Named):
    """Inputs of bounds: the id of a container, and its maximum number of processes."""

    stack: Text
    container: Text
    processes: pulumi.Input[int]
    host: NotRequired[Text | None]


def _labels(inputs: Properties) -> dict[str, str]:
    given = inputs.get("labels")
    return {**(cast("dict[str, str]", given) if isinstance(given, dict) else {}), STACK: str(inputs["stack"])}


def _inspect(inputs: Properties, volume: str) -> dict[str, Any] | None:
    """Return the daemon's description of `volume`, or None if it does not exist."""
    import docker.errors

    client = connect(inputs.get("host"))
    with talking(volume):
        try:
            return client.api.inspect_volume(volume)
        except docker.errors.NotFound:
            return None


def _create(inputs: Properties, volume: str, files: dict[str, tuple[bytes, int]], **labels: str) -> None:
    """Create `volume` with `files`, owned by the wanted user; remove it again if that fails."""
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


class Volume(NativeResource, inputs=VolumeInputs):
    """A volume that holds data and belongs to the user of the containers that mount it.

    Outputs: `volume`, its name in Docker. The time of its creation is no identity: Docker changes it with the content.
    """

    token: ClassVar[str] = "tidemill-native:docker:Volume"
    outputs: ClassVar[tuple[str, ...]] = ("volume",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "owner")
    holds_data: ClassVar[bool] = True

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create the volume, or adopt the existing one."""
        volume = f"tidemill-{inputs['stack']}-{inputs['name']}"
        found = _inspect(inputs, volume)
        if found is None:
            _create(inputs, volume, {})
        else:
            require_own("volume", volume, found.get("Labels"), str(inputs["stack"]))
        return volume, {**inputs, "volume": volume}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state; with `missing`, or None for scratch, when the volume is gone or another stack's."""
        found = _inspect(state, str(state["volume"]))
        kept = without(state, "missing")
        if found is not None and (found.get("Labels") or {}).get(STACK) == state["stack"]:
            return kept
        return {**kept, "missing": True} if self.holds_data else None

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the volume with its contents."""
        _remove(state, str(state["volume"]))


class Scratch(Volume):
    """A volume whose contents may be lost at any time."""

    token: ClassVar[str] = "tidemill-native:docker:Scratch"
    holds_data: ClassVar[bool] = False


class Files(NativeResource, inputs=FilesInputs):
    """A volume with the config files and secrets of one container, which only its user can read.

    Values of secrets come from the stack's root on this machine, so none passes through the program or the state. A
    volume never changes: other contents go into another volume, whose name ends with their digest.
    """

    token: ClassVar[str] = "tidemill-native:docker:Files"
    outputs: ClassVar[tuple[str, ...]] = ("volume", "digest")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "owner", "files", "secrets", "digest")
    delete_before_replace: ClassVar[bool] = False

    def check(self, inputs: Properties) -> Properties:
        """Check paths and placeholders."""
        inputs = super().check(inputs)
        for path, text in _texts(inputs).items():
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or not parts.parts or parts.parts[0] == "secrets":
                raise ConfigError("must be a relative path outside `secrets`", field="files", value=path)
            if text is not UNKNOWN:
                check_placeholders(str(text), f"files.{path}", secrets=True)
        return inputs

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a changed value of a secret is also a difference."""
        found = super().diff(context, state, inputs)
        if found.changes or not is_known(inputs):
            return found
        try:
            same = state.get("digest") == _digest(inputs)
        except TidemillError:
            same = False
        return found if same else Diff(("digest",), ("digest",))

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create the volume, or adopt one with the same contents."""
        claim(context, inputs)
        digest = _digest(inputs)
        volume = f"tidemill-{inputs['stack']}-{inputs['name']}-files-{digest[:12]}"
        found = _inspect(inputs, volume)
        if found is not None:
            require_own("volume", volume, found.get("Labels"), str(inputs["stack"]))
        if found is None or (found.get("Labels") or {}).get(_DIGEST) != digest:
            _create(inputs, volume, _contents(inputs), **{_DIGEST: digest})
        return volume, {**inputs, "volume": volume, "digest": digest}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state, or None when the volume is gone."""
        return state if _inspect(state, str(state["volume"])) is not None else None

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Record other labels."""
        return {**inputs, "volume": state["volume"], "digest": state["digest"]}

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the volume."""
        _remove(state, str(state["volume"]))


class Bounds(NativeResource, inputs=BoundsInputs):
    """Maximum number of processes of a container, which Pulumi's Docker provider cannot set; changed in place."""

    token: ClassVar[str] = "tidemill-native:docker:Bounds"
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "container")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Set the maximum."""
        # The SDK's `update_container` lacks this setting.
        api: Any = connect(inputs.get("host")).api
        with talking(str(inputs["name"])):
            url = api._url("/containers/{0}/update", inputs["container"])
            api._result(api._post_json(url, data={"PidsLimit": int(inputs["processes"])}), True)
        return str(inputs["container"]), dict(inputs)

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state with the actual maximum, or None when the container is gone."""
        import docker.errors

        client = connect(state.get("host"))
        with talking(str(state["name"])):
            try:
                found = client.api.inspect_container(str(state["container"]))
            except docker.errors.NotFound:
                return None
        return {**state, "processes": found["HostConfig"].get("PidsLimit") or 0}

    def delete(self, context: Context, state: Properties) -> None:
        """Do nothing: the maximum goes with the container."""


def _texts(inputs: Properties) -> dict[str, Any]:
    value = inputs.get("files")
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _placeholders(inputs: Properties, *, hashed: bool) -> Placeholders:
    def no_tool(name: str) -> Path:
        raise ConfigError("a container has its own programs", field="files", value=name)

    return Placeholders(root_of(inputs), Path("/"), None, no_tool, hashed)


def _contents(inputs: Properties) -> dict[str, tuple[bytes, int]]:
    """Return path -> content and mode of each file of the volume."""
    texts = _placeholders(inputs, hashed=False)
    files = {path: (texts.resolve(str(text)).encode(), 0o400) for path, text in _texts(inputs).items()}
    root = root_of(inputs)
    for name in inputs.get("secrets") or ():
        files[f"secrets/{name}"] = (secret_value(root, str(name)).encode(), 0o400)
    return files


def _digest(inputs: Properties) -> str:
    """Return a keyed hash of the contents, from which no secret can be guessed."""
    texts = _placeholders(inputs, hashed=True)
    root = root_of(inputs)
    wanted = {path: texts.resolve(str(text)) for path, text in _texts(inputs).items()}
    values = {str(name): secret_value(root, str(name)) for name in inputs.get("secrets") or ()}
    contents = json.dumps([wanted, values, inputs["owner"]], sort_keys=True)
    return hmac.digest(texts.salt_key(), contents.encode(), hashlib.sha256).hex()
