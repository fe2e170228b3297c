"""The component `Monitoring`: Prometheus, Alertmanager, Grafana, and the monitor service, which measures drift."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pulumi

from ..templates import render
from .access import as_json, lake_settings, listen_settings, registry_settings
from .lake import Lake
from .registry import METRICS_USER, Registry
from .retraining import Retraining
from .serving import ModelService
from .settings import ModelConfig, MonitoringConfig, format_duration
from .targets.base import EndpointArgs, EndpointRef, HealthCheck, SecretArgs, SecretRef, ServiceArgs, ServiceRef, Target

ADMIN = "admin"
_NO_ORIGIN = "^$"  # a regular expression that no origin matches; `null` is the origin of a sandboxed page
_MANY = 25  # scrape intervals after which an alert that still fires is sent again


@dataclass(frozen=True)
class MonitoringArgs:
    """The arguments of monitoring.

    Attributes:
        target: the target on which it runs.
        lake, registry, serving: the monitored components.
        config: intervals, retention, receivers.
        retraining: the service that receives alerts; None without models.
        models: name -> model, with its drift settings.
        grafana: whether Grafana is started.
        receivers: (kind, secret with the URL, channel) of each receiver of alerts.
        ports: service name -> fixed port.
    """

    target: Target
    lake: Lake
    registry: Registry
    serving: Sequence[ModelService] = ()
    config: MonitoringConfig = field(default_factory=MonitoringConfig)
    retraining: Retraining | None = None
    models: Mapping[str, ModelConfig] = field(default_factory=dict[str, ModelConfig])
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    grafana: bool = False
    receivers: Sequence[tuple[str, SecretRef, str | None]] = ()


class Monitoring(pulumi.ComponentResource):
    """The monitoring of a platform.

    Attributes:
        prometheus, alertmanager: their endpoints.
        monitor: the endpoint of the monitor service; None without models.
        grafana: the endpoint of Grafana, or None.
    """

    prometheus: EndpointRef
    alertmanager: EndpointRef
    monitor: EndpointRef | None
    grafana: EndpointRef | None

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tidemill:components:Monitoring", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        target = args.target

        def endpoint(service: str, public: bool) -> EndpointRef:
            return target.endpoint(service, EndpointArgs(public=public, port=args.ports.get(service)), child)

        self.prometheus = endpoint("prometheus", True)
        self.alertmanager = endpoint("alertmanager", True)
        self.prometheus_admin = target.secret("prometheus-admin", SecretArgs(), child)
        self.alertmanager_admin = target.secret("alertmanager-admin", SecretArgs(), child)
        self.monitor, self.monitor_token = None, None
        if args.models:
            self.monitor = endpoint("monitor", False)
            self.monitor_token = target.secret("monitor-token", SecretArgs(), child)
            self._monitor(args, self.monitor, self.monitor_token, child)
        self._alertmanager(args, child)
        self._prometheus(args, child)
        self.grafana = self._grafana(args, endpoint("grafana", True), child) if args.grafana else None
        self.register_outputs({"prometheus": self.prometheus.public_url, "alertmanager": self.alertmanager.public_url})

    def _monitor(
        self, args: MonitoringArgs, endpoint: EndpointRef, token: SecretRef, child: pulumi.ResourceOptions
    ) -> ServiceRef:
        store = args.target.object_store("monitor", child)
        captures = {service.model: service.capture for service in args.serving}
        settings = {
            "listen": listen_settings(token.name, args.target, endpoint),
            "lake": lake_settings(args.lake),
            "registry": registry_settings(args.registry, "monitor"),
            "state": f"@{{store:{store.name}}}",
            "interval_seconds": min(
                (model.watch.interval.total_seconds() for model in args.models.values()), default=5.0
            ),
            "models": [_monitored(model, config, captures[model].name) for model, config in args.models.items()],
        }
        return args.target.service(
            "monitor",
            ServiceArgs(
                argv=["@{python}", "-m", "tidemill.runtime.monitor", "--settings", "@{config}/settings.json"],
                image="runtime",
                endpoints=[endpoint],
                secrets=[token, args.lake.key_id, args.lake.secret, *args.registry.logins["monitor"].secrets],
                config_files={"settings.json": as_json(settings)},
                stores=[store, *captures.values()],
            ),
            child,
        )

    def _alertmanager(self, args: MonitoringArgs, child: pulumi.ResourceOptions) -> ServiceRef:
        interval = args.config.scrape_interval
        retraining = args.retraining

        def config(url: str | None) -> str:
            return render(
                "monitoring/alertmanager.yml.j2",
                group_wait=format_duration(interval / 5),
                group_interval=format_duration(interval),
                repeat_interval=format_duration(interval * _MANY),
                webhook={"url": f"{url}/alerts", "secret": retraining.token.name} if retraining else None,
                receivers=[
                    {"kind": kind, "secret": secret.name, "channel": channel}
                    for kind, secret, channel in args.receivers
                ],
            )

        store = args.target.object_store("alertmanager", child)
        return args.target.service(
            "alertmanager",
            ServiceArgs(
                argv=[
                    "@{tool:alertmanager}",
                    "--config.file=@{config}/alertmanager.yml",
                    "--web.config.file=@{config}/web.yml",
                    "--web.listen-address=@{host}:@{port}",
                    f"--storage.path=@{{store:{store.name}}}",
                    "--cluster.listen-address=",
                    "--log.format=json",
                ],
                image="alertmanager",
                endpoints=[self.alertmanager],
                secrets=[
                    self.alertmanager_admin,
                    *([retraining.token] if retraining else []),
                    *(secret for _, secret, _ in args.receivers),
                ],
                config_files={
                    "alertmanager.yml": retraining.endpoint.url.apply(config) if retraining else config(None),
                    "web.yml": render("monitoring/web.yml.j2", user=ADMIN, secret=self.alertmanager_admin.name),
                },
                stores=[store],
                health=HealthCheck(path="/-/healthy", basic=(ADMIN, self.alertmanager_admin.name)),
            ),
            child,
        )

    def _prometheus(self, args: MonitoringArgs, child: pulumi.ResourceOptions) -> ServiceRef:
        interval = args.config.scrape_interval
        jobs = self._jobs(args)
        addresses = pulumi.Output.all(self.alertmanager.address, *(address for _, address in jobs))

        def config(resolved: list[str]) -> str:
            return render(
                "monitoring/prometheus.yml.j2",
                scrape_interval=format_duration(interval),
                scrape_timeout=format_duration(interval * 4 / 5),
                stack=args.target.stack,
                alertmanager={"user": ADMIN, "secret": self.alertmanager_admin.name, "address": resolved[0]},
                jobs=[{**job, "address": address} for (job, _), address in zip(jobs, resolved[1:], strict=True)],
            )

        rules = render(
            "monitoring/rules.yml.j2",
            models=[
                {
                    "name": name,
                    "triggers": list(model.retrain.reasons),
                    "drift_share": model.watch.drift_share,
                    "drift_for": "0s",
                }
                for name, model in args.models.items()
            ],
        )
        store = args.target.object_store("prometheus", child)
        return args.target.service(
            "prometheus",
            ServiceArgs(
                argv=[
                    "@{tool:prometheus}",
                    "--config.file=@{config}/prometheus.yml",
                    "--web.config.file=@{config}/web.yml",
                    "--web.listen-address=@{host}:@{port}",
                    # Pages of other sites cannot read answers; the default allows all sites.
                    f"--web.cors.origin={_NO_ORIGIN}",
                    f"--storage.tsdb.path=@{{store:{store.name}}}",
                    f"--storage.tsdb.retention.time={format_duration(args.config.retention)}",
                    "--log.format=json",
                ],
                image="prometheus",
                endpoints=[self.prometheus],
                secrets=[
                    self.prometheus_admin,
                    self.alertmanager_admin,
                    *(metrics.secrets if (metrics := args.registry.logins.get(METRICS_USER)) else []),
                    *([self.monitor_token] if self.monitor_token else []),
                    *([args.retraining.token] if args.retraining else []),
                    *([args.lake.validation_token] if args.lake.validation_token else []),
                    *(service.key for service in args.serving),
                ],
                config_files={
                    "prometheus.yml": addresses.apply(config),
                    "rules.yml": rules,
                    "web.yml": render("monitoring/web.yml.j2", user=ADMIN, secret=self.prometheus_admin.name),
                },
                stores=[store],
                health=HealthCheck(path="/-/healthy", basic=(ADMIN, self.prometheus_admin.name)),
            ),
            child,
        )

    def _jobs(self, args: MonitoringArgs) -> list[tuple[dict[str, str | None], pulumi.Output[str]]]:
        """Return the scrape jobs: name, path and credentials of each service, and its address."""

        def job(name: str, secret: SecretRef | None, user: str | None = None) -> dict[str, str | None]:
            return {"name": name, "path": "/metrics", "user": user, "secret": secret.name if secret else None}

        jobs: list[tuple[dict[str, str | None], pulumi.Output[str]]] = []
        if args.lake.metrics:
            # lakeFS always serves /metrics without credentials.
            jobs.append((job("lakefs", None), args.lake.endpoint.address))
        if metrics := args.registry.logins.get(METRICS_USER):
            jobs.append((job("mlflow", metrics.password, metrics.username), args.registry.endpoint.address))
        jobs += [
            (job("alertmanager", self.alertmanager_admin, ADMIN), self.alertmanager.address),
            (job("prometheus", self.prometheus_admin, ADMIN), self.prometheus.address),
            *((job(f"serving-{service.model}", service.key), service.endpoint.address) for service in args.serving),
        ]
        if args.lake.validation:
            jobs.append((job("validation", args.lake.validation_token), args.lake.validation.address))
        if self.monitor:
            jobs.append((job("monitor", self.monitor_token), self.monitor.address))
        if args.retraining:
            jobs.append((job("retraining", args.retraining.token), args.retraining.endpoint.address))
        return jobs

    def _grafana(self, args: MonitoringArgs, endpoint: EndpointRef, child: pulumi.ResourceOptions) -> EndpointRef:
        admin = args.target.secret("grafana-admin", SecretArgs(), child)
        store = args.target.object_store("grafana", child)
        args.target.service(
            "grafana",
            ServiceArgs(
                argv=[
                    "@{tool:grafana}",
                    "server",
                    "--homepath",
                    "@{tool-home:grafana}",
                    "--config",
                    "@{config}/grafana.ini",
                ],
                image="grafana",
                endpoints=[endpoint],
                secrets=[admin, self.prometheus_admin],
                config_files={
                    "grafana.ini": render("monitoring/grafana.ini.j2", user=ADMIN, secret=admin.name, store=store.name),
                    "provisioning/datasources/tidemill.yml": self.prometheus.url.apply(
                        lambda url: render(
                            "monitoring/grafana-datasource.yml.j2",
                            url=url,
                            user=ADMIN,
                            secret=self.prometheus_admin.name,
                        )
                    ),
                    "provisioning/dashboards/tidemill.yml": render("monitoring/grafana-dashboards.yml.j2"),
                    "dashboards/tidemill.json": json.dumps(
                        json.loads(render("monitoring/dashboard.json.j2", stack=args.target.stack)), indent=2
                    ),
                },
                stores=[store],
                health=HealthCheck(path="/api/health"),
            ),
            child,
        )
        return endpoint


def _monitored(name: str, config: ModelConfig, capture: str) -> dict[str, Any]:
    return {
        "name": name,
        "capture": f"@{{store:{capture}}}",
        "data": config.data,
        "target": config.target,
        "window": config.watch.window.total_seconds(),
        "label_delay": config.watch.label_delay.total_seconds(),
        "min_rows": config.watch.min_rows,
        "drift_threshold": config.watch.drift_threshold,
        "publish_min_rows": config.watch.publish_min_rows,
        "max_share_per_key": config.watch.max_share_per_key,
        "allow_new_labels": config.serve.labels.allow_new,
        **({"retention_days": retention / timedelta(days=1)} if (retention := config.serve.capture.retention) else {}),
    }
