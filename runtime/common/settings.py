"""Settings that several packages share, and the reader of settings files.

Each secret has its own file, mode 0600; settings contain only the file's path.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError, NotFoundError
from .secrets import is_loopback

ENVIRONMENT_VARIABLE = "TIDEMILL_RUNTIME"


class Settings(BaseModel):
    """Base of all settings models: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


class LakeSettings(Settings):
    """The connection to lakeFS."""

    endpoint: str = Field(description="Base URL of the lakeFS server, without /api/v1.")
    key_id_file: Path = Field(description="File with the access key id.")
    secret_file: Path = Field(description="File with the secret access key.")
    verdict_keys: tuple[str, ...] = Field(
        default=(), description="Public keys of the gate, as base64. Readers accept only verdicts signed with them."
    )


class RegistrySettings(Settings):
    """The connection to MLflow."""

    tracking_uri: str = Field(description="URL of the MLflow server.")
    username: str | None = Field(default=None, description="MLflow user; None if the server requires no login.")
    password_file: Path | None = Field(default=None, description="File with the user's password.")

    @model_validator(mode="after")
    def _require_both_or_neither(self) -> RegistrySettings:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("set both username and password_file, or neither")
        return self


class PromoteSettings(Settings):
    """The promotion gate: the requirement for the alias `champion`."""

    metric: str = Field(default="roc_auc", description="Metric of the run that the gate judges; higher is better.")
    at_least: float = Field(default=0.0, description="Minimum value of the metric.")


class RuntimeModel(Settings):
    """The settings of a model that training code can read."""

    data: str = Field(description="Address of its data: REPOSITORY/REF/PATH in the lake.")
    target: str = Field(description="Name of the target column.")
    promote: PromoteSettings = PromoteSettings()


class RuntimeSettings(Settings):
    """The connection of training code, jobs and the command line to a running platform."""

    stack: str = Field(description="Stack name, TEAM-ENVIRONMENT.")
    lake: LakeSettings
    registry: RegistrySettings
    models: dict[str, RuntimeModel] = Field(default_factory=dict[str, RuntimeModel])


class ListenSettings(Settings):
    """A service's address and bearer token."""

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    token_file: Path = Field(description="File with the bearer token for all paths except /healthz and /readyz.")
    hosts: list[str] = Field(
        default_factory=list[str],
        description="More names that clients may use in the Host header, without a port. `localhost` and IP addresses "
        "are always accepted; `*` accepts every name.",
    )
    tls_cert_file: Path | None = Field(default=None, description="PEM file with the certificate and its chain.")
    tls_key_file: Path | None = Field(default=None, description="PEM file with its private key.")
    plain_http: bool = Field(
        default=False, description="Allow plain HTTP beyond loopback, because a proxy in front terminates TLS."
    )

    @property
    def tls(self) -> bool:
        """Whether the service uses HTTPS."""
        return self.tls_cert_file is not None

    @model_validator(mode="after")
    def _require_encryption(self) -> ListenSettings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("set both tls_cert_file and tls_key_file, or neither")
        if not (
            self.tls or self.plain_http or is_loopback(f"//[{self.host}]" if ":" in self.host else f"//{self.host}")
        ):
            raise ValueError(
                f"host {self.host} is reachable from the network, and keys would be sent unencrypted; "
                "set tls_cert_file and tls_key_file, or set plain_http if a proxy terminates TLS"
            )
        return self


class ServiceSettings(Settings):
    """Base of the settings of every service."""

    listen: ListenSettings


def load_settings(path: Path, model: type[S]) -> S:
    """Read the JSON file `path` as `model`.

    Raises:
        NotFoundError: the file does not exist.
        ConfigError: the file is not JSON, or does not match the model.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError("the settings file does not exist", field="settings", value=str(path)) from None
    except ValueError as error:
        raise ConfigError(f"not JSON ({error})", field="settings", value=str(path)) from None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{first['msg']} in {path}", field=where, value=first.get("input")) from None


def runtime_settings() -> RuntimeSettings:
    """Return the settings of this process's platform, from the file in TIDEMILL_RUNTIME.

    Raises:
        NotFoundError: the variable is not set, or its file does not exist.
        ConfigError: the file is invalid.
    """
    path = os.environ.get(ENVIRONMENT_VARIABLE)
    if not path:
        raise NotFoundError(
            "no platform is configured for this process",
            field=ENVIRONMENT_VARIABLE,
            hint='use `tidemill train`, or first run `eval "$(tidemill env)"`',
        )
    return load_settings(Path(path), RuntimeSettings)
