"""Content on AWS: a task within the network makes it, since nobody outside reaches lakeFS and MLflow there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pulumi

from ...provider import resources as native
from ..base import LakeAccess, RegistryAccess, SecretRef
from .names import SECRETS

__all__ = ["TaskContent", "Tasked"]

Tasked = Callable[[str, Sequence[SecretRef]], native.TaskInputs]
"""Gives how a task is run which may read the given secrets."""


class TaskContent:
    """Makes repositories, experiments, users and permissions by tasks.

    Args:
        stack: TEAM-ENVIRONMENT.
        tasked: see `Tasked`.
        url: returns how a task reaches the service `lakefs` or `mlflow`.
    """

    def __init__(self, stack: str, tasked: Tasked, url: Callable[[str], str]) -> None:
        self._stack = stack
        self._tasked = tasked
        self._url = url

    def _make(
        self,
        name: str,
        kind: str,
        task: native.TaskInputs,
        properties: Mapping[str, Any],
        opts: pulumi.ResourceOptions,
        *,
        keeps: bool = False,
    ) -> pulumi.Resource:
        if keeps:
            opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))
        # Names of experiments and models are the same, and a resource's type is part of what tells it apart.
        label = f"{kind.rpartition(':')[2].lower()}-{name}"
        properties = {"stack": self._stack, **properties}
        return native.AwsContent(
            label, name=label, kind=f"tidemill-native:{kind}", properties=properties, opts=opts, **task
        )

    def _lake(self, lake: LakeAccess) -> tuple[native.TaskInputs, dict[str, Any]]:
        return self._tasked("lake", [lake.key_id, lake.secret]), {
            "url": self._url("lakefs"),
            "key_id_file": f"{SECRETS}/{lake.key_id.name}",
            "secret_file": f"{SECRETS}/{lake.secret.name}",
        }

    def _registry(self, registry: RegistryAccess, *more: SecretRef) -> tuple[native.TaskInputs, dict[str, Any]]:
        label = "-".join(["registry", *(secret.name for secret in more)])
        return self._tasked(label, [registry.password, *more]), {
            "url": self._url("mlflow"),
            "admin": registry.admin,
            "password_file": f"{SECRETS}/{registry.password.name}",
        }

    def repository(
        self, name: str, *, lake: LakeAccess, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """A lakeFS repository; holds data, so it is protected."""
        task, access = self._lake(lake)
        properties = {"name": name, "namespace": namespace, "default_branch": "main", **access}
        return self._make(name, "lakefs:Repository", task, properties, opts, keeps=True)

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
        task, access = self._lake(lake)
        properties = {"repository": repository, "branch": branch, "path": path, "content": content, **access}
        return self._make(name, "lakefs:Action", task, properties, opts)

    def branch_protection(
        self, name: str, *, lake: LakeAccess, repository: str, branches: Sequence[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """The protected branches of a repository."""
        task, access = self._lake(lake)
        properties = {"repository": repository, "branches": list(branches), **access}
        return self._make(name, "lakefs:BranchProtection", task, properties, opts)

    def experiment(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """An MLflow experiment; holds data, so it is protected."""
        task, access = self._registry(registry)
        return self._make(name, "mlflow:Experiment", task, {"name": name, **access}, opts, keeps=True)

    def registered_model(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """A registered model; holds data, so it is protected."""
        task, access = self._registry(registry)
        return self._make(name, "mlflow:RegisteredModel", task, {"name": name, **access}, opts, keeps=True)

    def user(
        self, name: str, *, registry: RegistryAccess, password: SecretRef, opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """An MLflow user without any permission of its own."""
        task, access = self._registry(registry, password)
        properties = {"username": name, "user_password_file": f"{SECRETS}/{password.name}", **access}
        return self._make(name, "mlflow:User", task, properties, opts)

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
        task, access = self._registry(registry)
        properties = {"username": user, "kind": kind, "target": target, "permission": permission, **access}
        return self._make(name, "mlflow:Permission", task, properties, opts)
