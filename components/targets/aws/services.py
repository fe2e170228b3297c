"""Declares ECS services: their DNS names, their tasks, and their scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ...images.container_layout import PORT
from ...provider import resources as native
from ..options import after
from .core import Core
from .definitions import MAIN
from .edge import Entrance
from .network import Network
from .tasks import DeclaredTask

_GRACE_SECONDS = 300
_TTL = 10


@dataclass(frozen=True)
class ServiceSpec:
    """An ECS service.

    Attributes:
        task: its task definition.
        names: its DNS names in the network.
        entrance: its target of the load balancer, or None.
        count: the minimum number of tasks.
        several: whether an old and a new task can run at the same time.
        scaled: whether its load decides the number of tasks.
        groups: ids of its security groups.
        grace: seconds until it has failed to start.
    """

    task: DeclaredTask
    names: Sequence[aws.servicediscovery.Service]
    entrance: Entrance | None
    count: int
    several: bool
    scaled: bool
    groups: Sequence[pulumi.Input[str]]
    grace: float


class Cluster:
    """The cluster, and the DNS namespace of its services.

    Attributes:
        arn, name: ARN and name of the cluster.
        zone: the domain of the DNS names.
    """

    arn: pulumi.Output[str]
    name: pulumi.Output[str]
    zone: str

    def __init__(self, core: Core, network: Network) -> None:
        self._core, self._network = core, network
        existing = core.settings.cluster.existing
        if existing:
            self.arn = pulumi.Output.from_input(existing)
            self.name = pulumi.Output.from_input(existing.rpartition("/")[2])
        else:
            cluster = aws.ecs.Cluster(
                "cluster",
                name=core.names.of("cluster", 255),
                settings=[
                    aws.ecs.ClusterSettingArgs(
                        name="containerInsights", value="enabled" if core.production else "disabled"
                    )
                ],
                tags=core.tags("cluster"),
                opts=core.options,
            )
            self.arn, self.name = cluster.arn, cluster.name
        self.zone = f"{core.names.stack}.tidemill.internal"
        self._space = aws.servicediscovery.PrivateDnsNamespace(
            "names",
            name=self.zone,
            vpc=network.vpc,
            description=f"Services of the tidemill stack {core.names.stack}",
            tags=core.tags("names"),
            opts=core.options,
        )

    def named(self, name: str, opts: pulumi.ResourceOptions) -> aws.servicediscovery.Service:
        """Create a DNS name for a service that is declared later."""
        core = self._core
        return aws.servicediscovery.Service(
            name,
            name=name,
            dns_config=aws.servicediscovery.ServiceDnsConfigArgs(
                namespace_id=self._space.id,
                routing_policy="MULTIVALUE",
                dns_records=[aws.servicediscovery.ServiceDnsConfigDnsRecordArgs(type="A", ttl=_TTL)],
            ),
            tags=core.tags(name),
            opts=core.with_provider(opts),
        )

    def service(self, name: str, spec: ServiceSpec, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Declare a service, and wait until its tasks are healthy."""
        core, entrance = self._core, spec.entrance
        balanced = (
            [
                aws.ecs.ServiceLoadBalancerArgs(
                    target_group_arn=entrance.group.arn, container_name=MAIN, container_port=PORT
                )
            ]
            if entrance
            else None
        )
        waits: list[pulumi.Resource] = [*self._network.ready, *([entrance.rule] if entrance else [])]
        scaled = pulumi.ResourceOptions(ignore_changes=["desiredCount"]) if spec.scaled else None
        made = aws.ecs.Service(
            name,
            # An existing cluster can contain other services.
            name=core.names.of(name, 255),
            cluster=self.arn,
            task_definition=spec.task.definition.arn,
            desired_count=spec.count,
            launch_type="FARGATE",
            platform_version="1.4.0",
            network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(
                subnets=self._network.private, security_groups=spec.groups, assign_public_ip=False
            ),
            # ECS maintains only the first name. No service has more than one so far.
            service_registries=aws.ecs.ServiceServiceRegistriesArgs(registry_arn=spec.names[0].arn),
            load_balancers=balanced,
            health_check_grace_period_seconds=int(max(spec.grace, _GRACE_SECONDS)) if entrance else None,
            # State with a single owner must never have two, not even during a deployment.
            deployment_minimum_healthy_percent=100 if spec.several else 0,
            deployment_maximum_percent=200 if spec.several else 100,
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(enable=True, rollback=True),
            enable_ecs_managed_tags=True,
            enable_execute_command=False,
            propagate_tags="SERVICE",
            wait_for_steady_state=True,
            tags={**core.tags(name), "tidemill:tasks": str(spec.count)},
            opts=pulumi.ResourceOptions.merge(after(core.with_provider(opts), waits), scaled),
        )
        if not spec.scaled or entrance is None:
            return made
        self._scaled(name, spec, entrance, made, opts)
        return native.Awake(
            f"awake-{name}",
            name=name,
            stack=core.names.stack,
            region=core.region,
            cluster=self.arn,
            service=made.name,
            at_least=spec.count,
            opts=after(opts, [made]),
        )

    def _scaled(
        self, name: str, spec: ServiceSpec, entrance: Entrance, made: aws.ecs.Service, opts: pulumi.ResourceOptions
    ) -> None:
        """Scale the number of tasks by the number of requests."""
        core, scaling = self._core, self._core.settings.scaling
        target = aws.appautoscaling.Target(
            name,
            min_capacity=spec.count,
            max_capacity=max(spec.count, scaling.at_most),
            resource_id=pulumi.Output.concat("service/", self.name, "/", made.name),
            scalable_dimension="ecs:service:DesiredCount",
            service_namespace="ecs",
            tags=core.tags(name),
            opts=after(core.with_provider(opts), [made]),
        )
        metric = aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationPredefinedMetricSpecificationArgs
        aws.appautoscaling.Policy(
            name,
            name=core.names.of(name, 255),
            policy_type="TargetTrackingScaling",
            resource_id=target.resource_id,
            scalable_dimension=target.scalable_dimension,
            service_namespace=target.service_namespace,
            target_tracking_scaling_policy_configuration=aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs(
                predefined_metric_specification=metric(
                    predefined_metric_type="ALBRequestCountPerTarget", resource_label=entrance.label
                ),
                target_value=float(scaling.requests_per_minute),
                # Scale out immediately. Scale in slowly, because a new task must load its model first.
                scale_out_cooldown=60,
                scale_in_cooldown=300,
            ),
            opts=core.with_provider(opts),
        )
