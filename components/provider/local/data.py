"""Endpoint, Secret and Folder on this machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import ClassVar, Final

from ....runtime.common.errors import ConfigError
from ....runtime.common.files import write_private
from ..base import UNKNOWN, Context, Diff, NativeResource, Properties
from ..secret_formats import FORMATS, check_secret
from .files import claim, root_of
from .ports import HOST, forget_port, keep_port, kept_port, restore_port

__all__ = ["Endpoint", "Folder", "Local", "Secret"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED: Final = frozenset({"supervisord"})
_PORTS = range(1, 65536)


class Local(NativeResource):
    """A resource below a stack's root."""

    required: ClassVar[tuple[str, ...]] = ("stack", "root", "name")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name")

    def check(self, inputs: Properties) -> Properties:
        """Check the name too: it becomes part of paths."""
        inputs = super().check(inputs)
        name = inputs["name"]
        if name is not UNKNOWN and (not _NAME.fullmatch(str(name)) or name in _RESERVED):
            raise ConfigError(
                "is no name for a local resource",
                field="name",
                value=name,
                hint="use letters, digits, `.`, `_` and `-`",
            )
        return inputs


class Endpoint(Local):
    """A port of the loopback interface, found free and kept."""

    token: ClassVar[str] = "tidemill-native:local:Endpoint"
    optional: ClassVar[tuple[str, ...]] = ("port",)
    outputs: ClassVar[tuple[str, ...]] = ("host", "port")

    def check(self, inputs: Properties) -> Properties:
        """Check that a fixed port is one."""
        port = inputs.get("port")
        if port not in (None, UNKNOWN) and (not isinstance(port, int) or port not in _PORTS):
            raise ConfigError("is no port", field="port", value=port, hint="use a number from 1 to 65535")
        return super().check(inputs)

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """An endpoint whose port was chosen keeps it."""
        settled = {**inputs, "port": inputs.get("port") or state.get("port")}
        found = super().diff(context, state, settled)
        return found if state.get("kept", True) else Diff((*found.changes, "kept"), found.replaces)

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Take the port."""
        root = claim(context, inputs)
        port = keep_port(root, str(inputs["name"]), inputs.get("port"))
        return str(inputs["name"]), {**inputs, "host": HOST, "port": port}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell whether the port is still written down."""
        del context
        try:
            kept = kept_port(root_of(state), str(state["name"])) == state["port"]
        except LookupError:
            kept = False
        plain = {key: value for key, value in state.items() if key != "kept"}
        return plain if kept else {**plain, "kept": False}

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Take another port, or write the same one down again."""
        wanted = inputs.get("port") or state["port"]
        root = claim(context, inputs)
        if wanted == state["port"]:
            restore_port(root, str(inputs["name"]), wanted)
        else:
            keep_port(root, str(inputs["name"]), wanted)
        return {**inputs, "host": HOST, "port": wanted}

    def delete(self, context: Context, state: Properties) -> None:
        """Give the port back."""
        del context
        forget_port(root_of(state), str(state["name"]))


class Secret(Local):
    """A secret in a file of mode 0600, given or random; the state holds it encrypted, so that a lost file is fixed."""

    token: ClassVar[str] = "tidemill-native:local:Secret"
    optional: ClassVar[tuple[str, ...]] = ("format", "value")
    outputs: ClassVar[tuple[str, ...]] = ("file", "value")
    secret_outputs: ClassVar[frozenset[str]] = frozenset({"value"})
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "format")
    holds_data: ClassVar[bool] = True

    def check(self, inputs: Properties) -> Properties:
        """Check the format, and that a given value is not empty."""
        return check_secret(super().check(inputs))

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """A random secret stays; a file which is gone or was changed is written again."""
        settled = {**inputs, "value": inputs.get("value") or state.get("value")}
        found = super().diff(context, {**state, "missing": False}, settled)
        return Diff((*found.changes, "missing"), found.replaces) if state.get("missing") else found

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Write the file, or adopt the one which is there."""
        path = claim(context, inputs).secrets / str(inputs["name"])
        value = inputs.get("value") or _read(path) or FORMATS[str(inputs["format"])]()
        if _read(path) != value:
            write_private(path, value)
        return str(inputs["name"]), {**inputs, "file": str(path), "value": value}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell whether the file still holds the secret."""
        del context
        same = _read(root_of(state).secrets / str(state["name"])) == state["value"]
        return {**_found(state), **({} if same else {"missing": True})}

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Write the file again, with the old value unless a new one is given."""
        value = inputs.get("value") or state["value"]
        path = claim(context, inputs).secrets / str(inputs["name"])
        write_private(path, value)
        return {**inputs, "file": str(path), "value": value}

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the file."""
        del context
        (root_of(state).secrets / str(state["name"])).unlink(missing_ok=True)


class Folder(Local):
    """A private folder which holds data: an object store, or an embedded database."""

    token: ClassVar[str] = "tidemill-native:local:Folder"
    outputs: ClassVar[tuple[str, ...]] = ("path",)
    holds_data: ClassVar[bool] = True

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Make the folder, or adopt the one which is there."""
        path = claim(context, inputs).data(str(inputs["name"]))
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(inputs["name"]), {**inputs, "path": str(path)}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell whether the folder is there."""
        del context
        return {**_found(state), **({} if Path(str(state["path"])).is_dir() else {"missing": True})}

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the folder and all in it."""
        del context
        path = root_of(state).data(str(state["name"]))
        if path.exists():
            shutil.rmtree(path)


def _found(state: Properties) -> Properties:
    return {key: value for key, value in state.items() if key != "missing"}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
