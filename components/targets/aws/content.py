"""Content on AWS: tasks inside the network create it, because lakeFS and MLflow cannot be reached from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pulumi

from ...images.container_layout import SECRETS
from ...provider import resources as native
from ..base import Content, LakeAccess, RegistryAccess, SecretRef

__all__ = ["ContentTask", "TaskContent"]

ContentTask = Callable[[str, Sequence[SecretRef]], native.TaskInputs]
"""Returns the inputs of a task that can read the given secrets; the text names the task."""


class TaskContent(Content):
    """Creates content in tasks.

    Args:
        stack: TEAM-ENVIRONMENT.
        task: see `ContentTask`.
        url: returns the URL of the service `lakefs` or `mlflow` inside the network.
    """

    def __init__(self, stack: str, task: ContentTask, url: Callable[[str], str]) -> None:
        self._stack = stack
        self._task = task
        self._url = url

    def _make(
        self, kind: str, name: str, properties: dict[str, Any], task: native.TaskInputs, opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        # Experiments and models have the same names, and all content has one resource type here.
        label = f"{kind.rpartition(':')[2].lower()}-{name}"
        properties = {"stack": self._stack, **properties}
        return native.AwsContent(
            label, name=label, kind=f"tidemill-native:{kind}", properties=properties, opts=opts, **task
        )

    def _lake(
        self, kind: str, name: str, properties: dict[str, Any], lake: LakeAccess, opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        access = {
            "url": self._url("lakefs"),
            "key_id_file": f"{SECRETS}/{lake.key_id.name}",
            "secret_file": f"{SECRETS}/{lake.secret.name}",
        }
        return self._make(kind, name, {**properties, **access}, self._task("lake", [lake.key_id, lake.secret]), opts)

    def _registry(
        self,
        kind: str,
        name: str,
        properties: dict[str, Any],
        registry: RegistryAccess,
        opts: pulumi.ResourceOptions,
        password: SecretRef | None = None,
    ) -> pulumi.Resource:
        access = {
            "url": self._url("mlflow"),
            "admin": registry.admin,
            "password_file": f"{SECRETS}/{registry.password.name}",
        }
        if password is None:
            return self._make(kind, name, {**properties, **access}, self._task("registry", [registry.password]), opts)
        access["user_password_file"] = f"{SECRETS}/{password.name}"
        task = self._task(f"registry-{password.name}", [registry.password, password])
        return self._make(kind, name, {**properties, **access}, task, opts)
