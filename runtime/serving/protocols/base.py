"""What a protocol is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ..inference.batch import Batch, Outputs

if TYPE_CHECKING:
    from ..settings import LimitSettings
    from ..versions.model import ServedModel

__all__ = ["Answered", "Decoded", "Decoder", "Encoded", "Incoming"]


@dataclass(slots=True)
class Incoming:
    """A request, read to its end and unpacked.

    Attributes:
        content_type: the header as it came, empty where there was none.
        accept: likewise.
        headers: all of them, names in lower case.
    """

    body: bytes
    content_type: str = ""
    accept: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Answered:
    """What is said to one request.

    Attributes:
        outputs: one value a row of this request, finite.
        model: the version which gave them.
        request_id: ours.
        client_request_id: the client's, or None.
    """

    outputs: Outputs
    model: ServedModel
    request_id: str
    client_request_id: str | None = None


@dataclass(slots=True)
class Encoded:
    """The body of an answer."""

    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict[str, str])


Encode: TypeAlias = Callable[[Answered], Encoded]


@dataclass(slots=True)
class Decoded:
    """The rows of a request, and how their answer is said."""

    batch: Batch
    encode: Encode


Decoder: TypeAlias = "Callable[[ServedModel, Incoming, LimitSettings], Decoded]"
"""Raises Problem for what cannot be read."""
