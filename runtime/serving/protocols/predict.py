"""`/predict`: rows as objects with the signature's own names and types, and outputs with theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codecs.answers import as_named_json
from ..codecs.json_exact import read_event_times, read_records
from ..codecs.json_fast import FastReader
from ..codecs.json_strict import named, parse_json, refuse
from ..contract.model_contract import Contract
from ..http.content_negotiation import JSON, answer_type, body_type
from ..http.errors import FieldError
from ..inference.batch import Batch
from ..settings import LimitSettings
from .base import Decoded, Incoming

if TYPE_CHECKING:
    from ..versions.model import ServedModel

__all__ = ["PATH", "decode"]

PATH = "/predict"
_TYPES = (JSON,)
_USUAL = frozenset({"", "*/*", JSON})


def decode(model: ServedModel, incoming: Incoming, limits: LimitSettings) -> Decoded:
    """Return the rows of `{"rows": [{"column": value, ...}, ...]}`, with `event_time` besides where it is given.

    Raises:
        Problem: 400, 406, 413, 415 or 422.
    """
    if incoming.accept not in _USUAL:
        answer_type(incoming.accept, _TYPES)
    if incoming.content_type != JSON:
        body_type(incoming.content_type, _TYPES)
    contract = model.contract
    reader = FastReader.of(contract)
    batch = reader.rows(incoming.body, limits) if reader is not None else None
    if batch is None:
        batch = _exactly(contract, incoming.body, limits)
    return Decoded(contract.packed(batch), as_named_json)


def _exactly(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    document = parse_json(body, depth=limits.depth, text=limits.text)
    unknown = [key for key in document if key not in ("rows", "event_time")]
    refuse([FieldError(named(key), "unknown key; send rows, and event_time where it is known") for key in unknown])
    rows = read_records(contract, document.get("rows"), "rows", limits)
    return Batch(len(rows), rows, read_event_times(document.get("event_time"), len(rows)))
