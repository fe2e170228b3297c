"""Sends metrics to Amazon Managed Prometheus. The Prometheus task scrapes and evaluates the rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pulumi_aws as aws
import yaml

from ..options import protected
from .core import Core

_CONFIG = "prometheus.yml"
_SOURCE = "provisioning/datasources/tidemill.yml"
_UID = "tidemill-prometheus"


def each_task(config: Mapping[str, pulumi.Input[str]]) -> dict[str, pulumi.Input[str]]:
    """Return the config files of Prometheus, changed so that it scrapes every task behind a DNS name."""

    def use_dns(document: dict[str, Any]) -> None:
        for job in document["scrape_configs"]:
            targets = [target for static in job.pop("static_configs") for target in static["targets"]]
            job["dns_sd_configs"] = [
                {"names": [target.rpartition(":")[0]], "type": "A", "port": int(target.rpartition(":")[2])}
                for target in targets
            ]

    text = pulumi.Output.from_input(config[_CONFIG])
    return {**config, _CONFIG: text.apply(lambda found: _changed(found, use_dns))}


def _changed(text: str, change: Callable[[dict[str, Any]], None]) -> str:
    document: dict[str, Any] = yaml.safe_load(text)
    change(document)
    return yaml.safe_dump(document, sort_keys=False)


class Metrics:
    """A workspace, created or existing.

    Args:
        core: the stack's shared values.

    Attributes:
        arn: ARN of the workspace.
        url: its URL, without a trailing slash.
    """

    arn: pulumi.Output[str]
    url: pulumi.Output[str]

    def __init__(self, core: Core) -> None:
        self._region = core.region
        existing = core.settings.metrics.existing
        if existing:
            self.arn = pulumi.Output.from_input(existing)
            region, workspace = existing.split(":")[3], existing.rpartition("/")[2]
            self._region = region
            self.url = pulumi.Output.from_input(f"https://aps-workspaces.{region}.amazonaws.com/workspaces/{workspace}")
            return
        workspace = aws.amp.Workspace(
            "metrics",
            alias=core.names.of("metrics", 100),
            kms_key_arn=core.key.arn,
            tags=core.tags("metrics"),
            opts=protected(core.options),
        )
        self.arn = workspace.arn
        self.url = workspace.prometheus_endpoint.apply(lambda url: url.rstrip("/"))

    def writing(self, config: Mapping[str, pulumi.Input[str]]) -> dict[str, pulumi.Input[str]]:
        """Return the config files of Prometheus with a remote write to the workspace, signed with the task's role."""

        def with_write(found: list[str]) -> str:
            text, url = found
            remote = {
                "url": f"{url}/api/v1/remote_write",
                "sigv4": {"region": self._region},
                "queue_config": {"max_samples_per_send": 1000, "max_shards": 50, "capacity": 2500},
            }
            return _changed(text, lambda document: document.update({"remote_write": [remote]}))

        return {**config, _CONFIG: pulumi.Output.all(config[_CONFIG], self.url).apply(with_write)}

    def reading(self, config: Mapping[str, pulumi.Input[str]]) -> dict[str, pulumi.Input[str]]:
        """Return the config files of Grafana with the workspace as data source."""

        def source(url: str) -> str:
            sources = {
                "apiVersion": 1,
                "datasources": [
                    {
                        "name": "Prometheus",
                        "uid": _UID,
                        "type": "prometheus",
                        "access": "proxy",
                        "url": url,
                        "isDefault": True,
                        "jsonData": {
                            "httpMethod": "POST",
                            "sigV4Auth": True,
                            "sigV4AuthType": "default",
                            "sigV4Region": self._region,
                        },
                    }
                ],
            }
            return json.dumps(sources, indent=2) + "\n"

        return {**config, _SOURCE: self.url.apply(source)}
