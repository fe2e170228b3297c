"""Clients of AWS, imported on first use, and their errors."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ....runtime.common.errors import PlatformError, UnreachableError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError


def connect(service: str, region: str) -> Any:
    """Return a client of `service`, with the same credentials that Pulumi's AWS provider finds."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        service,
        region_name=region,
        config=Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10, read_timeout=60),
    )


def error_code(error: ClientError) -> str:
    """Return AWS's code of the error."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


@contextlib.contextmanager
def talking(field: str) -> Generator[None]:
    """Turn the errors of AWS into tidemill's.

    Raises:
        UnreachableError: AWS does not answer, or there are no credentials.
        PlatformError: AWS refuses the request.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        why = str(error.response.get("Error", {}).get("Message", "")).rstrip(".")
        raise PlatformError(f"AWS refuses {error.operation_name} ({error_code(error)}: {why})", field=field) from None
    except BotoCoreError as error:
        raise UnreachableError(f"AWS cannot be reached ({error})", field=field) from None
