"""Settings which several parts of the runtime share, and how a settings file is read.

Secrets stand in files of their own, mode 0600; settings name the files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError, NotFoundError
from .secrets import is_loopback

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "LakeSettings",
    "ListenSettings",
    "PromoteSettings",
    "RegistrySettings",
    "RuntimeModel",
    "RuntimeSettings",
    "ServiceSettings",
    "Settings",
    "load_settings",
    "runtime_settings",
]

ENVIRONMENT_VARIABLE = "TIDEMILL_RUNTIME"


class Settings(BaseModel):
    """Base of all settings models: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


class LakeSettings(Settings):
    """How to reach lakeFS."""

    endpoint: str = Field(description="Base URL of the lakeFS server, without /api/v1.")
    key_id_file: Path = Field(description="File which holds the access key id.")
    secret_file: Path = Field(description="File which holds the secret access key.")


class RegistrySettings(Settings):
    """How to reach MLflow."""

    tracking_uri: str = Field(description="URL of the MLflow server.")
    username: str | None = Field(default=None, description="MLflow user; None where it asks for none.")
    password_file: Path | None = Field(default=None, description="File which holds that user's password.")

    @model_validator(mode="after")
    def _both_or_none(self) -> RegistrySettings:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together; name both or none")
        return self


class PromoteSettings(Settings):
    """The gate before the alias `champion`."""

    metric: str = Field(default="roc_auc", description="Metric of the run which the gate judges, higher is better.")
    at_least: float = Field(default=0.0, description="Floor of that metric.")


class RuntimeModel(Settings):
    """What training code may ask about a model of the stack."""

    data: str = Field(description="Where its data lives: REPOSITORY/REF/PATH in the lake.")
    target: str = Field(description="Name of the target column.")
    promote: PromoteSettings = PromoteSettings()


class RuntimeSettings(Settings):
    """What training code, jobs and the command line need of a running platform."""

    stack: str = Field(description="Stack name, TEAM-ENVIRONMENT.")
    lake: LakeSettings
    registry: RegistrySettings
    models: dict[str, RuntimeModel] = Field(default_factory=dict[str, RuntimeModel])


class ListenSettings(Settings):
    """Where a service listens and which bearer token opens it."""

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    token_file: Path = Field(description="File with the bearer token for everything but /healthz and /readyz.")
    tls_cert_file: Path | None = Field(default=None, description="PEM file with the certificate and its chain.")
    tls_key_file: Path | None = Field(default=None, description="PEM file with its private key.")
    plain_http: bool = Field(
        default=False, description="Listen beyond loopback without TLS, because something before it ends TLS."
    )

    @property
    def tls(self) -> bool:
        """Whether it speaks HTTPS."""
        return self.tls_cert_file is not None

    @model_validator(mode="after")
    def _trusted_way(self) -> ListenSettings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together; name both or none")
        if not (
            self.tls or self.plain_http or is_loopback(f"//[{self.host}]" if ":" in self.host else f"//{self.host}")
        ):
            raise ValueError(
                f"host {self.host} can be reached from elsewhere and keys would cross the network in the clear; "
                "name tls_cert_file and tls_key_file, or set plain_http where TLS ends before this server"
            )
        return self


class ServiceSettings(Settings):
    """Settings of a service which listens; the base of every service's own."""

    listen: ListenSettings


def load_settings(path: Path, model: type[S]) -> S:
    """Read the JSON file `path` as `model`.

    Raises:
        NotFoundError: the file does not exist.
        ConfigError: the file is not JSON, or does not fit the model.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError("no such settings file", field="settings", value=str(path)) from None
    except ValueError as error:
        raise ConfigError(f"not JSON ({error})", field="settings", value=str(path)) from None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{first['msg']} in {path}", field=where, value=first.get("input")) from None


def runtime_settings() -> RuntimeSettings:
    """Return the settings of the platform this process belongs to, from the file TIDEMILL_RUNTIME names.

    Raises:
        NotFoundError: the variable is not set, or names no file.
        ConfigError: the file does not fit.
    """
    path = os.environ.get(ENVIRONMENT_VARIABLE)
    if not path:
        raise NotFoundError(
            "this process does not know its platform",
            field=ENVIRONMENT_VARIABLE,
            hint='run it through `tidemill train`, or first `eval "$(tidemill env)"`',
        )
    return load_settings(Path(path), RuntimeSettings)
