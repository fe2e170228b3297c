"""Calls a model server with KServe's `InferenceRESTClient`.

Reads {"url", "key", "model", "columns"} from standard input and prints what the client returned. Runs in KServe's own
environment.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

GIVEN = json.load(sys.stdin)
URL, MODEL = GIVEN["url"], GIVEN["model"]
HEADERS = {"Authorization": f"Bearer {GIVEN['key']}"}


def inputs(*, binary: bool) -> list[InferInput]:
    given = []
    for name, (datatype, values) in GIVEN["columns"].items():
        array = np.array(values, dtype=object if datatype == "BYTES" else None).reshape(-1, 1)
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        given.append(tensor)
    return given


async def main() -> dict:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    with_password = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, auth=httpx.BasicAuth("any", GIVEN["key"])))
    found: dict = {
        "live": await client.is_server_live(URL),
        "ready": await client.is_server_ready(URL),
        "model_ready": await client.is_model_ready(URL, MODEL, headers=HEADERS),
        "answers": [],
    }
    for binary in (False, True):
        for options in ({}, {"binary_data_output": binary}):
            request = InferRequest(MODEL, inputs(binary=binary), request_id="mine", parameters=options)
            response = await client.infer(URL, request, model_name=MODEL, headers=dict(HEADERS))
            output = response.outputs[0]
            found["answers"].append([response.id, response.model_name, output.name, output.as_numpy().tolist()])
    response = await with_password.infer(URL, InferRequest(MODEL, inputs(binary=False)), model_name=MODEL)
    found["answers"].append(["mine", response.model_name, response.outputs[0].name, response.outputs[0].data])
    for headers, request in (({}, InferRequest(MODEL, inputs(binary=False))), (HEADERS, {"inputs": []})):
        try:
            await client.infer(URL, request, model_name=MODEL, headers=dict(headers))
        except httpx.HTTPStatusError as error:
            found.setdefault("errors", []).append([error.response.status_code, str(error)])
    return found


print(json.dumps(asyncio.run(main())))
