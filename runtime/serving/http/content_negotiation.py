"""Content negotiation: the media types of a request's body and of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from .errors import Problem

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
OCTETS = "application/octet-stream"
_QUOTED_CHARACTERS = 100


@lru_cache(maxsize=256)
def body_type(content_type: str, supported: Sequence[str]) -> str:
    """Return which of the `supported` types the header `Content-Type` names; the first without the header.

    Raises:
        Problem: 415, the type is not supported, or the text is not UTF-8.
    """
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    kind = kind or supported[0]
    if kind not in supported:
        raise Problem(415, f"the body must be {', '.join(supported)}, not {_quote(kind)}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise Problem(415, f"text must be UTF-8, not {_quote(value)}")
    return kind


@lru_cache(maxsize=256)
def answer_type(accept: str, supported: Sequence[str]) -> str:
    """Return which of the `supported` types the header `Accept` prefers; of equal ones, the first.

    Raises:
        Problem: 406, it accepts none of them.
    """
    weights: dict[str, float] = {}
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
            weights[kind] = weight
    if not weights:
        return supported[0]

    def weight_of(kind: str) -> float:
        for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if name in weights:
                return weights[name]
        return 0.0

    best = max(supported, key=weight_of)
    if not weight_of(best) > 0:
        raise Problem(406, f"answers are {', '.join(supported)}, not {_quote(accept)}")
    return best


def _quote(text: str) -> str:
    return text[:_QUOTED_CHARACTERS].encode("ascii", "backslashreplace").decode()
