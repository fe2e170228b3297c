"""The sources of a stack config: its own file and the bases that it extends. Imports no Pulumi."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...components.targets.checks import Problem
from ...runtime.common.errors import ConfigError
from .findings import Finding
from .schema_errors import KeyPath
from .yaml_positions import Position, read_yaml

STACK_KEY = "tidemill:stack"
_Positions = dict[KeyPath, Position]
_Content = tuple[Any, _Positions, _Positions]


def relative_path(file: Path, project: Path) -> str:
    """Return `file` relative to `project` if it is inside."""
    return str(file.relative_to(project)) if file.is_relative_to(project) else str(file)


class FileCache:
    """Reads each file once, also if several stacks share it."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self._read: dict[Path, _Content] = {}

    def content(self, file: Path) -> _Content:
        """Return the result of `read_yaml` for `file`, which may raise ConfigError."""
        if file not in self._read:
            self._read[file] = read_yaml(file, self.project)
        return self._read[file]


@dataclass(frozen=True)
class Layer:
    """The part of a config that one file sets.

    Attributes:
        file: the file.
        values: its values, without `extends`.
        positions: path -> position of the value.
        keys: path -> position of the key.
    """

    file: Path
    values: dict[str, Any] = field(repr=False)
    positions: _Positions = field(repr=False)
    keys: _Positions = field(repr=False)


class Source:
    """The layers of one stack, the stack's own file first.

    Args:
        files: reads the files.
        file: the stack's own file.
        raw: its `tidemill:stack` object.
        content: its content.
    """

    def __init__(self, files: FileCache, file: Path, raw: dict[str, Any], content: _Content) -> None:
        self.project = files.project
        self.file = file
        self.layers: list[Layer] = []
        self._extend(files, raw, _layer(file, raw, content, ("config", STACK_KEY)))

    def _extend(self, files: FileCache, raw: dict[str, Any], layer: Layer) -> None:
        """Add `layer`, then its bases."""
        self.layers.append(layer)
        if raw.get("extends") is None:
            return
        base: Any = raw["extends"]
        position = layer.keys[("extends",)]
        where = f"{position.text(self.project)}: extends"
        if not isinstance(base, str):
            raise ConfigError("not a path", field=where, value=base, hint="name one file, relative to Pulumi.yaml")
        file = (self.project / base).resolve()
        if file in [layer.file for layer in self.layers]:
            raise ConfigError(
                "the configs extend each other in a cycle", field=where, value=base, hint="remove one `extends`"
            )
        if not file.is_file():
            raise ConfigError("no such file", field=where, value=base, hint="paths are relative to Pulumi.yaml")
        content = files.content(file)
        value, prefix = content[0], cast("KeyPath", ())
        if isinstance(value, dict) and "config" in value:
            inner: Any = cast("dict[str, Any]", value)["config"]
            value = cast("dict[str, Any]", inner).get(STACK_KEY) if isinstance(inner, dict) else None
            prefix = ("config", STACK_KEY)
        if not isinstance(value, dict):
            raise ConfigError("not an object", field=where, value=base, hint=f"write the keys of `{STACK_KEY}`")
        values = cast("dict[str, Any]", value)
        self._extend(files, values, _layer(file, values, content, prefix))

    def merged(self) -> dict[str, Any]:
        """Return the merged config; each layer overrides the next."""
        merged: dict[str, Any] = {}
        for layer in reversed(self.layers):
            merged = merge_objects(merged, layer.values)
        return merged

    def positions(self) -> _Positions:
        """Return the position of each effective value."""
        found: _Positions = {}
        for layer in reversed(self.layers):
            found |= layer.positions
        merged = self.merged()
        return {path: position for path, position in found.items() if _exists(merged, path)}

    def nearest_position(self, path: KeyPath) -> Position | None:
        """Return the position of `path`, or else of its nearest parent that a file sets."""
        for length in range(len(path), -1, -1):
            for layer in self.layers:
                if position := layer.keys.get(path[:length]) or layer.positions.get(path[:length]):
                    return position
        return None

    def finding(self, problem: Problem, stack: str) -> Finding:
        """Add its file and line to `problem`."""
        return located_finding(problem, self.nearest_position(problem.path), self.file, self.project, stack)


def located_finding(problem: Problem, position: Position | None, file: Path, project: Path, stack: str) -> Finding:
    """Add a file and line to `problem`: `position`, or else only `file`."""
    return Finding(
        relative_path(position.file if position else file, project),
        position.line if position else None,
        ".".join(str(part) for part in problem.path),
        problem.message,
        problem.value,
        problem.hint,
        stack,
    )


def _layer(file: Path, raw: dict[str, Any], content: _Content, prefix: KeyPath) -> Layer:
    values = {key: value for key, value in raw.items() if key != "extends"}
    return Layer(file, values, _below(content[1], prefix), _below(content[2], prefix))


def _below(positions: _Positions, prefix: KeyPath) -> _Positions:
    if not prefix:
        return positions
    return {path[len(prefix) :]: position for path, position in positions.items() if path[: len(prefix)] == prefix}


def _exists(value: object, path: KeyPath) -> bool:
    for part in path:
        if isinstance(value, dict) and part in value:
            value = cast("dict[str | int, object]", value)[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(cast("list[object]", value)):
            value = cast("list[object]", value)[part]
        else:
            return False
    return True


def merge_objects(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`; objects are merged, all other values replaced.

    >>> merge_objects({"limits": {"rows": 5}, "capture": {"fraction": 0.1}}, {"capture": {"directory": "here"}})
    {'limits': {'rows': 5}, 'capture': {'fraction': 0.1, 'directory': 'here'}}
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge_objects(cast("dict[str, Any]", old), cast("dict[str, Any]", value)) if both else value
    return merged
