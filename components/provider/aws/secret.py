"""SecretValue: the value of a secret in Secrets Manager. A generated value stays in AWS."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired

from ..base import Context, Diff, Named, NativeResource, Properties, without
from ..secret_formats import FORMATS, PRIVATE_KEY, SECRET_DEFAULTS, check_secret, public_part
from .client import connect, error_code, talking

if TYPE_CHECKING:
    from ..base import Text

_CURRENT = "AWSCURRENT"


class SecretValueInputs(Named):
    """Inputs of a secret's value; `secret` is the ARN of the secret."""

    stack: Text
    region: Text
    secret: Text
    format: NotRequired[Text]
    value: NotRequired[Text | None]


class SecretValue(NativeResource, inputs=SecretValueInputs):
    """The given value of a secret, or a random one that is generated once and kept.

    Outputs: `version`, which tells readers that the value has changed, and `public`, the public key of a private key. A
    generated value is neither in the state nor on this machine.
    """

    token: ClassVar[str] = "tidemill-native:aws:SecretValue"
    defaults: ClassVar[Mapping[str, Any]] = SECRET_DEFAULTS
    outputs: ClassVar[tuple[str, ...]] = ("version", "public")
    secret_inputs: ClassVar[frozenset[str]] = frozenset({"value"})
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "secret", "format")
    holds_data: ClassVar[bool] = True

    def check(self, inputs: Properties) -> Properties:
        """Check the format, and that a given value is not empty."""
        return check_secret(super().check(inputs))

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a value that was changed in AWS differs only from a given value."""
        found = super().diff(context, state, inputs)
        return found.adding("value") if inputs.get("value") and state.get("strange") else found

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Write the value, or adopt the existing one."""
        client = connect("secretsmanager", str(inputs["region"]))
        with talking(str(inputs["name"])):
            version = _current(client, str(inputs["secret"]))
            if version is None or inputs.get("value"):
                version = _put(client, inputs, version or "")
            public: Properties = {}
            if inputs["format"] == PRIVATE_KEY:
                found = client.get_secret_value(SecretId=str(inputs["secret"]), VersionId=version)
                public = public_part(inputs, str(found["SecretString"]))
        return str(inputs["name"]), {**inputs, "version": version, **public}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state with the current version, with `missing` when there is none."""
        client = connect("secretsmanager", str(state["region"]))
        plain = without(state, "missing", "strange")
        with talking(str(state["name"])):
            version = _current(client, str(state["secret"]))
        if version is None:
            return {**plain, "missing": True}
        strange = {"strange": True} if version != state.get("version") else {}
        return {**plain, "version": version, **strange}

    def delete(self, context: Context, state: Properties) -> None:
        """Do nothing: the value is deleted with its secret."""


def _current(client: Any, secret: str) -> str | None:
    """Return the version of the current value, or None if there is none."""
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
        # The token makes a repeated request harmless after an interruption.
        token = hashlib.sha256(f"{inputs['secret']}\0{after}\0{given}".encode()).hexdigest()
        done = client.put_secret_value(SecretId=inputs["secret"], SecretString=str(given), ClientRequestToken=token)
    else:
        done = client.put_secret_value(SecretId=inputs["secret"], SecretString=FORMATS[str(inputs["format"])]())
    return str(done["VersionId"])
