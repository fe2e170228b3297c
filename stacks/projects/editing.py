"""Puts keys into YAML files and leaves every other line as it is, byte for byte.

ruamel.yaml finds the place, and says afterwards whether the file means what it should: the same as before, and the key.
Where no lines can simply be put in (a mapping in braces, say), it writes the file anew, with its comments.
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

__all__ = ["Keys", "added_keys", "block", "insert", "parse", "value_at", "with_value"]

Keys = tuple[str, ...]


def _yaml() -> YAML:
    made = YAML()
    made.preserve_quotes = True
    made.width = 2**20  # lines are the author's
    return made


def parse(text: str, shown: str) -> CommentedMap:
    """Return the mapping which `text` is.

    Raises:
        ConfigError: it is none.
    """
    try:
        found: Any = _yaml().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{shown}:{mark.line + 1}" if mark else shown
        raise ConfigError(
            f"not YAML ({getattr(error, 'problem', None) or error})", field=where, hint="hint it"
        ) from None
    if not isinstance(found, CommentedMap):
        raise ConfigError("not an object", field=shown, hint="write keys and values")
    return found


def value_at(value: Any, path: Keys) -> Any:
    """Return what is at `path` in `value`, or None."""
    for key in path:
        value = cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
    return value


def added_keys(before: Any, after: Any, path: Keys = ()) -> Iterator[Keys]:
    """Yield the paths of the keys which `after` has and `before` has not; not of what is inside them.

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
    """Return the lines in which `path` stands in `text`, without their indentation, comments before it included.

    The key must stand in lines of its own, not in braces.
    """
    lines = text.split("\n")
    pairs, number = _siblings(_yaml().compose(text), path)
    key, value = pairs[number]
    start = key.start_mark.line
    first = _last_line(*pairs[number - 1], lines) + 1 if number else start
    while number == 0 and first and lines[first - 1].strip().startswith("#"):
        first -= 1
    while first < start and not lines[first].strip():
        first += 1  # blank lines part it from what is before, which is another there
    indent = key.start_mark.column
    return [
        line[indent:] if not line[:indent].strip() else line
        for line in lines[first : _last_line(key, value, lines) + 1]
    ]


def with_value(lines: list[str], key: str, value: str | list[str]) -> list[str]:
    """Return the block `lines` of a key with `value` at `key` in it, in the place of what is there, or last.

    >>> with_value(["a: # mine", "  b: 1", "  c: 2"], "b", ["x", "y"])
    ['a: # mine', '  b: [x, y]', '  c: 2']
    """
    [(_, inner)] = _yaml().compose("\n".join(lines)).value
    indent = " " * inner.value[0][0].start_mark.column
    line = f"{indent}{key}: {_flow(value)}"
    for name, old in inner.value:
        if name.value == key:
            return [*lines[: name.start_mark.line], line, *lines[_last_line(name, old, lines) + 1 :]]
    last = _after(inner, lines)
    return [*lines[:last], line, *lines[last:]]


def _flow(value: Any) -> str:
    """Return `value` as YAML on one line."""
    out = io.StringIO()
    made = YAML(typ="safe", pure=True)
    made.default_flow_style = True
    made.width = 2**20
    # Keys stay in their order.
    made.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    made.brace_single_entry_mapping_in_flow_sequence = True
    made.dump([value], out)
    return out.getvalue().strip()[1:-1]


def insert(text: str, path: Keys, lines: list[str], shown: str) -> str:
    """Return `text` with the key of `path`, which `lines` write, after the last key of its parent.

    Args:
        text: a file of YAML.
        path: the key; what is above it is made where it is not there.
        lines: the key and its value, not indented.
        shown: how the file is called in errors.

    Raises:
        ConfigError: the file is not YAML, has the key, or something else than an object above it.
    """
    old = parse(text, shown)
    for length in range(1, len(path)):
        above = value_at(old, path[:length])
        if above is not None and not isinstance(above, dict):
            raise ConfigError(
                "not an object", field=f"{shown}: {'.'.join(path[:length])}", hint="write keys and values"
            )
    above = value_at(old, path[:-1])
    if above is not None and path[-1] in above:
        raise ConfigError("is there already", field=f"{shown}: {'.'.join(path)}", hint="choose another name")
    wanted = _with(old, path, _plain("\n".join(lines))[path[-1]])
    end = "\r\n" if "\r\n" in text else "\n"
    edited = _with_lines(text, path, lines, end)
    if edited is None or _plain(edited) != _plain_value(wanted):
        out = io.StringIO()
        _yaml().dump(wanted, out)
        edited = out.getvalue().replace("\n", end)
        if _plain(edited) != _plain_value(wanted):
            raise ConfigError("cannot be edited", field=shown, hint=f"write `{'.'.join(path)}` by hand")
    return edited


