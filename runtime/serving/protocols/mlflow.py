"""`/invocations`: MLflow's payloads, and Arrow for large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codecs.answers import ANSWERS, as_json
from ..codecs.arrow import read_arrow
from ..codecs.csv import read_csv
from ..codecs.json_exact import read_document
from ..codecs.json_fast import FastReader
from ..codecs.json_strict import parse_json
from ..contract.model_contract import Contract
from ..http.content_negotiation import ARROW, CSV, JSON, answer_type, body_type
from ..inference.batch import Batch
from ..settings import LimitSettings
from .base import Decoded, Incoming

if TYPE_CHECKING:
    from ..versions.model import ServedModel

__all__ = ["ACCEPTED", "PATH", "decode", "read_json"]

PATH = "/invocations"
ACCEPTED = (JSON, CSV, ARROW)
_ANSWERED = tuple(ANSWERS)
_USUAL = frozenset({"", "*/*", JSON})


def decode(model: ServedModel, incoming: Incoming, limits: LimitSettings) -> Decoded:
    """Return the rows of a request, and how it wants to be answered.

    Raises:
        Problem: 400, 406, 413, 415 or 422.
    """
    accept = incoming.accept
    encode = as_json if accept in _USUAL else ANSWERS[answer_type(accept, _ANSWERED)]
    contract = model.contract
    content_type = incoming.content_type
    kind = JSON if content_type == JSON else body_type(content_type, ACCEPTED)
    if kind == JSON:
        return Decoded(read_json(contract, incoming.body, limits), encode)
    read = read_csv if kind == CSV else read_arrow
    return Decoded(read(contract, incoming.body, limits), encode)


def read_json(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    """Return the rows of `body`, one of MLflow's JSON documents.

    Raises:
        Problem: 400, 413 or 422.
    """
    reader = FastReader.of(contract)
    batch = reader.invocations(body, limits) if reader is not None else None
    if batch is None:
        batch = read_document(contract, parse_json(body, depth=limits.depth, text=limits.text), limits)
    return contract.packed(batch)
