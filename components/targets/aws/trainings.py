"""Trainings on AWS: a task definition for each model, and the permissions of the retraining service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pulumi

from ...images.catalog import Image
from ...images.container_layout import PROJECT
from ...images.container_placeholders import ContainerPlaceholders
from ..base import TrainerArgs
from . import permissions
from .core import Core
from .names import size_of
from .permissions import Statement
from .services import Cluster
from .storage import Bucket
from .tasks import DeclaredTask, StoredSecret, Tasks, TaskSpec

_JOBS = "jobs"
"""Folder of the records of trainings in the bucket."""

_GROUP = "training"
_BY_ID = "jobs are named by ids which are made when they start"


class Trainings:
    """The trainings of a stack.

    Args:
        core: the stack's shared values.
        tasks: declares task definitions.
        bucket: the bucket with their records.
        cluster: the cluster on which they run.
    """

    def __init__(self, core: Core, tasks: Tasks, bucket: Bucket, cluster: Cluster) -> None:
        self._core = core
        self._tasks = tasks
        self._bucket = bucket
        self._cluster = cluster

    def make(
        self, args: TrainerArgs, image: Image, secrets: Mapping[str, StoredSecret], opts: pulumi.ResourceOptions
    ) -> dict[str, DeclaredTask]:
        """Declare the task definition of each model."""
        return {
            model: self._tasks.make(
                _name(model),
                TaskSpec(
                    image=image,
                    # The retraining service overrides the command.
                    command=["python", "-m", "tidemill.runtime.cloud"],
                    config={"runtime.json": ContainerPlaceholders()(args.runtime)},
                    secrets={secret.name: secrets[secret.name] for secret in args.secrets},
                    statements=self._bucket.arn.apply(_write_exit),
                    writes=True,
                    size=size_of(self._core.settings, "training"),
                    folder=f"{PROJECT}/{PurePosixPath(code)}",
                    group=_GROUP,
                ),
                opts,
            )
            for model, (_, code) in args.trainings.items()
        }

    def launching(self, made: Mapping[str, DeclaredTask]) -> pulumi.Output[Sequence[Statement]]:
        """Return the permissions of the retraining service: to run these definitions on this cluster."""
        core = self._core
        known: pulumi.Output[Any] = pulumi.Output.all(
            cluster=self._cluster.arn,
            families=[core.arn("ecs", f"task-definition/{core.names.of(_name(model), 255)}") for model in made],
            roles=[role for one in made.values() for role in one.roles],
            log_group=self._tasks.log_group(_GROUP).arn,
            tasks=core.arn("ecs", pulumi.Output.concat("task/", self._cluster.name, "/*")),
            bucket=self._bucket.arn,
        )

        def statements(found: Mapping[str, Any]) -> Sequence[Statement]:
            given = {key: value for key, value in found.items() if key != "bucket"}
            return [*permissions.launching(**given), *_use_records(found["bucket"])]

        return known.apply(statements)

    def launcher(
        self,
        made: Mapping[str, DeclaredTask],
        subnets: Sequence[pulumi.Input[str]],
        groups: Sequence[pulumi.Input[str]],
    ) -> dict[str, Any]:
        """Return the settings of `runtime.retraining.jobs.ecs.TaskLauncher`."""
        tags = self._core.tags("training")
        return {
            "kind": "ecs",
            "cluster": self._cluster.arn,
            "definitions": {model: one.definition.arn for model, one in made.items()},
            "subnets": list(subnets),
            "security_groups": list(groups),
            "records": pulumi.Output.concat("s3://", self._bucket.name, f"/{_JOBS}"),
            "log_group": self._tasks.log_group(_GROUP).name,
            "tags": {key: value for key, value in tags.items() if key != "Name"},
        }


def _name(model: str) -> str:
    return f"training-{model}"


def _write_exit(bucket: str) -> Sequence[Statement]:
    """Return the permission of a training to write its exit record."""
    place = f"{bucket}/{_JOBS}/*/exit.json"
    return [Statement(sid="LeaveWord", actions=["s3:PutObject"], resources=[place], reason=_BY_ID)]


def _use_records(bucket: str) -> Sequence[Statement]:
    """Return the permissions of the retraining service on the records of trainings."""
    place, listed = f"{bucket}/{_JOBS}/*", {"StringLike": {"s3:prefix": [f"{_JOBS}/*"]}}
    return [
        Statement(sid="Records", actions=["s3:GetObject", "s3:PutObject"], resources=[place], reason=_BY_ID),
        # Without it, S3 answers 403 instead of 404 for objects that do not exist.
        Statement(sid="RecordsList", actions=["s3:ListBucket"], resources=[bucket], conditions=listed),
    ]
