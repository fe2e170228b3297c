"""Content on this machine: the provider calls lakeFS and MLflow directly. The target docker uses it, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi

from ...layout import StackRoot
from ...provider import resources as native
from ..base import Content, LakeAccess, RegistryAccess, SecretRef
from ..options import after

__all__ = ["LocalContent"]

_RESOURCES: Mapping[str, Callable[..., pulumi.Resource]] = {
    "lakefs:Repository": native.Repository,
    "lakefs:Action": native.Action,
    "lakefs:BranchProtection": native.BranchProtection,
    "mlflow:Experiment": native.Experiment,
    "mlflow:RegisteredModel": native.RegisteredModel,
    "mlflow:User": native.User,
    "mlflow:Permission": native.Permission,
}


class LocalContent(Content):
    """Creates content through the HTTP interfaces of the servers.

    Args:
        stack: TEAM-ENVIRONMENT.
        root: the stack's folder, with its secrets.
    """

    def __init__(self, stack: str, root: Path) -> None:
        self._stack = stack
        self._root = StackRoot(root)

    def _file(self, secret: SecretRef) -> str:
        return str(self._root.secrets / secret.name)

    def _lake(
        self, kind: str, name: str, properties: dict[str, Any], lake: LakeAccess, opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        access = {"url": lake.url, "key_id_file": self._file(lake.key_id), "secret_file": self._file(lake.secret)}
        return _RESOURCES[kind](name, stack=self._stack, **properties, **access, opts=opts)

    def _registry(
        self,
        kind: str,
        name: str,
        properties: dict[str, Any],
        registry: RegistryAccess,
        opts: pulumi.ResourceOptions,
        password: SecretRef | None = None,
    ) -> pulumi.Resource:
        access = {"url": registry.url, "admin": registry.admin, "password_file": self._file(registry.password)}
        if password:
            properties = {**properties, "user_password_file": self._file(password)}
            opts = after(opts, [password.resource])
        return _RESOURCES[kind](name, stack=self._stack, **properties, **access, opts=opts)
