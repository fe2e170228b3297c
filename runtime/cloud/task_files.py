"""The files of a task, as the stack stores them in S3, and writing them before the service starts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from ..common.errors import ConfigError, NotFoundError
from ..common.files import write_private
from ..common.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "TIDEMILL_TASK"
"""Environment variable with the s3:// URL of the task's `TaskFiles`."""

_SECRET = "TIDEMILL_SECRET_"  # noqa: S105 - a prefix of variable names
_PLACEHOLDER = re.compile(r"@\{(secret|bcrypt):([^{}]*)\}")
_BCRYPT_COST = 10


class Store(Settings):
    """A folder that is mirrored to S3."""

    uri: str = Field(pattern=r"^s3://[^/]+/.+$", description="Prefix in S3.")
    use: Literal["keep", "send", "fetch"] = Field(description="Kind of mirror; see `components.targets.aws.stores`.")


class TaskFiles(Settings):
    """The files of one task."""

    config: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Name -> text with placeholders @{secret:NAME} and @{bcrypt:NAME}.",
    )
    secrets: list[str] = Field(default_factory=list[str], description="Secrets that become files.")
    values: list[str] = Field(default_factory=list[str], description="Secrets that appear only in config files.")
    stores: dict[str, Store] = Field(
        default_factory=dict[str, Store], description="Folder below the data folder -> its store."
    )
    versions: dict[str, str] = Field(
        default_factory=dict[str, str], description="Secret -> version of its value; a new version makes a new task."
    )
    owner: int = Field(default=10001, description="User id that owns all files.")


class Place(Settings):
    """An object or prefix in a bucket."""

    bucket: str
    key: str


def place_of(uri: str) -> Place:
    """Return bucket and key of `s3://BUCKET/KEY`.

    >>> place_of("s3://b/a/c.json").key
    'a/c.json'
    """
    parts = urlsplit(uri)
    return Place(bucket=parts.netloc, key=parts.path.lstrip("/"))


def client(service: str) -> Any:
    """Return a client of the AWS `service` with the task's role; it retries throttled requests."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        service,
        config=Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=5, read_timeout=60),
    )


def secret_variable(name: str) -> str:
    """Return the environment variable through which ECS passes the secret `name` to a task.

    >>> secret_variable("lakefs-key-id")
    'TIDEMILL_SECRET_LAKEFS_KEY_ID'
    """
    return _SECRET + re.sub(r"[^A-Z0-9]", "_", name.upper())


def read_files(s3: Any, environ: Mapping[str, str] = os.environ) -> TaskFiles:
    """Return the files of this task.

    Raises:
        NotFoundError: the variable is not set.
        ConfigError: the object does not describe the files of a task.
    """
    uri = environ.get(VARIABLE)
    if not uri:
        raise NotFoundError("not set; this is not a task of a stack", field=VARIABLE)
    place = place_of(uri)
    text = s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
    try:
        return TaskFiles.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{first['msg']} in {uri}", field=where) from None


def write_files(
    files: TaskFiles,
    folder: Path,
    environ: Mapping[str, str] = os.environ,
    *,
    give: Callable[[Path, int], None] | None = None,
) -> None:
    """Write config files and secrets below `folder`, readable only by their owner.

    Args:
        files: the files to write.
        folder: gets the folders `config` and `secrets`.
        environ: contains the secrets.
        give: sets the owner of a path; by default with `chown`.

    Raises:
        NotFoundError: ECS did not pass a secret.
        ConfigError: a secret is empty, or a name leads out of its folder.
    """
    give = give or _give
    values = {name: _secret(name, environ) for name in (*files.secrets, *files.values)}

    def resolved(found: re.Match[str]) -> str:
        if found[2] not in values:
            raise NotFoundError(
                "a config file contains it, but ECS does not pass it to the task", field="secret", value=found[2]
            )
        return values[found[2]] if found[1] == "secret" else _bcrypt(values[found[2]])

    texts = {Path("config") / name: _PLACEHOLDER.sub(resolved, text) for name, text in files.config.items()}
    texts |= {Path("secrets") / name: values[name] for name in files.secrets}
    for part in ("config", "secrets"):
        (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in texts.items():
        _write(folder, name, text, files.owner, give)
    for path in (folder, *folder.rglob("*")):
        give(path, files.owner)


def _write(folder: Path, name: Path, text: str, owner: int, give: Callable[[Path, int], None]) -> None:
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError("leads out of the folder", field="config", value=str(name))
    write_private(folder / name, text)
    give(folder / name, owner)


def _give(path: Path, owner: int) -> None:
    os.chown(path, owner, owner)


def _secret(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(secret_variable(name))
    if value is None:
        raise NotFoundError("ECS did not pass it to the task", field="secret", value=name)
    if not value.strip():
        raise ConfigError("is empty", field="secret", value=name)
    return value.strip()


def _bcrypt(value: str) -> str:
    import bcrypt

    return bcrypt.hashpw(value.encode(), bcrypt.gensalt(_BCRYPT_COST)).decode()
