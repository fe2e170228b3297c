"""The typed protocol, `POST /predict`: rows and outputs as JSON objects with the names of the signature."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..codecs.checks import EVENT_TIME, read_event_times
from ..codecs.json_exact import read_records
from ..codecs.json_fast import FastReader
from ..codecs.json_strict import parse_json
from ..codecs.params import read_params
from ..codecs.responses import encode_named_json
from ..contract.field_errors import printable, raise_field_errors
from ..contract.model_contract import Contract
from ..http.content_negotiation import JSON, answer_type, body_type
from ..http.errors import FieldError
from ..inference.batch import Batch
from ..settings import LimitSettings
from .base import DecodedRequest, InferenceProtocol, InferenceRequest

if TYPE_CHECKING:
    from ..versions.model import ServedModel

_TYPES = (JSON,)
# Accept headers that need no parsing.
_ACCEPT_JSON = frozenset({"", "*/*", JSON})


def decode(model: ServedModel, request: InferenceRequest, limits: LimitSettings) -> DecodedRequest:
    """Return the rows of `{"rows": [{"column": value, ...}, ...]}`; optional members are `event_time` and `params`.

    An unknown column is refused, so that a misspelt name is seen.

    Raises:
        Problem: 400, 406, 413, 415 or 422.
    """
    if request.accept not in _ACCEPT_JSON:
        answer_type(request.accept, _TYPES)
    if request.content_type != JSON:
        body_type(request.content_type, _TYPES)
    contract = model.contract
    reader = FastReader.of(contract)
    batch = reader.read_predict(request.body, limits) if reader is not None else None
    if batch is None:
        batch = _read_exactly(contract, request.body, limits)
    return DecodedRequest(contract.columnar_if_large(batch), encode_named_json)


def _read_exactly(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    document = parse_json(body, depth=limits.depth, text=limits.text)
    unknown = [key for key in document if key not in ("rows", EVENT_TIME, "params")]
    message = "unknown key; send rows and optionally event_time and params"
    raise_field_errors([FieldError(printable(key), message) for key in unknown])
    batch = read_records(contract, document.get("rows"), "rows", limits)
    times = read_event_times(document.get(EVENT_TIME), batch.rows)
    return replace(batch, event_times=times, params=read_params(contract, document.get("params")))


PROTOCOL = InferenceProtocol("/predict", decode)
