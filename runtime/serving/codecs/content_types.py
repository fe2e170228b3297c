"""The content types of MLServer's codecs, in the `content_type` of `parameters`: how the values of a tensor are meant.

The signature decides the type of a column; a content type says only how BYTES are encoded. So `np`, `pd` and `dict`
change nothing, and a content type that does not match the column is accepted if the values fit the signature.
https://mlserver.readthedocs.io/en/latest/user-guide/content-type.html
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..contract.field_errors import invalid_field, printable, show_value
from ..engines.outputs import Answer
from ..http.errors import Problem
from ..inference.batch import Outputs
from ..settings import LimitSettings
from .json_strict import parse_any
from .tensors import BASE64, CONTENT_TYPES, DICT, NUMPY, PANDAS, PANDAS_JSON, TEXT, OutputTensor, Tensor

_NOT_JSON = "the body is not JSON: "
KEY = "content_type"
"""Name of the parameter."""


def read_content_type(parameters: Mapping[str, Any], at: str, default: str = "") -> str:
    """Return the content type in `parameters`, the object at the path `at`; `default` without one.

    Raises:
        Problem: 422: it is unknown.
    """
    given = parameters.get(KEY)
    if given is None or given == "":
        return default
    if given not in CONTENT_TYPES:
        shown = f"unknown content type {printable(given)}" if isinstance(given, str) else f"got {show_value(given)}"
        raise invalid_field(f"{at}.{KEY}", f"{shown}; expected one of {', '.join(CONTENT_TYPES)}")
    return given


def decode_content(tensor: Tensor, content_type: str, limits: LimitSettings) -> Tensor:
    """Return `tensor` with its values decoded as `content_type` says.

    Raises:
        Problem: 422: a value is not encoded so.
    """
    decode: Callable[[Any], Any] | None = None
    if tensor.datatype == "BYTES" and content_type == BASE64:
        decode = _from_base64
    elif tensor.datatype == "BYTES" and content_type == PANDAS_JSON:
        decode = lambda value: _from_json(value, limits)  # noqa: E731 - one of two
    if decode is None:
        return replace(tensor, content_type=content_type)
    values: list[Any] = []
    for index, value in enumerate(tensor.flat):
        try:
            values.append(None if value is None else decode(value))
        except (ValueError, Problem) as error:
            reason = f" ({error.detail.removeprefix(_NOT_JSON)})" if isinstance(error, Problem) else ""
            kind = "base64" if content_type == BASE64 else "JSON"
            raise invalid_field(
                f"{tensor.at}.data[{index}]",
                f"is not {kind}{reason}, as the content type {content_type} says; got {show_value(value)}",
            ) from None
    return replace(tensor, flat=values, content_type=content_type)


def answer_content_type(outputs: Outputs, tensors: Sequence[OutputTensor]) -> str:
    """Return the content type of a whole answer, with which MLServer's clients choose its codec."""
    form = outputs.form if isinstance(outputs, Answer) else ""
    if form in ("mapping", "targets"):
        return DICT
    if form in ("frame", "series") or len(tensors) != 1:
        return PANDAS
    content_type = tensors[0].content_type
    # MLServer has no codec of a whole answer for the others.
    return content_type if content_type in (NUMPY, TEXT) else PANDAS


def _from_base64(value: str | bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _from_json(value: str | bytes, limits: LimitSettings) -> Any:
    return parse_any(value, depth=limits.depth, text=limits.text)
