"""Declares the network: a VPC with private subnets, endpoints for AWS services, and security groups.

Only NAT gateways have public addresses, and the load balancer if the config says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

import pulumi
import pulumi_aws as aws

from ...images.container_layout import PORT
from ..options import after
from .core import Core
from .settings import ExistingNetwork, NetworkArgs

HTTPS, POSTGRES = 443, 5432
# AWS services that tasks call. Each endpoint costs per hour and zone.
_INTERFACES = ("ecr.api", "ecr.dkr", "logs", "secretsmanager", "ecs")
_METRICS = "aps-workspaces"
_GATEWAYS = ("s3", "dynamodb")
_SUBNET_BITS = 4


@dataclass(frozen=True)
class Groups:
    """The security groups.

    Attributes:
        balancer: for the load balancer.
        services: for all tasks.
        clients: for tasks that use Postgres, in addition.
        database: for Postgres, if the stack creates it.
    """

    balancer: aws.ec2.SecurityGroup
    services: aws.ec2.SecurityGroup
    clients: aws.ec2.SecurityGroup
    database: aws.ec2.SecurityGroup | None


class Network(pulumi.ComponentResource):
    """A VPC, created or existing.

    Attributes:
        vpc: its id.
        private: ids of the subnets of tasks and database.
        edge: ids of the subnets of the load balancer.
        groups: its security groups.
        ready: resources on which tasks depend.
    """

    vpc: pulumi.Output[str]
    private: Sequence[pulumi.Input[str]]
    edge: Sequence[pulumi.Input[str]]
    groups: Groups
    ready: list[pulumi.Resource]

    def __init__(self, name: str, core: Core, *, database: bool, metrics: bool) -> None:
        super().__init__("tidemill:aws:Network", name, None, None)
        self._core = core
        self._opts = pulumi.ResourceOptions.merge(core.options, pulumi.ResourceOptions(parent=self))
        self.ready = []
        choice = core.settings.network
        self._prefixes: Mapping[str, pulumi.Input[str]] = {}
        self._own: str | None = None
        if choice.existing:
            self._take(choice.existing)
        else:
            self._make(choice.args or NetworkArgs())
        self._open = choice.existing is not None or (choice.args or NetworkArgs()).nat != "none"
        self.groups = self._groups(database)
        if not choice.existing:
            self._endpoints(self.groups, (*_INTERFACES, *((_METRICS,) if metrics else ())))
        self._rules(self.groups)
        self.register_outputs({"vpc": self.vpc})

    def _take(self, existing: ExistingNetwork) -> None:
        """Use an existing VPC. Its owner maintains routes, endpoints and gateways."""
        self.vpc = pulumi.Output.from_input(existing.vpc)
        self.private = existing.private_subnets
        self.edge = existing.public_subnets

    def _make(self, args: NetworkArgs) -> None:
        core, opts = self._core, self._opts
        self._own = args.cidr
        vpc = aws.ec2.Vpc(
            "vpc",
            cidr_block=args.cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=core.tags("vpc"),
            opts=opts,
        )
        self.vpc = vpc.id
        # Resources without an explicit group get this one, which allows no traffic.
        aws.ec2.DefaultSecurityGroup(
            "closed", vpc_id=vpc.id, ingress=[], egress=[], tags=core.tags("closed"), opts=opts
        )
        zones = aws.get_availability_zones_output(state="available", opts=core.invoke_options).names
        blocks = list(ip_network(args.cidr).subnets(prefixlen_diff=_SUBNET_BITS))
        private, edge = [], []
        for index in range(args.zones):
            zone = zones[index]
            for kind, found, block in (("private", private, blocks[index]), ("edge", edge, blocks[args.zones + index])):
                label = f"{kind}-{index}"
                found.append(
                    aws.ec2.Subnet(
                        label,
                        vpc_id=vpc.id,
                        cidr_block=str(block),
                        availability_zone=zone,
                        map_public_ip_on_launch=False,
                        tags=core.tags(label),
                        opts=opts,
                    )
                )
        self._subnets: list[aws.ec2.Subnet] = private
        self.private = [subnet.id for subnet in private]
        self.edge = [subnet.id for subnet in edge]
        self._routes(args, vpc, private, edge)

    def _routes(
        self, args: NetworkArgs, vpc: aws.ec2.Vpc, private: list[aws.ec2.Subnet], edge: list[aws.ec2.Subnet]
    ) -> None:
        core, opts = self._core, self._opts
        outside = args.nat != "none" or core.settings.ingress.public
        edge_table = aws.ec2.RouteTable("edge", vpc_id=vpc.id, tags=core.tags("edge"), opts=opts)
        if outside:
            gateway = aws.ec2.InternetGateway("internet", vpc_id=vpc.id, tags=core.tags("internet"), opts=opts)
            route = aws.ec2.Route(
                "edge-out",
                route_table_id=edge_table.id,
                destination_cidr_block="0.0.0.0/0",
                gateway_id=gateway.id,
                opts=opts,
            )
            self.ready.append(route)
        for index, subnet in enumerate(edge):
            aws.ec2.RouteTableAssociation(f"edge-{index}", subnet_id=subnet.id, route_table_id=edge_table.id, opts=opts)
        gateways: list[aws.ec2.NatGateway] = []
        for index in range({"none": 0, "one": 1, "each": len(edge)}[args.nat]):
            label = f"out-{index}"
            address = aws.ec2.Eip(label, domain="vpc", tags=core.tags(label), opts=after(opts, self.ready))
            gateways.append(
                aws.ec2.NatGateway(
                    label,
                    allocation_id=address.id,
                    subnet_id=edge[index].id,
                    tags=core.tags(label),
                    opts=after(opts, self.ready),
                )
            )
        tables: list[aws.ec2.RouteTable] = []
        for index, subnet in enumerate(private):
            label = f"private-{index}"
            table = aws.ec2.RouteTable(label, vpc_id=vpc.id, tags=core.tags(label), opts=opts)
            tables.append(table)
            aws.ec2.RouteTableAssociation(label, subnet_id=subnet.id, route_table_id=table.id, opts=opts)
            if gateways:
                self.ready.append(
                    aws.ec2.Route(
                        f"{label}-out",
                        route_table_id=table.id,
                        destination_cidr_block="0.0.0.0/0",
                        nat_gateway_id=gateways[min(index, len(gateways) - 1)].id,
                        opts=opts,
                    )
                )
        made = {
            service: aws.ec2.VpcEndpoint(
                service,
                vpc_id=vpc.id,
                service_name=f"com.amazonaws.{core.region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[table.id for table in tables],
                tags=core.tags(service),
                opts=opts,
            )
            for service in _GATEWAYS
        }
        self._prefixes = {service: endpoint.prefix_list_id for service, endpoint in made.items()}
        self.ready += made.values()

    def _endpoints(self, groups: Groups, services: Sequence[str]) -> None:
        """Create endpoints for AWS services: in production in every zone, else in one."""
        core, opts = self._core, self._opts
        group = self._group("endpoints", "Ways to AWS")
        self._ingress("endpoints-services", group, HTTPS, groups.services)
        self._egress("services-endpoints", groups.services, HTTPS, group)
        subnets = self.private if core.production else self.private[:1]
        for service in services:
            made = aws.ec2.VpcEndpoint(
                service,
                vpc_id=self.vpc,
                service_name=f"com.amazonaws.{core.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=subnets,
                security_group_ids=[group.id],
                tags=core.tags(service),
                opts=opts,
            )
            self.ready.append(made)

    def _groups(self, database: bool) -> Groups:
        return Groups(
            balancer=self._group("balancer", "The load balancer, the only way in"),
            services=self._group("services", "Every task"),
            clients=self._group("clients", "Tasks which use Postgres"),
            database=self._group("database", "Postgres") if database else None,
        )

    def _group(self, name: str, does: str) -> aws.ec2.SecurityGroup:
        # No inline rules: each rule is a separate resource, and inline rules would conflict with them.
        return aws.ec2.SecurityGroup(
            name,
            name=self._core.names.of(name, 255),
            description=does,
            vpc_id=self.vpc,
            tags=self._core.tags(name),
            opts=self._opts,
        )

    def _rules(self, groups: Groups) -> None:
        opts = self._opts
        for index, block in enumerate(self._core.settings.ingress.allow or [self._own or ""]):
            aws.vpc.SecurityGroupIngressRule(
                f"balancer-{index}",
                security_group_id=groups.balancer.id,
                description="Clients of the platform",
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                cidr_ipv4=block if ":" not in block else None,
                cidr_ipv6=block if ":" in block else None,
                tags=self._core.tags(f"balancer-{index}"),
                opts=opts,
            )
        for name, source in (("services-balancer", groups.balancer), ("services-services", groups.services)):
            self._ingress(name, groups.services, PORT, source)
        self._egress("balancer-services", groups.balancer, PORT, groups.services)
        self._egress("services-out-services", groups.services, PORT, groups.services)
        for service, prefix in self._prefixes.items():
            aws.vpc.SecurityGroupEgressRule(
                f"services-{service}",
                security_group_id=groups.services.id,
                description=f"To {service} within the network",
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                prefix_list_id=prefix,
                tags=self._core.tags(f"services-{service}"),
                opts=opts,
            )
        if self._open:
            aws.vpc.SecurityGroupEgressRule(
                "services-out",
                security_group_id=groups.services.id,
                description="What alerts are sent to, and what seeds and trainings fetch",
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                cidr_ipv4="0.0.0.0/0",
                tags=self._core.tags("services-out"),
                opts=opts,
            )
        if groups.database:
            self._ingress("database-clients", groups.database, POSTGRES, groups.clients)
            self._egress("clients-database", groups.clients, POSTGRES, groups.database)

    def _ingress(self, name: str, group: aws.ec2.SecurityGroup, port: int, source: aws.ec2.SecurityGroup) -> None:
        aws.vpc.SecurityGroupIngressRule(
            name,
            security_group_id=group.id,
            description=f"Port {port} from a group of the stack",
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            referenced_security_group_id=source.id,
            tags=self._core.tags(name),
            opts=self._opts,
        )

    def _egress(self, name: str, group: aws.ec2.SecurityGroup, port: int, to: aws.ec2.SecurityGroup) -> None:
        aws.vpc.SecurityGroupEgressRule(
            name,
            security_group_id=group.id,
            description=f"Port {port} to a group of the stack",
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            referenced_security_group_id=to.id,
            tags=self._core.tags(name),
            opts=self._opts,
        )

    def reach(self, existing: str) -> None:
        """Let tasks in the group `clients` reach an existing Postgres server in the security group `existing`."""
        aws.vpc.SecurityGroupEgressRule(
            "clients-database",
            security_group_id=self.groups.clients.id,
            description="To the Postgres server which was brought",
            ip_protocol="tcp",
            from_port=POSTGRES,
            to_port=POSTGRES,
            referenced_security_group_id=existing,
            tags=self._core.tags("clients-database"),
            opts=self._opts,
        )
