"""The component `Platform`: a team's lake, registry, model services, monitoring and retraining, connected.

To add a component, write `components/NAME.py` like `monitoring.py` (`NameArgs`, and a class that takes them), create it
in `Platform.__init__`, and put the section of the stack config that it reads into `settings.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pulumi

from ..runtime.registry.accounts import TRAINING
from .lake import ExistingLake, Lake, LakeArgs
from .layout import find_project
from .monitoring import Monitoring, MonitoringArgs
from .registry import ExistingRegistry, Registry, RegistryArgs
from .retraining import Retraining, RetrainingArgs, runtime_settings
from .serving import ModelService, ModelServiceArgs
from .settings import LakeConfig, ModelConfig, MonitoringConfig
from .targets.base import SecretArgs, SecretRef, Target


@dataclass(frozen=True)
class PlatformArgs:
    """The arguments of a platform.

    Attributes:
        target: the target on which it runs.
        project: the folder of Pulumi.yaml; by default that of the running program.
        lake: its repositories.
        existing_lake: an existing lakeFS server; None creates one.
        existing_registry: an existing MLflow server; None creates one.
        models: name -> model.
        monitoring: intervals, retention, receivers.
        ports: service name -> fixed port.
        secrets: name -> value of secrets of the stack config.
        grafana: whether Grafana is started.
        skip: parts to leave out. Without monitoring there are no alerts; without retraining, alerts train no model.
    """

    target: Target
    project: Path = field(default_factory=find_project)
    lake: LakeConfig = field(default_factory=LakeConfig)
    existing_lake: ExistingLake | None = None
    existing_registry: ExistingRegistry | None = None
    models: Mapping[str, ModelConfig] = field(default_factory=dict[str, ModelConfig])
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    secrets: Mapping[str, pulumi.Output[str]] = field(default_factory=dict[str, pulumi.Output[str]])
    grafana: bool = False
    skip: Collection[Literal["monitoring", "retraining"]] = ()


class Platform(pulumi.ComponentResource):
    """The platform of one team in one environment.

    Attributes:
        target: the target on which it runs, for additional services.
        lake, registry: the components for data and models.
        serving: model -> its server.
        retraining: None without models, or if it is skipped.
        monitoring: None if it is skipped.
        urls: service -> its URL.
    """

    target: Target
    lake: Lake
    registry: Registry
    serving: dict[str, ModelService]
    retraining: Retraining | None
    monitoring: Monitoring | None
    urls: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, args: PlatformArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tidemill:components:Platform", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        target, ports = args.target, args.ports
        self.target = target
        self.lake = Lake(
            "lake",
            LakeArgs(
                target=target,
                project=args.project,
                repositories=args.lake.repositories,
                port=ports.get("lakefs"),
                validation_port=ports.get("validation"),
                existing=args.existing_lake,
                verdict_keys=args.lake.verdict_keys,
                hook_secret=args.lake.hook_secret,
            ),
            child,
        )
        seeds = {name: config.seed for name, config in args.lake.repositories.items() if config.seed}
        clients = bool(args.models or seeds)
        self.registry = Registry(
            "registry",
            RegistryArgs(
                target=target,
                models=list(args.models),
                clients=clients,
                port=ports.get("mlflow"),
                existing=args.existing_registry,
            ),
            child,
        )
        if clients:
            runtime = runtime_settings(args.target.stack, self.lake, self.registry, args.models)
            for repository, command in seeds.items():
                self.lake.seed(repository, command, runtime, self.registry.logins[TRAINING].secrets)
        self.serving = {
            model: ModelService(
                model,
                ModelServiceArgs(
                    target=target, registry=self.registry, serve=config.serve, port=ports.get(f"serving-{model}")
                ),
                child,
            )
            for model, config in args.models.items()
        }
        self.retraining = (
            Retraining(
                "retraining",
                RetrainingArgs(
                    target=target,
                    lake=self.lake,
                    registry=self.registry,
                    models=args.models,
                    port=ports.get("retraining"),
                ),
                child,
            )
            if args.models and "retraining" not in args.skip
            else None
        )
        self.monitoring = None if "monitoring" in args.skip else self._monitoring(args, child)
        monitoring = self.monitoring
        self.urls = {
            "lakefs": self.lake.endpoint.public_url,
            "mlflow": self.registry.endpoint.public_url,
            **(
                {"prometheus": monitoring.prometheus.public_url, "alertmanager": monitoring.alertmanager.public_url}
                if monitoring
                else {}
            ),
            **{f"serving-{model}": service.endpoint.public_url for model, service in self.serving.items()},
            **({"grafana": monitoring.grafana.public_url} if monitoring and monitoring.grafana else {}),
        }
        self.register_outputs({"urls": self.urls})

    def _monitoring(self, args: PlatformArgs, child: pulumi.ResourceOptions) -> Monitoring:
        return Monitoring(
            "monitoring",
            MonitoringArgs(
                target=args.target,
                config=args.monitoring,
                lake=self.lake,
                registry=self.registry,
                retraining=self.retraining,
                serving=list(self.serving.values()),
                models=args.models,
                ports=args.ports,
                grafana=args.grafana,
                receivers=self._receivers(args.target, args, child),
            ),
            child,
        )

    @staticmethod
    def _receivers(
        target: Target, args: PlatformArgs, child: pulumi.ResourceOptions
    ) -> list[tuple[str, SecretRef, str | None]]:
        made: dict[str, SecretRef] = {}
        receivers: list[tuple[str, SecretRef, str | None]] = []
        for receiver in args.monitoring.receivers:
            key = receiver.url.secret
            if key not in made:
                made[key] = target.secret(f"receiver-{key}", SecretArgs(value=args.secrets[key]), child)
            channel = receiver.slack.channel if receiver.slack else None
            receivers.append(("slack" if receiver.slack else "webhook", made[key], channel))
        return receivers
