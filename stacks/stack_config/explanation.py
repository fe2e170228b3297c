"""What a config comes to, and where each value of it came from. Imports no Pulumi."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...runtime.common.errors import NotFoundError
from ..loading import LoadedStack
from .schema_errors import KeyPath, nearest, schema_at
from .sources import Layer

__all__ = ["DEFAULT", "Explanation", "explain", "resolved_config"]

DEFAULT = "default"
"""What is said of the origin of a value which no file names."""

_TARGETS = ("docker", "aws")


@dataclass(frozen=True)
class Explanation:
    """A value of a config.

    Attributes:
        path: keys which lead to it.
        value: the value.
        origin: `file:line`, or `default`.
        given_way: what bases say of it, nearest first: (`file:line`, value).
        default: the value it has where no file names it; None where there is none.
        description: what it is for.
    """

    path: str
    value: Any
    origin: str
    given_way: Sequence[tuple[str, Any]]
    default: Any
    description: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "path": self.path,
            "value": self.value,
            "origin": self.origin,
            "given_way": [{"origin": origin, "value": value} for origin, value in self.given_way],
            "default": self.default,
            "description": self.description,
        }


def resolved_config(loaded: LoadedStack) -> dict[str, Any]:
    """Return the config with every default in it, as JSON; what no file names of other targets is left out."""
    whole = loaded.config.model_dump(mode="json")
    for target in _TARGETS:
        if target != loaded.config.target and (target,) not in loaded.positions:
            del whole[target]
    return whole


def explain(loaded: LoadedStack, path: str = "") -> list[Explanation]:
    """Return where the value at the dotted `path` came from, or each value below it.

    Raises:
        NotFoundError: there is no such value.
    """
    leaves = list(_leaves(resolved_config(loaded)))
    wanted = [(keys, value) for keys, value in leaves if not path or _dotted(keys) == path]
    wanted = wanted or [(keys, value) for keys, value in leaves if _dotted(keys).startswith(f"{path}.")]
    if not wanted:
        known = {_dotted(keys[:length]) for keys, _ in leaves for length in range(1, len(keys) + 1)}
        close = nearest(path, known)
        top = sorted({str(keys[0]) for keys, _ in leaves})
        hint = f"did you mean {close}?" if close else f"begin with one of {', '.join(top)}"
        raise NotFoundError("the config has no such value", field="path", value=path, hint=hint)
    return [_explained(loaded, keys, value) for keys, value in wanted]


def _dotted(keys: KeyPath) -> str:
    return ".".join(map(str, keys))


def _leaves(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each value that is no object; a list is one value, since a file replaces it as a whole."""
    if isinstance(value, dict) and value:
        for key, one in cast("dict[str, Any]", value).items():
            yield from _leaves(one, (*path, key))
    else:
        yield path, value


def _explained(loaded: LoadedStack, keys: KeyPath, value: object) -> Explanation:
    told = list(_told(loaded.layers, keys, value, loaded.project))
    schema = schema_at(keys)
    return Explanation(
        path=_dotted(keys),
        value=value,
        origin=told[0][0] if told else DEFAULT,
        given_way=told[1:],
        default=schema.get("default"),
        description=str(schema.get("description", "")),
    )


def _told(layers: Sequence[Layer], keys: KeyPath, whole: object, project: Path) -> Iterator[tuple[str, Any]]:
    """Yield what each file says of the value, the one that counts first."""
    objects = 0
    for layer in layers:
        value: Any = layer.values
        depth = 0
        while depth < len(keys) and isinstance(value, dict) and keys[depth] in value:
            value = cast("dict[str | int, Any]", value)[keys[depth]]
            depth += 1
        if depth < len(keys) and isinstance(value, dict):
            objects = max(objects, depth)
            continue
        if depth < len(keys) and depth <= objects:
            return  # a short form of something that a file above writes in full: replaced as a whole
        if depth < len(keys) and value != whole:
            return  # a short form, which leaves this part of it as it is by default
        position = layer.keys.get(keys[:depth]) or layer.positions[keys[:depth]]
        yield position.text(project), value
