"""Formats of generated secrets."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from ...runtime.common.errors import ConfigError
from .base import UNKNOWN, Properties

_UPPER = string.ascii_uppercase + string.digits
SECRET_DEFAULTS: Final[Mapping[str, Any]] = {"format": "token"}


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


# lakeFS generates its own keys in these two formats: 20 upper-case characters, and 40 characters of base64.
FORMATS: Final[Mapping[str, Callable[[], str]]] = {
    "token": lambda: secrets.token_urlsafe(32),
    "lakefs-key-id": lambda: f"AKIAJ{_random(_UPPER, 14)}Q",
    "lakefs-secret": lambda: _random(string.ascii_letters + string.digits, 40),
    "ed25519": lambda: _verdicts().generate_signing_key(),
}
"""Format -> generator of a secret."""

PRIVATE_KEY: Final = "ed25519"
"""The format of private keys."""


def public_part(inputs: Properties, value: str) -> Properties:
    """Return the output `public` of a private key with the value `value`; nothing for other formats."""
    return {"public": _verdicts().public_key(value)} if inputs["format"] == PRIVATE_KEY else {}


def _verdicts() -> ModuleType:
    # Most calls of the provider do not need it, and its imports take a while.
    from ...runtime.common import verdicts

    return verdicts


def check_secret(inputs: Properties) -> Properties:
    """Return the inputs of a secret.

    Raises:
        ConfigError: there is no such format, or the given value is empty.
    """
    if inputs["format"] is not UNKNOWN and inputs["format"] not in FORMATS:
        raise ConfigError("no such format", field="format", value=inputs["format"], hint=f"use {', '.join(FORMATS)}")
    value = inputs.get("value")
    if value is not None and value is not UNKNOWN and (not isinstance(value, str) or not value.strip()):
        raise ConfigError("the secret is empty", field="value")
    return inputs
