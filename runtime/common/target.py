"""The contract of a model's target: which labels are valid, as recorded at training.

>>> target = Target(classes=(0.0, 1.0))
>>> target.problem(7.0), target.problem(float("nan")), target.problem(1.0)
('unknown_class', 'not_finite', None)
>>> Target(low=0.0, high=10.0).is_outside(12.0)
True
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

LabelProblem: TypeAlias = Literal["not_a_number", "not_finite", "unknown_class", "disputed"]
"""Why a label is not used. It is disputed if two API keys sent different values."""

METADATA = "tidemill.target"
"""Key of the contract in the metadata of an MLflow model."""

_MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Target:
    """The values of a target at training; empty if they are unknown.

    Attributes:
        classes: the classes of a classifier, in the order of its probabilities; None for other models.
        low, high: the range of a numeric target, or None.
    """

    classes: tuple[float, ...] | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, classes: Any = None, values: Iterable[Any] | None = None) -> Target:
        """Return the contract for the `classes` of a classifier, or else for the `values` of a numeric target.

        Classes and values that are not numbers give an empty contract: labels are numbers.
        """
        if classes is not None:
            found = _numbers(classes)
            return cls(classes=found) if found and len(found) <= _MOST_CLASSES else cls()
        found = _numbers(values) if values is not None else None
        return cls(low=min(found), high=max(found)) if found else cls()

    @classmethod
    def from_json(cls, document: Any) -> Target:
        """Return the contract in the JSON value `document`; an empty one if it holds none."""
        if not isinstance(document, Mapping):
            return cls()
        fields = cast("Mapping[str, Any]", document)
        classes = _numbers(fields["classes"]) if isinstance(fields.get("classes"), list) else None
        low, high = (_number(fields.get(name)) for name in ("low", "high"))
        return cls(classes or None, low, high)

    def to_json(self) -> dict[str, Any]:
        """Return the contract as a JSON object."""
        return {"classes": list(self.classes) if self.classes else None, "low": self.low, "high": self.high}

    @property
    def known(self) -> bool:
        """Whether labels can be checked against it."""
        return self.classes is not None or self.low is not None

    def problem(self, label: float) -> LabelProblem | None:
        """Return why `label` is invalid, or None."""
        if not math.isfinite(label):
            return "not_finite"
        return "unknown_class" if self.classes is not None and label not in self.classes else None

    def is_outside(self, label: float) -> bool:
        """Tell whether `label` is outside the range at training; it may still be right, because targets drift."""
        return self.low is not None and self.high is not None and not self.low <= label <= self.high


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _numbers(values: Any) -> tuple[float, ...] | None:
    """Return `values` as numbers, or None if one of them is not a finite number; text is never a number."""
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    numbers = [None if isinstance(item, (str, bytes, list)) else _number(item) for item in items]
    found = [number for number in numbers if number is not None]
    return tuple(found) if len(found) == len(numbers) else None
