"""Writes the settings that connect training code on this machine to a running platform."""

from __future__ import annotations

from pathlib import Path

from ..components.layout import StackRoot
from ..components.settings import SIGNING_KEY, numbered_name
from ..components.targets.operations import Operations
from ..runtime.common.files import write_private
from ..runtime.common.secrets import read_secret
from ..runtime.common.settings import LakeSettings, RegistrySettings, RuntimeModel, RuntimeSettings
from ..runtime.common.verdicts import public_key
from ..runtime.registry.accounts import TRAINING
from .loading import LoadedStack


def runtime_file(loaded: LoadedStack, operations: Operations) -> Path | None:
    """Return the file with the RuntimeSettings for this machine; write it if the target does not.

    Return None if the stack has no model, or if this machine cannot reach its servers or does not have its secrets.
    """
    root = StackRoot.of(loaded.project, loaded.config.stack)
    if loaded.config.spec.host_files:
        path = root.service("retraining") / "config" / "runtime.json"
        return path if path.is_file() else None
    lake, registry = operations.url("lakefs"), operations.url("mlflow")
    files = [operations.secret_file(name) for name in ("lakefs-key-id", "lakefs-secret", f"mlflow-{TRAINING}")]
    key_id, secret, password = files
    if not (loaded.config.models and lake and registry and key_id and secret and password):
        return None
    settings = RuntimeSettings(
        stack=loaded.config.stack,
        lake=LakeSettings(
            endpoint=lake, key_id_file=key_id, secret_file=secret, verdict_keys=_verdict_keys(loaded, operations)
        ),
        registry=RegistrySettings(tracking_uri=registry, username=TRAINING, password_file=password),
        models={
            name: RuntimeModel(data=model.data, target=model.target, promote=model.promote)
            for name, model in loaded.config.models.items()
        },
    )
    path = root.path / "runtime.json"
    write_private(path, settings.model_dump_json(indent=2))
    return path


def _verdict_keys(loaded: LoadedStack, operations: Operations) -> tuple[str, ...]:
    """Return the public keys with which the gate's verdicts are verified."""
    names = [numbered_name(SIGNING_KEY, number) for number in loaded.config.lake.verdict_keys]
    files = [file for name in names if (file := operations.secret_file(name))]
    return tuple(public_key(read_secret(file)) for file in files if file.is_file())
