"""Content on this machine: the provider calls lakeFS and MLflow directly. The target docker uses it, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi

from ...layout import StackRoot
from ...provider import resources as native
from ..base import Content, LakeAccess, RegistryAccess, SecretRef, access_properties
from ..options import after

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
        self._secrets = StackRoot(root).secrets

    def _create(
        self,
        kind: str,
        name: str,
        properties: dict[str, Any],
        access: LakeAccess | RegistryAccess,
        opts: pulumi.ResourceOptions,
        password: SecretRef | None = None,
    ) -> pulumi.Resource:
        if password:
            opts = after(opts, [password.resource])
        files = access_properties(access, str(self._secrets), password)
        return _RESOURCES[kind](name, stack=self._stack, url=access.url, **properties, **files, opts=opts)
