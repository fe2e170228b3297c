"""Content on AWS: tasks inside the network create it, because lakeFS and MLflow cannot be reached from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pulumi

from ...images.container_layout import SECRETS
from ...provider import resources as native
from ..base import Content, LakeAccess, RegistryAccess, SecretRef, access_properties

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

    def _create(
        self,
        kind: str,
        name: str,
        properties: dict[str, Any],
        access: LakeAccess | RegistryAccess,
        opts: pulumi.ResourceOptions,
        password: SecretRef | None = None,
    ) -> pulumi.Resource:
        if isinstance(access, LakeAccess):
            service, task, secrets = "lakefs", "lake", [access.key_id, access.secret]
        else:
            service, task, secrets = "mlflow", "registry", [access.password]
        if password:
            task, secrets = f"{task}-{password.name}", [*secrets, password]
        # Experiments and models have the same names, and all content has one resource type here.
        label = f"{kind.rpartition(':')[2].lower()}-{name}"
        found = {"stack": self._stack, "url": self._url(service), **properties}
        return native.AwsContent(
            label,
            name=label,
            kind=f"tidemill-native:{kind}",
            properties={**found, **access_properties(access, SECRETS, password)},
            opts=opts,
            **self._task(task, secrets),
        )
