"""The inference parameters of a model version: their checks and defaults, as its signature defines them.

The values stay JSON values: MLflow converts them when it calls the model, also in the model's own process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from .columns import EXPECTED, InvalidValueError, convert_json, convert_scalar, parse_moment
from .field_errors import printable, show_value

_KINDS = frozenset({"boolean", "integer", "long", "float", "double", "string", "datetime", "object"})
_DATE = len("2024-05-01")


@dataclass(frozen=True)
class Param:
    """One inference parameter.

    Attributes:
        kind: its type in the signature, or that of its items.
        default: the value that the model gets if a request has none.
        is_list: whether it is a list of values.
        spec: of an object, its type in MLflow's notation.
    """

    name: str
    kind: str
    default: Any = field(default=None, hash=False)
    is_list: bool = False
    spec: Mapping[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Param:
        """Return the parameter in MLflow's notation.

        Raises:
            ValueError: its type is unsupported.
        """
        name, kind, shape = str(document["name"]), document.get("type") or document.get("dtype"), document.get("shape")
        if kind not in _KINDS or (shape is not None and tuple(shape) != (-1,)):
            raise ValueError(f"the parameter {name!r} has the unsupported type {kind} of shape {shape}")
        spec = {"type": kind, "properties": document["properties"]} if kind == "object" else None
        return cls(name, kind, document["default"], shape is not None, spec)

    def to_json(self) -> dict[str, Any]:
        """Return the parameter in MLflow's notation."""
        document = {"name": self.name, "type": self.kind, "default": self.default}
        return {**document, "shape": [-1] if self.is_list else None, **(self.spec or {})}

    @property
    def expected(self) -> str:
        """The expected type, for error messages."""
        one = "an object" if self.kind == "object" else f"{EXPECTED[self.kind]} ({self.kind})"
        return f"a list, each item {one}" if self.is_list else one

    def convert(self, value: Any) -> Any:
        """Return `value`, parsed from JSON, as the model gets it.

        Raises:
            InvalidValueError: it is invalid.
        """
        if not self.is_list:
            return self._convert(value, printable(self.name))
        if not isinstance(value, list):
            raise InvalidValueError(f"{printable(self.name)} must be {self.expected}, got {show_value(value)}")
        items = cast("list[Any]", value)
        return [self._convert(item, f"{printable(self.name)}[{at}]") for at, item in enumerate(items)]

    def _convert(self, value: Any, name: str) -> Any:
        if self.spec is not None:
            return convert_json(value, self.spec, name)
        if value is None:
            return None
        if self.kind == "datetime":
            moment = parse_moment(value, name)
            return value if len(value) == _DATE else moment.replace(tzinfo=None).isoformat()
        return convert_scalar(self.kind, value, name, f"{EXPECTED[self.kind]} ({self.kind})")


def params_of(documents: Sequence[Mapping[str, Any]] | None) -> tuple[Param, ...] | None:
    """Return the parameters of a signature in MLflow's notation; None if it defines none."""
    return None if documents is None else tuple(Param.of(document) for document in documents)
