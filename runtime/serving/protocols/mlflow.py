"""The MLflow protocol, `POST /invocations`: MLflow's JSON and CSV payloads, and Arrow for large requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codecs.arrow import read_arrow
from ..codecs.csv import read_csv
from ..codecs.json_exact import read_document
from ..codecs.json_fast import FastReader
from ..codecs.json_strict import parse_json
from ..codecs.responses import ENCODERS, encode_json
from ..contract.model_contract import Contract
from ..http.content_negotiation import ARROW, CSV, JSON, answer_type, body_type
from ..inference.batch import Batch
from ..settings import LimitSettings
from .base import DecodedRequest, InferenceProtocol, InferenceRequest

if TYPE_CHECKING:
    from ..versions.model import ServedModel

_REQUEST_TYPES = (JSON, CSV, ARROW)
_RESPONSE_TYPES = tuple(ENCODERS)
# Accept headers that need no parsing.
_ACCEPT_JSON = frozenset({"", "*/*", JSON})


def decode(model: ServedModel, request: InferenceRequest, limits: LimitSettings) -> DecodedRequest:
    """Return the rows of a request and the encoder of the accepted response type.

    Raises:
        Problem: 400, 406, 413, 415 or 422.
    """
    accept = request.accept
    encode = encode_json if accept in _ACCEPT_JSON else ENCODERS[answer_type(accept, _RESPONSE_TYPES)]
    contract = model.contract
    content_type = request.content_type
    kind = JSON if content_type == JSON else body_type(content_type, _REQUEST_TYPES)
    if kind == JSON:
        return DecodedRequest(read_json(contract, request.body, limits), encode)
    read = read_csv if kind == CSV else read_arrow
    return DecodedRequest(read(contract, request.body, limits), encode)


def read_json(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    """Return the rows of `body`, one of MLflow's JSON documents.

    Raises:
        Problem: 400, 413 or 422.
    """
    reader = FastReader.of(contract)
    batch = reader.read_invocations(body, limits) if reader is not None else None
    if batch is None:
        batch = read_document(contract, parse_json(body, depth=limits.depth, text=limits.text), limits)
    return contract.columnar_if_large(batch)


PROTOCOL = InferenceProtocol("/invocations", decode)
