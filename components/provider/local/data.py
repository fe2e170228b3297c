"""Endpoint, Secret and Folder on this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NotRequired

from ....runtime.common.errors import ConfigError
from ....runtime.common.files import write_private
from ..base import UNKNOWN, Context, Diff, Named, NativeResource, Properties, without
from ..secret_formats import FORMATS, SECRET_DEFAULTS, check_secret, public_part
from .files import claim, root_of
from .ports import HOST, forget_port, keep_port, kept_port, restore_port

if TYPE_CHECKING:
    import pulumi

    from ..base import Text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED: Final = frozenset({"supervisord"})
_PORTS = range(1, 65536)


class LocalInputs(Named):
    """Inputs of every local resource; `root` is the absolute path of the stack's root."""

    stack: Text
    root: Text


class EndpointInputs(LocalInputs):
    """Inputs of an endpoint."""

    port: NotRequired[pulumi.Input[int] | None]


class SecretInputs(LocalInputs):
    """Inputs of a secret."""

    format: NotRequired[Text]
    value: NotRequired[Text | None]


class Local(NativeResource):
    """A resource below a stack's root."""

    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name")

    def check(self, inputs: Properties) -> Properties:
        """Check the name, which becomes part of paths."""
        inputs = super().check(inputs)
        name = inputs["name"]
        if name is not UNKNOWN and (not _NAME.fullmatch(str(name)) or name in _RESERVED):
            raise ConfigError(
                "is not a valid name for a local resource",
                field="name",
                value=name,
                hint="use letters, digits, `.`, `_` and `-`",
            )
        return inputs


class Endpoint(Local, inputs=EndpointInputs):
    """A port of the loopback interface: the given one, or a free one that is then kept."""

    token: ClassVar[str] = "tidemill-native:local:Endpoint"
    outputs: ClassVar[tuple[str, ...]] = ("host", "port")

    def check(self, inputs: Properties) -> Properties:
        """Check that a given port is a port number."""
        port = inputs.get("port")
        if port not in (None, UNKNOWN) and (not isinstance(port, int) or port not in _PORTS):
            raise ConfigError("is not a port", field="port", value=port, hint="use a number from 1 to 65535")
        return super().check(inputs)

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a chosen port stays, and a port that is no longer on file is a change."""
        found = super().diff(context, state, {**inputs, "port": inputs.get("port") or state.get("port")})
        return found if state.get("kept", True) else found.adding("kept")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Reserve the port."""
        root = claim(context, inputs)
        port = keep_port(root, str(inputs["name"]), inputs.get("port"))
        return str(inputs["name"]), {**inputs, "host": HOST, "port": port}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state, with `kept: False` when the port is no longer on file."""
        try:
            kept = kept_port(root_of(state), str(state["name"])) == state["port"]
        except LookupError:
            kept = False
        plain = without(state, "kept")
        return plain if kept else {**plain, "kept": False}

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Reserve another port, or record the same one again."""
        wanted = inputs.get("port") or state["port"]
        root = claim(context, inputs)
        if wanted == state["port"]:
            restore_port(root, str(inputs["name"]), wanted)
        else:
            keep_port(root, str(inputs["name"]), wanted)
        return {**inputs, "host": HOST, "port": wanted}

    def delete(self, context: Context, state: Properties) -> None:
        """Release the port."""
        forget_port(root_of(state), str(state["name"]))


class Secret(Local, inputs=SecretInputs):
    """A given or random secret in a file of mode 0600; the encrypted state has a copy, so a lost file is restored.

    Output `public`: the public key of a private key.
    """

    token: ClassVar[str] = "tidemill-native:local:Secret"
    defaults: ClassVar[Mapping[str, Any]] = SECRET_DEFAULTS
    outputs: ClassVar[tuple[str, ...]] = ("file", "value", "public")
    secret_inputs: ClassVar[frozenset[str]] = frozenset({"value"})
    secret_outputs: ClassVar[frozenset[str]] = frozenset({"value"})
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "format")
    holds_data: ClassVar[bool] = True

    def check(self, inputs: Properties) -> Properties:
        """Check the format, and that a given value is not empty."""
        return check_secret(super().check(inputs))

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a random secret stays, and a lost or changed file is written again."""
        settled = {**inputs, "value": inputs.get("value") or state.get("value")}
        found = super().diff(context, {**state, "missing": False}, settled)
        return found.adding("missing") if state.get("missing") else found

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Write the file, or adopt the existing one."""
        path = claim(context, inputs).secrets / str(inputs["name"])
        value = inputs.get("value") or _read(path) or FORMATS[str(inputs["format"])]()
        if _read(path) != value:
            write_private(path, value)
        return str(inputs["name"]), {**inputs, "file": str(path), "value": value, **public_part(inputs, value)}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state, with `missing` when the file no longer holds the secret."""
        same = _read(root_of(state).secrets / str(state["name"])) == state["value"]
        return {**without(state, "missing"), **({} if same else {"missing": True})}

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Write the file again, with the old value unless a new one is given."""
        value = inputs.get("value") or state["value"]
        path = claim(context, inputs).secrets / str(inputs["name"])
        write_private(path, value)
        return {**inputs, "file": str(path), "value": value, **public_part(inputs, value)}

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the file."""
        (root_of(state).secrets / str(state["name"])).unlink(missing_ok=True)


class Folder(Local, inputs=LocalInputs):
    """A private folder that holds data: an object store, or an embedded database."""

    token: ClassVar[str] = "tidemill-native:local:Folder"
    outputs: ClassVar[tuple[str, ...]] = ("path",)
    holds_data: ClassVar[bool] = True

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create the folder, or adopt the existing one."""
        path = claim(context, inputs).data(str(inputs["name"]))
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(inputs["name"]), {**inputs, "path": str(path)}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state, with `missing` when the folder is gone."""
        return {**without(state, "missing"), **({} if Path(str(state["path"])).is_dir() else {"missing": True})}

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the folder with its contents."""
        path = root_of(state).data(str(state["name"]))
        if path.exists():
            shutil.rmtree(path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
