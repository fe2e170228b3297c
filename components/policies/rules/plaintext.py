"""No plaintext secrets in container environments, task environments or build arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..base import UNKNOWN, Finding, Parameter, Resource, Rule, RuleContext
from ..containers import as_mapping, containers_of

_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|PWD|SECRET|TOKEN|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SIGNING_?KEY"
    r"|ENCRYPTION_?KEY|SECRET_?KEY|ACCOUNT_?KEY)(_|$)",
    re.IGNORECASE,
)
# Endings of variables that describe a secret, such as its place, without containing it.
_ABOUT = re.compile(
    r"(_|^)(FILE|FILES|PATH|DIR|FOLDER|ARN|NAME|URL|URI|ENDPOINT|ISSUER|TTL|SECONDS|MINUTES|HOURS|EXPIRY|EXPIRATION"
    r"|LENGTH|ENABLED|ROTATION|HEADER|PREFIX|SUFFIX|TYPE|REGION|MODE|ALGORITHM|VERSION)$",
    re.IGNORECASE,
)
_HARMLESS = re.compile(r"(true|false|yes|no|on|off|none|null|\d*)", re.IGNORECASE)
# A file, or a placeholder that is resolved where the process starts.
_ELSEWHERE = re.compile(r"/\S*|@\{[^{}]*\}|\$\{?\w+\}?|arn:aws[a-z-]*:\S+|file:/\S*")
_VALUES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("an address with a password", re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:(?!@\{|\$\{)[^\s/@]+@", re.IGNORECASE)),
    ("a database password", re.compile(r"(^|[\s;?&])password\s*=\s*(?!@\{|\$\{)[^\s;&]+", re.IGNORECASE)),
    ("an AWS access key", re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")),
    ("a GitHub token", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,})\b")),
    ("a Slack token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}")),
    ("a signed token", re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")),
)
_HINTS: Mapping[str, str] = {
    "env": "put it into a file on a volume and name the file, as `secrets` of a service do",
    "task": "put it into AWS Secrets Manager and name it under `secrets`",
    "build": "pass it under `secrets`, which do not stay in the image",
    "function": "let the function read it from AWS Secrets Manager",
}


@dataclass(frozen=True)
class _Place:
    """An environment, or a similar set of named values."""

    field: str
    values: Mapping[str, Any]
    hint: str
    combined: str
    """The property in which a secret mark covers all values together; empty if each value has its own mark."""


def secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret.

    >>> secret_name("POSTGRES_PASSWORD"), secret_name("POSTGRES_PASSWORD_FILE"), secret_name("TOKENIZERS_PARALLELISM")
    (True, False, False)
    """
    return bool(_NAME.search(name)) and not _ABOUT.search(name)


def secret_value(value: str) -> str | None:
    """Return the kind of secret that `value` looks like, or None.

    >>> secret_value("postgresql://mlflow:hidden@postgres:5432/mlflow")
    'an address with a password'
    """
    return next((kind for kind, pattern in _VALUES if pattern.search(value)), None)


def _places(resource: Resource) -> Iterator[_Place]:
    for container in containers_of(resource):
        task = container.path.startswith("containerDefinitions")
        listed = container.env_path == "envs"
        combined = "containerDefinitions" if task else "envs" if listed else ""
        yield _Place(container.env_path, container.env, _HINTS["task" if task else "env"], combined)
    if resource.type in {"tidemill-native:local:Service", "tidemill-native:local:Job"}:
        yield _Place("env", as_mapping(resource.get("env")), "name the secret under `secretEnv`, or name its file", "")
    elif resource.type in {"docker-build:index:Image", "docker:index/image:Image"}:
        build = "build.args" if resource.type.startswith("docker:") else "buildArgs"
        yield _Place(build, as_mapping(resource.get(build)), _HINTS["build"], "")
    elif resource.type == "aws:lambda/function:Function":
        path = "environment.variables"
        yield _Place(path, as_mapping(resource.get(path)), _HINTS["function"], "")


def _plain(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    allowed = set(context.settings["names"])
    for place in _places(resource):
        marked = False
        if place.combined and resource.holds_secret(place.combined):
            # The secret one is not always known: a secret marks everything that it is joined with.
            marked = True
            yield Finding(place.field, "contains a value that is marked as secret", place.hint)
        for name, value in place.values.items():
            field = f"{place.field}.{name}"
            if not marked and resource.holds_secret(field):
                yield Finding(field, "is marked as secret", place.hint)
            elif not isinstance(value, str) or value is UNKNOWN or _ELSEWHERE.fullmatch(value):
                continue
            elif kind := secret_value(value):
                yield Finding(field, f"contains {kind}", place.hint)
            elif secret_name(name) and name not in allowed and not _HARMLESS.fullmatch(value):
                yield Finding(field, "has the name of a secret", place.hint)


RULES = (
    Rule(
        name="secret-not-in-environment",
        title="Environments and build arguments contain no secrets, by name, by value or by secret mark",
        check_resource=_plain,
        parameters={
            "names": Parameter(
                "Variables that hold no secret despite their name.", {"type": "array", "items": {"type": "string"}}, []
            )
        },
    ),
)
