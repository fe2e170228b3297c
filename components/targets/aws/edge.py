"""Declares the load balancer, through which clients reach public services by TLS, each under its own host name."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ...images.container_layout import PORT
from ...lake import UNPROTECTED_PATHS
from ..base import HealthCheck
from ..options import after
from .core import Core
from .names import priority
from .network import HTTPS, Network

# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html
_TLS = "ELBSecurityPolicy-TLS13-1-2-2021-06"
_METRICS_RULE = 1


@dataclass(frozen=True)
class Entrance:
    """The target of one service in the load balancer.

    Attributes:
        group: its target group.
        rule: the rule that forwards requests to the group.
        url: its URL for clients.
        label: the label of its request count in CloudWatch.
    """

    group: aws.lb.TargetGroup
    rule: aws.lb.ListenerRule
    url: str
    label: pulumi.Output[str]


class Edge(pulumi.ComponentResource):
    """The load balancer with its certificate and DNS names.

    Attributes:
        address: its DNS name; if the config names no zone, the user points `*.DOMAIN` at it.
    """

    address: pulumi.Output[str]

    def __init__(self, name: str, core: Core, network: Network) -> None:
        super().__init__("tidemill:aws:Edge", name, None, None)
        self._core, self._network = core, network
        self._opts = pulumi.ResourceOptions.merge(core.options, pulumi.ResourceOptions(parent=self))
        self._places: set[int] = set()
        self._balancer = aws.lb.LoadBalancer(
            "balancer",
            name=core.names.of("balancer", 32),
            load_balancer_type="application",
            internal=not core.settings.ingress.public,
            subnets=network.edge,
            security_groups=[network.groups.balancer.id],
            drop_invalid_header_fields=True,
            desync_mitigation_mode="strictest",
            enable_deletion_protection=core.production,
            idle_timeout=120,
            tags=core.tags("balancer"),
            opts=after(self._opts, network.ready),
        )
        certificate, validations = self._certificate()
        self._listener = aws.lb.Listener(
            "https",
            load_balancer_arn=self._balancer.arn,
            port=HTTPS,
            protocol="HTTPS",
            ssl_policy=_TLS,
            certificate_arn=certificate,
            default_actions=[self._refuse("no such service")],
            tags=core.tags("https"),
            opts=after(self._opts, validations),
        )
        # Prometheus scrapes inside the network. Every other service requires credentials for its metrics.
        aws.lb.ListenerRule(
            "no-metrics",
            listener_arn=self._listener.arn,
            priority=_METRICS_RULE,
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    path_pattern=aws.lb.ListenerRuleConditionPathPatternArgs(values=[*UNPROTECTED_PATHS])
                )
            ],
            actions=[
                aws.lb.ListenerRuleActionArgs(
                    type="fixed-response",
                    fixed_response=aws.lb.ListenerRuleActionFixedResponseArgs(
                        content_type="text/plain", message_body="not here", status_code="404"
                    ),
                )
            ],
            tags=core.tags("no-metrics"),
            opts=self._opts,
        )
        self.address = self._balancer.dns_name
        if core.settings.zone:
            self._names(core.settings.zone)
        self.register_outputs({"address": self.address})

    def _certificate(self) -> tuple[pulumi.Input[str], list[pulumi.Resource]]:
        core, zone = self._core, self._core.settings.zone
        existing = core.settings.certificate.existing
        if existing:
            return existing, []
        assert zone is not None  # noqa: S101 - `problems` saw to it
        certificate = aws.acm.Certificate(
            "certificate",
            domain_name=f"*.{core.domain}",
            validation_method="DNS",
            tags=core.tags("certificate"),
            opts=self._opts,
        )
        option = certificate.domain_validation_options.apply(lambda found: found[0])
        record = aws.route53.Record(
            "certificate",
            zone_id=zone,
            name=option.apply(lambda one: str(one.resource_record_name)),
            type=option.apply(lambda one: str(one.resource_record_type)),
            records=[option.apply(lambda one: str(one.resource_record_value))],
            ttl=300,
            allow_overwrite=True,
            opts=self._opts,
        )
        validation = aws.acm.CertificateValidation(
            "certificate", certificate_arn=certificate.arn, validation_record_fqdns=[record.fqdn], opts=self._opts
        )
        return validation.certificate_arn, [validation]

    def _names(self, zone: str) -> None:
        aws.route53.Record(
            "names",
            zone_id=zone,
            name=f"*.{self._core.domain}",
            type="A",
            aliases=[
                aws.route53.RecordAliasArgs(
                    name=self._balancer.dns_name, zone_id=self._balancer.zone_id, evaluate_target_health=False
                )
            ],
            opts=self._opts,
        )

    @staticmethod
    def _refuse(text: str) -> aws.lb.ListenerDefaultActionArgs:
        return aws.lb.ListenerDefaultActionArgs(
            type="fixed-response",
            fixed_response=aws.lb.ListenerDefaultActionFixedResponseArgs(
                content_type="text/plain", message_body=text, status_code="404"
            ),
        )

    def entrance(self, name: str, health: HealthCheck, *, drain: int) -> Entrance:
        """Forward requests of clients to the service `name`; `drain` is in seconds."""
        core = self._core
        group = aws.lb.TargetGroup(
            name,
            name=core.names.of(name, 32),
            port=PORT,
            protocol="HTTP",
            target_type="ip",
            vpc_id=self._network.vpc,
            deregistration_delay=drain,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                path=health.path,
                # A service with a password in front of its health check is healthy if it answers 401.
                matcher="200,401" if health.basic else "200",
                interval=15,
                timeout=5,
                healthy_threshold=2,
                unhealthy_threshold=3,
            ),
            tags=core.tags(name),
            opts=self._opts,
        )
        place = priority(name, self._places)
        self._places.add(place)
        rule = aws.lb.ListenerRule(
            name,
            listener_arn=self._listener.arn,
            priority=place,
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    host_header=aws.lb.ListenerRuleConditionHostHeaderArgs(values=[f"{name}.{core.domain}"])
                )
            ],
            actions=[aws.lb.ListenerRuleActionArgs(type="forward", target_group_arn=group.arn)],
            tags=core.tags(name),
            opts=self._opts,
        )
        label = pulumi.Output.concat(self._balancer.arn_suffix, "/", group.arn_suffix)
        return Entrance(group, rule, f"https://{name}.{core.domain}", label)
