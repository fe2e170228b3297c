"""The component `Retraining`: alerts start training jobs, a gate checks the result, the alias moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pulumi

from ..runtime.registry.accounts import RETRAINING, TRAINING
from .access import as_json, lake_settings, listen_settings, registry_settings
from .lake import Lake
from .registry import Registry
from .settings import ModelConfig
from .targets.base import EndpointArgs, EndpointRef, SecretArgs, SecretRef, ServiceArgs, ServiceRef, Target, TrainerArgs


@dataclass(frozen=True)
class RetrainingArgs:
    """The arguments of the retraining service.

    Attributes:
        target: the target on which it runs.
        lake: the lake with the data.
        registry: the registry with the models.
        models: name -> model.
        runtime: the text of the RuntimeSettings for its jobs; None makes it from `models`.
        after: resources on which it depends, such as data and permissions.
        port: a fixed port, or None.
    """

    target: Target
    lake: Lake
    registry: Registry
    models: Mapping[str, ModelConfig]
    runtime: pulumi.Input[str] | None = None
    after: Sequence[pulumi.Resource] = ()
    port: int | None = None


def runtime_settings(
    stack: str, lake: Lake, registry: Registry, models: Mapping[str, ModelConfig]
) -> pulumi.Output[str]:
    """Return the text of `runtime.common.settings.RuntimeSettings` for jobs of `stack`."""
    return as_json(
        {
            "stack": stack,
            "lake": lake_settings(lake),
            "registry": registry_settings(registry, TRAINING),
            "models": {
                name: {"data": model.data, "target": model.target, "promote": model.promote.model_dump(mode="json")}
                for name, model in models.items()
            },
        }
    )


class Retraining(pulumi.ComponentResource):
    """The service that trains and promotes models after alerts.

    Attributes:
        endpoint: its endpoint; Alertmanager posts to `/alerts`.
        token: the bearer token for its clients.
    """

    endpoint: EndpointRef
    token: SecretRef
    service: ServiceRef

    def __init__(self, name: str, args: RetrainingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tidemill:components:Retraining", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        target = args.target
        self.endpoint = target.endpoint("retraining", EndpointArgs(port=args.port), child)
        self.token = target.secret("retraining-token", SecretArgs(), child)
        store = target.object_store("retraining", child)
        runtime = args.runtime
        if runtime is None:
            runtime = runtime_settings(target.stack, args.lake, args.registry, args.models)
        lake_keys = [args.lake.key_id, args.lake.secret]
        training = args.registry.logins[TRAINING].secrets
        promoting = args.registry.logins[RETRAINING].secrets
        trainer = target.trainer(
            TrainerArgs(
                runtime=runtime,
                secrets=[*lake_keys, *training],
                trainings={model: (config.train, config.code) for model, config in args.models.items()},
            ),
            child,
        )
        settings = {
            "listen": listen_settings(self.token.name, target, self.endpoint),
            "runtime": "@{config}/runtime.json",
            "registry": registry_settings(args.registry, RETRAINING),
            "lake": lake_settings(args.lake),
            "state": f"@{{store:{store.name}}}",
            **({"launcher": dict(trainer.launcher)} if trainer.launcher else {}),
            "models": [_model(model, config) for model, config in args.models.items()],
        }
        self.service = target.service(
            "retraining",
            ServiceArgs(
                argv=["@{python}", "-m", "tidemill.runtime.retraining", "--settings", "@{config}/settings.json"],
                image="runtime",
                endpoints=[self.endpoint],
                secrets=[self.token, *lake_keys, *dict.fromkeys([*training, *promoting]), *trainer.secrets],
                config_files={"settings.json": as_json(settings), "runtime.json": runtime},
                stores=[store],
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[*args.after, *trainer.resources]),
        )
        self.register_outputs({"url": self.endpoint.public_url})


def _model(name: str, config: ModelConfig) -> dict[str, Any]:
    return {
        "name": name,
        "code": f"@{{project}}/{PurePosixPath(config.code)}",
        "command": list(config.train),
        "data": config.data,
        "promote": config.promote.model_dump(mode="json"),
        "cooldown": config.retrain.cooldown.total_seconds(),
        "triggers": list(config.retrain.reasons),
        "promotion": config.retrain.promotion,
        "timeout": config.retrain.timeout.total_seconds(),
    }
