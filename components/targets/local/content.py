"""Content on the `local` target: our provider talks to the servers directly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pulumi

from ...layout import StackRoot
from ...provider import resources as native
from ..base import LakeAccess, RegistryAccess, SecretRef

__all__ = ["LocalContent"]


class LocalContent:
    """Makes repositories, experiments, users and permissions through the servers' own interfaces."""

    def __init__(self, stack: str, root: Path) -> None:
        self._stack = stack
        self._root = StackRoot(root)

    def _file(self, secret: SecretRef) -> str:
        return str(self._root.secrets / secret.name)

    def _lake(self, lake: LakeAccess) -> dict[str, pulumi.Input[str]]:
        return {
            "stack": self._stack,
            "url": lake.url,
            "key_id_file": self._file(lake.key_id),
            "secret_file": self._file(lake.secret),
        }

    def _registry(self, registry: RegistryAccess) -> dict[str, pulumi.Input[str]]:
        return {
            "stack": self._stack,
            "url": registry.url,
            "admin": registry.admin,
            "password_file": self._file(registry.password),
        }

    def repository(
        self, name: str, *, lake: LakeAccess, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """A lakeFS repository; holds data, so it is protected."""
        kept = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))
        return native.Repository(
            name, name=name, namespace=namespace, default_branch="main", **self._lake(lake), opts=kept
        )

    def action(
        self,
        name: str,
        *,
        lake: LakeAccess,
        repository: str,
        branch: str,
        path: str,
        content: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> pulumi.Resource:
        """A lakeFS action file, committed on `branch`."""
        return native.Action(
            name, repository=repository, branch=branch, path=path, content=content, **self._lake(lake), opts=opts
        )

    def branch_protection(
        self, name: str, *, lake: LakeAccess, repository: str, branches: Sequence[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """The protected branches of a repository."""
        return native.BranchProtection(
            name, repository=repository, branches=list(branches), **self._lake(lake), opts=opts
        )

    def experiment(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """An MLflow experiment; holds data, so it is protected."""
        kept = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))
        return native.Experiment(name, name=name, **self._registry(registry), opts=kept)

    def registered_model(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """A registered model; holds data, so it is protected."""
        kept = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))
        return native.RegisteredModel(name, name=name, **self._registry(registry), opts=kept)

    def user(
        self, name: str, *, registry: RegistryAccess, password: SecretRef, opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """An MLflow user without any permission of its own."""
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[password.resource]))
        return native.User(
            name,
            username=name,
            user_password_file=self._file(password),
            **self._registry(registry),
            opts=after,
        )

    def permission(
        self,
        name: str,
        *,
        registry: RegistryAccess,
        user: str,
        kind: Literal["experiment", "registered_model"],
        target: str,
        permission: Literal["READ", "EDIT", "MANAGE"],
        opts: pulumi.ResourceOptions,
    ) -> pulumi.Resource:
        """What a user may do with an experiment or a registered model, named by `target`."""
        return native.Permission(
            name,
            username=user,
            kind=kind,
            target=target,
            permission=permission,
            **self._registry(registry),
            opts=opts,
        )
