"""Inserts keys into YAML files and keeps all other lines byte for byte.

ruamel.yaml finds the position and checks that the result has the old content and the new key. If lines cannot be
inserted (for example into some mappings in braces), it rewrites the whole file and keeps the comments.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from ...runtime.common.errors import ConfigError

Keys = tuple[str, ...]


def _yaml() -> YAML:
    made = YAML()
    made.preserve_quotes = True
    made.width = 2**20  # keep the author's line breaks
    return made


def parse(text: str, name: str) -> CommentedMap:
    """Return the mapping in `text`.

    Args:
        text: the content of a YAML file.
        name: the file's name in errors.

    Raises:
        ConfigError: it is not a YAML mapping.
    """
    try:
        found: Any = _yaml().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(
            f"not YAML ({getattr(error, 'problem', None) or error})", field=where, hint="fix it"
        ) from None
    if not isinstance(found, CommentedMap):
        raise ConfigError("not an object", field=name, hint="write keys and values")
    return found


def value_at(value: Any, path: Keys) -> Any:
    """Return the value at `path` in `value`, or None."""
    for key in path:
        value = cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
    return value


def added_keys(before: Any, after: Any, path: Keys = ()) -> Iterator[Keys]:
    """Yield the paths of the keys that only `after` has, without the keys inside them.

    >>> list(added_keys({"a": {"b": 1}}, {"a": {"b": 2, "c": {"d": 1}}, "e": 0}))
    [('a', 'c'), ('e',)]
    """
    if not isinstance(after, dict):
        return
    old = cast("dict[str, Any]", before) if isinstance(before, dict) else {}
    for key, value in cast("dict[str, Any]", after).items():
        if key not in old:
            yield (*path, key)
        else:
            yield from added_keys(old[key], value, (*path, key))


def block(text: str, path: Keys) -> list[str]:
    """Return the lines of the key `path` in `text` and of the comments before it, without indentation.

    The key must not be inside braces.
    """
    lines = text.split("\n")
    pairs, number = _siblings(_yaml().compose(text), path)
    key, value = pairs[number]
    start = key.start_mark.line
    first = _last_line(*pairs[number - 1], lines) + 1 if number else start
    while number == 0 and first and lines[first - 1].strip().startswith("#"):
        first -= 1
    while first < start and not lines[first].strip():
        first += 1  # blank lines separate the key from its old predecessor
    indent = key.start_mark.column
    return [
        line[indent:] if not line[:indent].strip() else line
        for line in lines[first : _last_line(key, value, lines) + 1]
    ]


def set_value(lines: list[str], key: str, value: str | list[str]) -> list[str]:
    """Return the block `lines` with `key` set to `value`; a new key comes last.

    >>> set_value(["a: # mine", "  b: 1", "  c: 2"], "b", ["x", "y"])
    ['a: # mine', '  b: [x, y]', '  c: 2']
    """
    [(_, inner)] = _yaml().compose("\n".join(lines)).value
    indent = " " * inner.value[0][0].start_mark.column
    line = f"{indent}{key}: {_flow(value)}"
    for name, old in inner.value:
        if name.value == key:
            return [*lines[: name.start_mark.line], line, *lines[_last_line(name, old, lines) + 1 :]]
    last = _end_line(inner, lines)
    return [*lines[:last], line, *lines[last:]]


def _flow(value: Any) -> str:
    """Return `value` as YAML on one line."""
    out = io.StringIO()
    made = YAML(typ="safe", pure=True)
    made.default_flow_style = True
    made.width = 2**20
    made.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    made.brace_single_entry_mapping_in_flow_sequence = True
    made.dump([value], out)
    return out.getvalue().strip()[1:-1]


def insert(text: str, path: Keys, lines: list[str], name: str) -> str:
    """Return `text` with the key `path` inserted after the last key of its parent.

    Args:
        text: the content of a YAML file.
        path: the key; missing parents are created.
        lines: the key and its value, not indented.
        name: the file's name in errors.

    Raises:
        ConfigError: the file is not YAML, already has the key, or has a parent that is not an object.
    """
    old = parse(text, name)
    for length in range(1, len(path)):
        above = value_at(old, path[:length])
        if above is not None and not isinstance(above, dict):
            raise ConfigError("not an object", field=f"{name}: {'.'.join(path[:length])}", hint="write keys and values")
    above = value_at(old, path[:-1])
    if above is not None and path[-1] in above:
        raise ConfigError("already exists", field=f"{name}: {'.'.join(path)}", hint="choose another name")
    wanted = _with_key(old, path, _load("\n".join(lines))[path[-1]])
    end = "\r\n" if "\r\n" in text else "\n"
    edited = _insert_as_lines(text, path, lines, end)
    if edited is None or _load(edited) != _plain_values(wanted):
        out = io.StringIO()
        _yaml().dump(wanted, out)
        edited = out.getvalue().replace("\n", end)
        if _load(edited) != _plain_values(wanted):
            raise ConfigError("cannot be edited", field=name, hint=f"add `{'.'.join(path)}` by hand")
    return edited


def _with_key(value: CommentedMap, path: Keys, new: Any) -> CommentedMap:
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        if inner.get(key) is None:
            inner[key] = CommentedMap()
        inner = inner[key]
    inner[path[-1]] = new
    return made


def _load(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return None


def _plain_values(value: Any) -> Any:
    out = io.StringIO()
    _yaml().dump(value, out)
    return _load(out.getvalue())


def _siblings(root: Any, path: Keys) -> tuple[list[tuple[Any, Any]], int]:
    """Return the key-value pairs of the parent of `path`, and the index of `path` among them."""
    pairs: list[tuple[Any, Any]] = root.value
    for key in path[:-1]:
        pairs = next(value for name, value in pairs if name.value == key).value
    return pairs, next(number for number, (name, _) in enumerate(pairs) if name.value == path[-1])


def _insert_as_lines(text: str, path: Keys, lines: list[str], end: str) -> str | None:
    """Return `text` with `lines` inserted, or None if inserting lines is not enough."""
    old = text.split(end)
    if not old[-1]:
        old.pop()
    node: Any = _yaml().compose(text)
    if not isinstance(node, MappingNode) or node.flow_style or not node.value:
        return None
    for depth, key in enumerate(path[:-1]):
        pair = next((pair for pair in node.value if pair[0].value == key), None)
        if pair is None:
            return _insert_lines(old, _end_line(node, old), _indent(node), path[depth:-1], lines, end)
        name, value = pair
        if _is_null(value) or (isinstance(value, MappingNode) and not value.value):
            first = value.start_mark
            if first.line == value.end_mark.line == name.start_mark.line:  # remove `{}` or `~`
                line = old[first.line]
                old[first.line] = (line[: first.column].rstrip() + line[value.end_mark.column :]).rstrip()
            elif not _is_null(value) or value.value:
                return None
            return _insert_lines(old, name.start_mark.line + 1, _indent(node) + 2, path[depth + 1 : -1], lines, end)
        if not isinstance(value, MappingNode):
            return None
        if value.flow_style:
            return _insert_in_braces(old, value, path[depth + 1 :], lines, end)
        node = value
    return _insert_lines(old, _end_line(node, old), _indent(node), (), lines, end)


def _indent(node: Any) -> int:
    return node.value[0][0].start_mark.column


def _end_line(node: Any, lines: list[str]) -> int:
    key, value = node.value[-1]
    return _last_line(key, value, lines) + 1


def _insert_lines(old: list[str], line: int, indent: int, missing: Keys, lines: list[str], end: str) -> str:
    """Return `old` with `lines` inserted before `line`, below the new parents `missing`."""
    new = [" " * (indent + 2 * depth) + f"{key}:" for depth, key in enumerate(missing)]
    blanks = " " * (indent + 2 * len(missing))
    new += [blanks + text if text else text for text in lines]
    return end.join([*old[:line], *new, *old[line:], ""])


def _insert_in_braces(old: list[str], node: Any, path: Keys, lines: list[str], end: str) -> str | None:
    while len(path) > 1:
        node = next((value for name, value in node.value if name.value == path[0]), None)
        if not isinstance(node, MappingNode) or not node.value:
            return None
        path = path[1:]
    mark = node.value[-1][1].end_mark
    line = old[mark.line]
    new = _flow(_load("\n".join(lines)))[1:-1]
    old[mark.line] = f"{line[: mark.column]}, {new}{line[mark.column :]}"
    return end.join([*old, ""])


def _is_null(node: Any) -> bool:
    return isinstance(node, ScalarNode) and str(node.tag).endswith(":null")


def _last_line(key: Any, value: Any, lines: list[str]) -> int:
    """Return the number of the last line of `key: value`, without comments and blank lines after it."""
    if _is_null(value) and not value.value:
        return key.end_mark.line
    if isinstance(value, MappingNode) and not value.flow_style and value.value:
        return _end_line(value, lines) - 1
    if isinstance(value, SequenceNode) and not value.flow_style and value.value:
        return _last_line(value, value.value[-1], lines)
    last = value.end_mark.line
    if isinstance(value, ScalarNode) and value.style in ("|", ">"):
        last -= value.end_mark.column == 0
        while last > value.start_mark.line and not lines[last].strip():
            last -= 1
    return last
