"""What everything of a stack stands on: network, cluster, bucket, load balancer, task definitions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pulumi

from ...provider import resources as native
from .core import Core
from .edge import Edge
from .images import Images
from .metrics import Metrics
from .names import PORT
from .network import Network
from .services import Cluster
from .storage import Bucket
from .tasks import Made, Tasks

__all__ = ["Foundation"]


class Foundation:
    """Each part is made when it is first asked for.

    Args:
        core: what all parts share.
        root: a folder of this machine for what images are built from.
        project: the folder of Pulumi.yaml.
        expiring: store -> days after which what is in it goes.
    """

    def __init__(self, core: Core, *, root: Path, project: Path, expiring: Mapping[str, int]) -> None:
        self.core = core
        self.images = Images(core, project, root / "images")
        self._expiring = expiring

    @cached_property
    def metrics(self) -> Metrics | None:
        """Where metrics are kept, or None where they are not."""
        return None if self.core.settings.metrics.skip else Metrics(self.core)

    @cached_property
    def network(self) -> Network:
        """The VPC with its subnets, endpoints and security groups."""
        settings = self.core.settings
        return Network(
            "network", self.core, database=settings.database.existing is None, metrics=not settings.metrics.skip
        )

    @cached_property
    def cluster(self) -> Cluster:
        """Where tasks run, and the names they have."""
        return Cluster(self.core, self.network)

    @cached_property
    def edge(self) -> Edge:
        """The load balancer; its address is an output of the stack."""
        edge = Edge("edge", self.core, self.network)
        pulumi.export("load_balancer", edge.address)
        return edge

    @cached_property
    def bucket(self) -> Bucket:
        """Where all object stores are."""
        return Bucket(self.core, self._expiring)

    @cached_property
    def tasks(self) -> Tasks:
        """What makes task definitions."""
        return Tasks(self.core, self.bucket, self.images.get("runtime"))

    def url(self, service: str) -> str:
        """Return how the stack's own tasks reach `service`."""
        return f"http://{service}.{self.cluster.zone}:{PORT}"

    def groups(self, *, postgres: bool) -> list[pulumi.Input[str]]:
        """Return the security groups of a task, which reaches Postgres or not."""
        groups = self.network.groups
        return [groups.services.id, *([groups.clients.id] if postgres else [])]

    def run(self, made: Made, *, postgres: bool = False) -> native.TaskInputs:
        """Return how our provider runs a task of `made` once."""
        return native.TaskInputs(
            stack=self.core.names.stack,
            region=self.core.region,
            cluster=self.cluster.arn,
            definition=made.definition.arn,
            subnets=list(self.network.private),
            security_groups=self.groups(postgres=postgres),
            log_group=made.log_group.name,
        )
