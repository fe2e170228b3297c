"""Services of ECS: their names in the network, their tasks, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ...provider import resources as native
from .core import Core, after
from .definitions import MAIN
from .edge import Entrance
from .names import PORT
from .network import Network
from .tasks import Made

__all__ = ["Cluster", "Running"]

_GRACE_SECONDS = 300
_TTL = 10


@dataclass(frozen=True)
class Running:
    """How a service runs.

    Attributes:
        made: its task definition.
        names: the names it has in the network.
        entrance: what leads clients to it, or None.
        count: how many tasks there are, at least.
        several: whether an old task and a new one may run beside one another.
        scaled: whether its load says how many there are.
        groups: ids of its security groups.
        grace: seconds until it counts as failed.
    """

    made: Made
    names: Sequence[aws.servicediscovery.Service]
    entrance: Entrance | None
    count: int
    several: bool
    scaled: bool
    groups: Sequence[pulumi.Input[str]]
    grace: float


class Cluster:
    """The cluster and the names within the network.

    Attributes:
        arn, name: of the cluster.
        zone: the domain of the network's names.
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
        """Give `name` a place in the network's names, whoever will answer there."""
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
            opts=core.of(opts),
        )

    def service(self, name: str, running: Running, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Run a service, and wait until its tasks are well."""
        core, entrance = self._core, running.entrance
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
        scaled = pulumi.ResourceOptions(ignore_changes=["desiredCount"]) if running.scaled else None
        made = aws.ecs.Service(
            name,
            # A cluster which was brought may hold services of others.
            name=core.names.of(name, 255),
            cluster=self.arn,
            task_definition=running.made.definition.arn,
            desired_count=running.count,
            launch_type="FARGATE",
            platform_version="1.4.0",
            network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(
                subnets=self._network.private, security_groups=running.groups, assign_public_ip=False
            ),
            # The first name alone is ECS's to keep; the others of a service are none so far.
            service_registries=aws.ecs.ServiceServiceRegistriesArgs(registry_arn=running.names[0].arn),
            load_balancers=balanced,
            health_check_grace_period_seconds=int(max(running.grace, _GRACE_SECONDS)) if entrance else None,
            # A state which has one owner has never two, not even while tasks change.
            deployment_minimum_healthy_percent=100 if running.several else 0,
            deployment_maximum_percent=200 if running.several else 100,
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(enable=True, rollback=True),
            enable_ecs_managed_tags=True,
            enable_execute_command=False,
            propagate_tags="SERVICE",
            wait_for_steady_state=True,
            tags={**core.tags(name), "tidemill:tasks": str(running.count)},
            opts=pulumi.ResourceOptions.merge(after(core.of(opts), waits), scaled),
        )
        if not running.scaled or entrance is None:
            return made
        self._scaled(name, running, entrance, made, opts)
        return native.Awake(
            f"awake-{name}",
            name=name,
            stack=core.names.stack,
            region=core.region,
            cluster=self.arn,
            service=made.name,
            at_least=running.count,
            opts=after(opts, [made]),
        )

    def _scaled(
        self, name: str, running: Running, entrance: Entrance, made: aws.ecs.Service, opts: pulumi.ResourceOptions
    ) -> None:
        """Let the number of requests say how many tasks there are."""
        core, scaling = self._core, self._core.settings.scaling
        target = aws.appautoscaling.Target(
            name,
            min_capacity=running.count,
            max_capacity=max(running.count, scaling.at_most),
            resource_id=pulumi.Output.concat("service/", self.name, "/", made.name),
            scalable_dimension="ecs:service:DesiredCount",
            service_namespace="ecs",
            tags=core.tags(name),
            opts=after(core.of(opts), [made]),
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
                # Out at once; in only when the load has been less for a while, since a new task loads its model first.
                scale_out_cooldown=60,
                scale_in_cooldown=300,
            ),
            opts=core.of(opts),
        )
