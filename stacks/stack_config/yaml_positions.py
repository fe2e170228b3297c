"""Reads YAML 1.2 (core schema) with the line of each value.

PyYAML reads YAML 1.1, where `on`, `yes` and `off` are booleans and `1:30` is ninety; the engine reads 1.2. Keys that
are booleans in YAML 1.1 are refused, since other programs would read them differently.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...runtime.common.errors import ConfigError

_BOOLEAN_KEYS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false"})
_DEPTH = 50
_EMPTY_READS = 5
_EMPTY_SECONDS = 0.05


@dataclass(frozen=True)
class Position:
    """A file and a line, counted from one."""

    file: Path
    line: int

    def text(self, project: Path) -> str:
        """Return `file:line`, with the file relative to `project` if it is inside."""
        shown = self.file.relative_to(project) if self.file.is_relative_to(project) else self.file
        return f"{shown}:{self.line}"


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - typed as in PyYAML


def _resolver(tag: str, pattern: str, first: str) -> None:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolver("null", r"^(?:~|null|Null|NULL|)$", "~nN\0")
_CoreLoader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile(r"^$")))
_resolver("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolver("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789")
_resolver(
    "float",
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
    "-+0123456789.",
)
_resolver("merge", r"^<<$", "<")


def _construct_int(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    # A leading zero is decimal in YAML 1.2; int(text, 0) would refuse it.
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)

_Path = tuple[str | int, ...]


def _complete_text(file: Path) -> str:
    """Return the text of `file`; wait for a moment while it is empty.

    A run of the engine writes its salt into a stack config, which is empty until the engine has written it.
    """
    for _ in range(_EMPTY_READS):
        if text := file.read_text(encoding="utf-8"):
            return text
        time.sleep(_EMPTY_SECONDS)
    return ""


def read_yaml(file: Path, project: Path) -> tuple[Any, dict[_Path, Position], dict[_Path, Position]]:
    """Return the value in `file`, and the positions of its values and of its keys by path.

    Raises:
        ConfigError: the file cannot be read, is not YAML, repeats a key, or has a key that YAML 1.1 reads as a boolean.
    """
    shown = str(file.relative_to(project)) if file.is_relative_to(project) else str(file)
    try:
        text = _complete_text(file)
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8", field=shown, hint=f"see byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"cannot read it ({error.strerror})", field=shown, hint="make it readable") from None
    loader = _CoreLoader(text)
    try:
        node = loader.get_single_node()
        reader = _Reader(loader, file, shown)
        value = None if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = error.problem or error.context or "malformed"
        raise ConfigError(f"not YAML ({problem})", field=f"{shown}:{line}", hint="fix this line") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML ({str(error).splitlines()[0]})", field=shown, hint="fix it") from None
    except RecursionError:
        raise ConfigError("nested too deeply", field=shown, hint="flatten it") from None
    finally:
        loader.dispose()
    return value, reader.positions, reader.keys


class _Reader:
    """Converts nodes to values and records their positions."""

    def __init__(self, loader: _CoreLoader, file: Path, shown: str) -> None:
        self.loader, self.file, self.shown = loader, file, shown
        self.positions: dict[_Path, Position] = {}
        self.keys: dict[_Path, Position] = {}

    def value(self, node: yaml.Node, path: _Path) -> Any:
        line = node.start_mark.line + 1
        self.positions[path] = Position(self.file, line)
        if len(path) > _DEPTH:
            raise ConfigError("nested too deeply", field=f"{self.shown}:{line}", hint="flatten it")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self.loader.construct_object(node)
        found: dict[str, Any] = {}
        own = len(node.value)
        self.loader.flatten_mapping(node)
        merged = max(0, len(node.value) - own)  # entries of `<<` come first; the node's own override them
        for number, (key_node, value_node) in enumerate(node.value):
            at = f"{self.shown}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a word", field=at, hint="use a plain word")
            key = str(key_node.value)
            if key_node.style is None and key.lower() in _BOOLEAN_KEYS:
                hint = "use another word; YAML 1.1 reads this one as a boolean"
                raise ConfigError("a key must not be a boolean", field=at, value=key, hint=hint)
            if key in found and number >= merged and not merged:
                raise ConfigError("the key appears twice", field=at, value=key, hint="keep one of them")
            self.keys[*path, key] = Position(self.file, key_node.start_mark.line + 1)
            found[key] = self.value(value_node, (*path, key))
        return found
