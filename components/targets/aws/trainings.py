"""Trainings on AWS: a task definition for each model, and what the retraining service may do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pulumi

from ..base import TrainerArgs
from . import permissions
from .core import Core
from .images import Image
from .names import PROJECT, size_of
from .permissions import Statement
from .placeholders import Texts
from .services import Cluster
from .storage import Bucket
from .tasks import Held, Made, Tasks, Work

__all__ = ["Trainings"]

_JOBS = "jobs"
"""The place in the bucket of their records."""

_GROUP = "training"
_BY_ID = "jobs are named by ids which are made when they start"


class Trainings:
    """What trains.

    Args:
        core: what all parts share.
        tasks: what makes task definitions.
        bucket: where records are kept.
        cluster: where they run.
    """

    def __init__(self, core: Core, tasks: Tasks, bucket: Bucket, cluster: Cluster) -> None:
        self._core = core
        self._tasks = tasks
        self._bucket = bucket
        self._cluster = cluster

    def make(
        self, args: TrainerArgs, image: Image, secrets: Mapping[str, Held], opts: pulumi.ResourceOptions
    ) -> dict[str, Made]:
        """Make the task definition of each model."""
        return {
            model: self._tasks.make(
                _name(model),
                Work(
                    image=image,
                    # The retraining service says what is run; by itself the task does nothing.
                    command=["python", "-m", "tidemill.runtime.cloud"],
                    config={"runtime.json": Texts().later(args.runtime)},
                    secrets={secret.name: secrets[secret.name] for secret in args.secrets},
                    statements=self._bucket.arn.apply(_leave_word),
                    writes=True,
                    size=size_of(self._core.settings, "training"),
                    folder=f"{PROJECT}/{PurePosixPath(code)}",
                    group=_GROUP,
                ),
                opts,
            )
            for model, (_, code) in args.trainings.items()
        }

    def launching(self, made: Mapping[str, Made]) -> pulumi.Output[Sequence[Statement]]:
        """Return what the retraining service may do: run these definitions here, and nothing else."""
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
            return [*permissions.launching(**given), *_keep_records(found["bucket"])]

        return known.apply(statements)

    def launcher(
        self, made: Mapping[str, Made], subnets: Sequence[pulumi.Input[str]], groups: Sequence[pulumi.Input[str]]
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


def _leave_word(bucket: str) -> Sequence[Statement]:
    """What a training may do in the bucket: say how it ended."""
    place = f"{bucket}/{_JOBS}/*/exit.json"
    return [Statement(sid="LeaveWord", actions=["s3:PutObject"], resources=[place], reason=_BY_ID)]


def _keep_records(bucket: str) -> Sequence[Statement]:
    """What the retraining service may do in the bucket besides its own store."""
    place, listed = f"{bucket}/{_JOBS}/*", {"StringLike": {"s3:prefix": [f"{_JOBS}/*"]}}
    return [
        Statement(sid="Records", actions=["s3:GetObject", "s3:PutObject"], resources=[place], reason=_BY_ID),
        # Without it S3 does not tell what is not there from what may not be seen.
        Statement(sid="RecordsList", actions=["s3:ListBucket"], resources=[bucket], conditions=listed),
    ]
