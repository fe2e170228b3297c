"""The complete config with defaults, and the source of each value. Imports no Pulumi."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...components.targets.registry import TARGETS
from ...runtime.common.errors import NotFoundError
from ..loading import LoadedStack
from .schema_errors import KeyPath, nearest, schema_at
from .sources import Layer

DEFAULT = "default"
"""The origin of a value that no file sets."""

_BLOCKS = tuple(name for name, spec in TARGETS.items() if spec.block)


@dataclass(frozen=True)
class Explanation:
    """A config value and its source.

    Attributes:
        path: its dotted path.
        value: the value.
        origin: `file:line`, or `default`.
        overridden: values in bases that it overrides, nearest base first: (`file:line`, value).
        default: the default, or None.
        description: its purpose.
    """

    path: str
    value: Any
    origin: str
    overridden: Sequence[tuple[str, Any]]
    default: Any
    description: str

    def as_json(self) -> dict[str, Any]:
        """Return this as JSON."""
        return {
            "path": self.path,
            "value": self.value,
            "origin": self.origin,
            "given_way": [{"origin": origin, "value": value} for origin, value in self.overridden],
            "default": self.default,
            "description": self.description,
        }


def resolved_config(loaded: LoadedStack) -> dict[str, Any]:
    """Return the config with all defaults as JSON, without the unused sections of other targets."""
    complete = loaded.config.model_dump(mode="json")
    for target in _BLOCKS:
        if target != loaded.config.target and (target,) not in loaded.positions:
            del complete[target]
    return complete


def explain(loaded: LoadedStack, path: str = "") -> list[Explanation]:
    """Explain the value at the dotted `path`, or each value below it.

    Raises:
        NotFoundError: there is no such value.
    """
    leaves = list(_leaves(resolved_config(loaded)))
    selected = [(keys, value) for keys, value in leaves if not path or _dotted(keys) == path]
    selected = selected or [(keys, value) for keys, value in leaves if _dotted(keys).startswith(f"{path}.")]
    if not selected:
        known = {_dotted(keys[:length]) for keys, _ in leaves for length in range(1, len(keys) + 1)}
        close = nearest(path, known)
        top = sorted({str(keys[0]) for keys, _ in leaves})
        hint = f"did you mean {close}?" if close else f"start with one of {', '.join(top)}"
        raise NotFoundError("the config has no such value", field="path", value=path, hint=hint)
    return [_explanation(loaded, keys, value) for keys, value in selected]


def _dotted(keys: KeyPath) -> str:
    return ".".join(map(str, keys))


def _leaves(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each value that is not an object. A list is one value, since a file replaces it completely."""
    if isinstance(value, dict) and value:
        for key, child in cast("dict[str, Any]", value).items():
            yield from _leaves(child, (*path, key))
    else:
        yield path, value


def _explanation(loaded: LoadedStack, keys: KeyPath, value: object) -> Explanation:
    occurrences = list(_occurrences(loaded.layers, keys, value, loaded.project))
    schema = schema_at(keys)
    return Explanation(
        path=_dotted(keys),
        value=value,
        origin=occurrences[0][0] if occurrences else DEFAULT,
        overridden=occurrences[1:],
        default=schema.get("default"),
        description=str(schema.get("description", "")),
    )


def _occurrences(layers: Sequence[Layer], keys: KeyPath, result: object, project: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and value in each file that sets the value, the effective one first."""
    object_depth = 0
    for layer in layers:
        value: Any = layer.values
        depth = 0
        while depth < len(keys) and isinstance(value, dict) and keys[depth] in value:
            value = cast("dict[str | int, Any]", value)[keys[depth]]
            depth += 1
        if depth < len(keys) and isinstance(value, dict):
            object_depth = max(object_depth, depth)
            continue
        if depth < len(keys) and depth <= object_depth:
            return  # a short form of an object in an overriding file, which replaces it completely
        if depth < len(keys) and value != result:
            return  # a short form, which leaves this part at its default
        position = layer.keys.get(keys[:depth]) or layer.positions[keys[:depth]]
        yield position.text(project), value
