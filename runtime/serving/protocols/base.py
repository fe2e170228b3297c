"""The types that every serving protocol shares: request, result, response, decoder, protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ..inference.batch import Batch, Outputs

if TYPE_CHECKING:
    from ..settings import LimitSettings
    from ..versions.model import ServedModel


@dataclass(slots=True)
class InferenceRequest:
    """A complete request with its body decompressed.

    Attributes:
        body: the decompressed body.
        content_type: the header as received, empty if absent.
        accept: the header as received, empty if absent.
        headers: all headers, names in lower case.
    """

    body: bytes
    content_type: str = ""
    accept: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class InferenceResult:
    """The model outputs for one request.

    Attributes:
        outputs: one finite value per row.
        model: the version that computed them.
        request_id: our id.
        client_request_id: the client's id, or None.
    """

    outputs: Outputs
    model: ServedModel
    request_id: str
    client_request_id: str | None = None


@dataclass(slots=True)
class EncodedResponse:
    """The body of a response with its headers."""

    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict[str, str])


Encoder: TypeAlias = Callable[[InferenceResult], EncodedResponse]


@dataclass(slots=True)
class DecodedRequest:
    """The rows of a request, and the encoder of its response."""

    batch: Batch
    encode: Encoder


Decoder: TypeAlias = "Callable[[ServedModel, InferenceRequest, LimitSettings], DecodedRequest]"
"""Raises Problem for an invalid request."""


@dataclass(frozen=True)
class InferenceProtocol:
    """One way to request predictions.

    Attributes:
        path: of the POST route; `{model}` stands for the name of the model.
        decode: decodes a request.
    """

    path: str
    decode: Decoder

    def path_of(self, model: str) -> str:
        """Return the path for `model`."""
        return self.path.replace("{model}", model)
