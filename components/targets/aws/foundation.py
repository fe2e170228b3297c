"""The shared parts of a stack on AWS: network, cluster, bucket, load balancer, task definitions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pulumi

from ...images.container_layout import PORT
from ...provider import resources as native
from .core import Core
from .edge import Edge
from .images import EcrImages
from .metrics import Metrics
from .network import Network
from .services import Cluster
from .storage import Bucket
from .tasks import DeclaredTask, Tasks


class Foundation:
    """Creates each shared part when it is first used.

    Args:
        core: the stack's shared values.
        root: a folder on this machine for build contexts.
        project: the folder of Pulumi.yaml.
        expiring: store -> days after which its objects are deleted.
    """

    def __init__(self, core: Core, *, root: Path, project: Path, expiring: Mapping[str, int]) -> None:
        self.core = core
        self.images = EcrImages(core, project, root / "images")
        self._expiring = expiring

    @cached_property
    def metrics(self) -> Metrics | None:
        """The workspace for metrics, or None if the config skips it."""
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
        """The cluster, and the DNS names of services."""
        return Cluster(self.core, self.network)

    @cached_property
    def edge(self) -> Edge:
        """The load balancer. Its address is an output of the stack."""
        edge = Edge("edge", self.core, self.network)
        pulumi.export("load_balancer", edge.address)
        return edge

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket with all object stores."""
        return Bucket(self.core, self._expiring)

    @cached_property
    def tasks(self) -> Tasks:
        """Declares task definitions."""
        return Tasks(self.core, self.bucket, self.images.get("runtime"))

    def url(self, service: str) -> str:
        """Return the URL of `service` inside the network."""
        return f"http://{service}.{self.cluster.zone}:{PORT}"

    def groups(self, *, postgres: bool) -> list[pulumi.Input[str]]:
        """Return the security groups of a task; `postgres` lets it connect to Postgres."""
        groups = self.network.groups
        return [groups.services.id, *([groups.clients.id] if postgres else [])]

    def run(self, made: DeclaredTask, *, postgres: bool = False) -> native.TaskInputs:
        """Return the inputs with which our provider runs the task `made` once."""
        return native.TaskInputs(
            stack=self.core.names.stack,
            region=self.core.region,
            cluster=self.cluster.arn,
            definition=made.definition.arn,
            subnets=list(self.network.private),
            security_groups=self.groups(postgres=postgres),
            log_group=made.log_group.name,
        )
