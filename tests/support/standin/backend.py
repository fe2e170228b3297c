"""A backend for the engine's state which is no folder: a bucket of a server that speaks S3, on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

_BUCKET = "tidemill-state"
_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def shared_state() -> Iterator[dict[str, str]]:
    """Give the variables by which the engine keeps its state in a bucket, which goes with the context."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # Nothing of a developer's own account is asked or used.
        clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        with mock.patch.dict(os.environ, clean | _KEYS, clear=True):
            boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket=_BUCKET)
        query = f"endpoint={host}:{port}&disableSSL=true&s3ForcePathStyle=true&region=us-east-1"
        yield {**_KEYS, "PULUMI_BACKEND_URL": f"s3://{_BUCKET}?{query}", "NO_PROXY": "127.0.0.1,localhost"}
    finally:
        server.stop()
