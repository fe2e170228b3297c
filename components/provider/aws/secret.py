"""SecretValue: what is in a secret of Secrets Manager. A generated one never leaves AWS again but to its readers."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from ..base import Context, Diff, NativeResource, Properties
from ..secret_formats import FORMATS, check_secret
from .client import connect, error_code, talking

__all__ = ["SecretValue"]

_CURRENT = "AWSCURRENT"


class SecretValue(NativeResource):
    """The value of a secret: the given one, or a random one which is made once and kept.

    State beside the inputs: `version`, by which readers see that it is another one. A generated value is neither in the
    state nor on this machine.
    """

    token: ClassVar[str] = "tidemill-native:aws:SecretValue"
    required: ClassVar[tuple[str, ...]] = ("stack", "name", "region", "secret")
    optional: ClassVar[tuple[str, ...]] = ("format", "value")
    outputs: ClassVar[tuple[str, ...]] = ("version",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "secret", "format")
    holds_data: ClassVar[bool] = True

    def check(self, inputs: Properties) -> Properties:
        """Check the format, and that a given value is not empty."""
        return check_secret(super().check(inputs))

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a value which was changed in AWS by somebody is no change, as long as none is given."""
        found = super().diff(context, state, inputs)
        if inputs.get("value") and state.get("strange"):
            return Diff((*found.changes, "value"), found.replaces)
        return found

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Put the value there, or adopt the one which is there."""
        del context
        client = connect("secretsmanager", str(inputs["region"]))
        with talking(str(inputs["name"])):
            version = _current(client, str(inputs["secret"]))
            if version is None or inputs.get("value"):
                version = _put(client, inputs, version or "")
        return str(inputs["name"]), {**inputs, "version": version}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell whether there is a value, and which version."""
        del context
        client = connect("secretsmanager", str(state["region"]))
        plain = {key: value for key, value in state.items() if key not in {"missing", "strange"}}
        with talking(str(state["name"])):
            version = _current(client, str(state["secret"]))
        if version is None:
            return {**plain, "missing": True}
        strange = {"strange": True} if version != state.get("version") else {}
        return {**plain, "version": version, **strange}

    def delete(self, context: Context, state: Properties) -> None:
        """Do nothing: it goes with its secret."""


def _current(client: Any, secret: str) -> str | None:
    """Return the version of the current value, or None where there is none."""
    from botocore.exceptions import ClientError

    try:
        found = client.describe_secret(SecretId=secret)
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            return None
        raise
    if found.get("DeletedDate"):
        return None
    stages: dict[str, list[str]] = found.get("VersionIdsToStages") or {}
    return next((version for version, names in stages.items() if _CURRENT in names), None)


def _put(client: Any, inputs: Properties, after: str) -> str:
    given = inputs.get("value")
    if given:
        # The same value after the same one is the same version: what was interrupted is not done twice.
        token = hashlib.sha256(f"{inputs['secret']}\0{after}\0{given}".encode()).hexdigest()
        done = client.put_secret_value(SecretId=inputs["secret"], SecretString=str(given), ClientRequestToken=token)
    else:
        done = client.put_secret_value(SecretId=inputs["secret"], SecretString=FORMATS[str(inputs["format"])]())
    return str(done["VersionId"])
