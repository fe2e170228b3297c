"""Calls a model server with requests that MLServer's codecs encode, and decodes the answers with them.

Reads {"url", "key", "calls"} from standard input and prints what each call returned. Runs in an environment with
MLServer.
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from datetime import datetime

import numpy as np
import pandas as pd
from mlserver.codecs import (
    Base64Codec,
    DatetimeCodec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
    StringRequestCodec,
)
from mlserver.codecs.base import find_input_codec, find_request_codec
from mlserver.types import InferenceRequest, InferenceResponse

GIVEN = json.load(sys.stdin)


def infer(path: str, request: InferenceRequest) -> InferenceResponse:
    """Send a request as MLServer's own client does."""
    headers = {"Authorization": f"Bearer {GIVEN['key']}", "Content-Type": "application/json"}
    body = request.model_dump_json(exclude_none=False).encode()
    call = urllib.request.Request(GIVEN["url"] + path, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(call, timeout=60) as answer:
        return InferenceResponse.model_validate_json(answer.read())


def frame_of(call: dict) -> pd.DataFrame:
    frame = pd.DataFrame(call["columns"])
    return frame.astype(call.get("dtypes", {}))


def request_of(call: dict) -> InferenceRequest:
    codec = call["codec"]
    if codec == "pd":
        request = PandasCodec.encode_request(frame_of(call), use_bytes=call["use_bytes"])
        for name, texts in call.get("base64", {}).items():
            values = [base64.b64decode(text) for text in texts]
            request.inputs.append(Base64Codec.encode_input(name, values, use_bytes=call["use_bytes"]))
        for name, texts in call.get("datetime", {}).items():
            moments = [datetime.fromisoformat(text) for text in texts]
            request.inputs.append(DatetimeCodec.encode_input(name, moments, use_bytes=call["use_bytes"]))
        return request
    if codec == "np":
        return NumpyRequestCodec.encode_request(np.array(call["array"], call["dtype"]))
    if codec == "str":
        return StringRequestCodec.encode_request(call["texts"], use_bytes=call["use_bytes"])
    inputs = [
        NumpyCodec.encode_input(name, np.array(values))
        if not isinstance(values[0], str)
        else StringCodec.encode_input(name, values, use_bytes=call["use_bytes"])
        for name, values in call["columns"].items()
    ]
    return InferenceRequest(inputs=inputs)


def plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": list(value.shape), "values": value.tolist()}
    if isinstance(value, pd.DataFrame):
        return {
            "dtypes": {name: str(kind) for name, kind in value.dtypes.items()},
            "rows": json.loads(value.to_json(orient="records")),
        }
    return [each.isoformat() if isinstance(each, datetime) else each for each in value]


def decoded(response: InferenceResponse) -> dict:
    """Decode an answer by its own content types, and by `PandasCodec`."""
    whole = find_request_codec(response.parameters.content_type)
    outputs = {}
    for output in response.outputs:
        codec = find_input_codec(output.parameters.content_type) if output.parameters else None
        outputs[output.name] = plain(codec.decode_output(output)) if codec else None
    return {
        "content_type": response.parameters.content_type,
        "whole": plain(whole.decode_response(response)),
        "outputs": outputs,
    }


print(json.dumps([decoded(infer(call["path"], request_of(call))) for call in GIVEN["calls"]]))
