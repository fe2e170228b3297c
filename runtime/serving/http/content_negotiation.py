"""What a request says it is, and what it wants back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from .errors import Problem

__all__ = ["ARROW", "CSV", "JSON", "OCTETS", "answer_type", "body_type"]

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
OCTETS = "application/octet-stream"
_SHOWN = 100


@lru_cache(maxsize=256)
def body_type(content_type: str, taken: Sequence[str]) -> str:
    """Return which of `taken` a body with the header `content_type` is; without the header the first.

    Raises:
        Problem: 415, it is none of them, or not UTF-8.
    """
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    kind = kind or taken[0]
    if kind not in taken:
        raise Problem(415, f"the body must be {', '.join(taken)}, not {_shown(kind)}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise Problem(415, f"text must be UTF-8, not {_shown(value)}")
    return kind


@lru_cache(maxsize=256)
def answer_type(accept: str, given: Sequence[str]) -> str:
    """Return which of `given` the header `accept` likes best, of equals the first in `given`.

    Raises:
        Problem: 406, it takes none of them.
    """
    liked: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if kind:
            liked[kind] = weight
    if not liked:
        return given[0]

    def weight_of(kind: str) -> float:
        for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if name in liked:
                return liked[name]
        return 0.0

    best = max(given, key=weight_of)
    if not weight_of(best) > 0:
        raise Problem(406, f"answers come as {', '.join(given)}, not as {_shown(accept)}")
    return best


def _shown(text: str) -> str:
    return text[:_SHOWN].encode("ascii", "backslashreplace").decode()