def _with(value: CommentedMap, path: Keys, new: Any) -> CommentedMap:
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        if inner.get(key) is None:
            inner[key] = CommentedMap()
        inner = inner[key]
    inner[path[-1]] = new
    return made


def _plain(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return None


def _plain_value(value: Any) -> Any:
    out = io.StringIO()
    _yaml().dump(value, out)
    return _plain(out.getvalue())


def _siblings(root: Any, path: Keys) -> tuple[list[tuple[Any, Any]], int]:
    """Return the pairs among which `path` is, and which of them it is."""
    pairs: list[tuple[Any, Any]] = root.value
    for key in path[:-1]:
        pairs = next(value for name, value in pairs if name.value == key).value
    return pairs, next(number for number, (name, _) in enumerate(pairs) if name.value == path[-1])


def _with_lines(text: str, path: Keys, lines: list[str], end: str) -> str | None:
    """Return `text` with `lines` put in, or None where that cannot be done by putting in lines."""
    old = text.split(end)
    if not old[-1]:
        old.pop()
    node: Any = _yaml().compose(text)
    if not isinstance(node, MappingNode) or node.flow_style or not node.value:
        return None
    for depth, key in enumerate(path[:-1]):
        pair = next((pair for pair in node.value if pair[0].value == key), None)
        if pair is None:
            return _put_in(old, _after(node, old), _indent(node), path[depth:-1], lines, end)
        name, value = pair
        if _is_null(value) or (isinstance(value, MappingNode) and not value.value):
            first = value.start_mark
            if first.line == value.end_mark.line == name.start_mark.line:  # `{}`, `~`: it has to go
                line = old[first.line]
                old[first.line] = (line[: first.column].rstrip() + line[value.end_mark.column :]).rstrip()
            elif not _is_null(value) or value.value:
                return None
            return _put_in(old, name.start_mark.line + 1, _indent(node) + 2, path[depth + 1 : -1], lines, end)
        if not isinstance(value, MappingNode):
            return None
        if value.flow_style:
            return _put_in_braces(old, value, path[depth + 1 :], lines, end)
        node = value
    return _put_in(old, _after(node, old), _indent(node), (), lines, end)


def _indent(node: Any) -> int:
    return node.value[0][0].start_mark.column


def _after(node: Any, lines: list[str]) -> int:
    key, value = node.value[-1]
    return _last_line(key, value, lines) + 1


def _put_in(old: list[str], line: int, indent: int, missing: Keys, lines: list[str], end: str) -> str:
    """Return `old` with `lines` before `line`, below the keys `missing`, which are made."""
    new = [" " * (indent + 2 * depth) + f"{key}:" for depth, key in enumerate(missing)]
    blanks = " " * (indent + 2 * len(missing))
    new += [blanks + text if text else text for text in lines]
    return end.join([*old[:line], *new, *old[line:], ""])


def _put_in_braces(old: list[str], node: Any, path: Keys, lines: list[str], end: str) -> str | None:
    while len(path) > 1:
        node = next((value for name, value in node.value if name.value == path[0]), None)
        if not isinstance(node, MappingNode) or not node.value:
            return None
        path = path[1:]
    mark = node.value[-1][1].end_mark
    line = old[mark.line]
    new = _flow(_plain("\n".join(lines)))[1:-1]
    old[mark.line] = f"{line[: mark.column]}, {new}{line[mark.column :]}"
    return end.join([*old, ""])


def _is_null(node: Any) -> bool:
    return isinstance(node, ScalarNode) and str(node.tag).endswith(":null")


def _last_line(key: Any, value: Any, lines: list[str]) -> int:
    """Return the last line in which `key: value` stands; comments and blank lines after it are not its."""
    if _is_null(value) and not value.value:
        return key.end_mark.line
    if isinstance(value, MappingNode) and not value.flow_style and value.value:
        return _after(value, lines) - 1
    if isinstance(value, SequenceNode) and not value.flow_style and value.value:
        return _last_line(value, value.value[-1], lines)
    last = value.end_mark.line
    if isinstance(value, ScalarNode) and value.style in ("|", ">"):
        last -= value.end_mark.column == 0
        while last > value.start_mark.line and not lines[last].strip():
            last -= 1
    return last
