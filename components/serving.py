"""A model behind HTTP: the server which follows an alias, and the store of what it captures."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from .access import as_json, listen_settings, registry_settings
from .registry import Registry
from .settings import ServeConfig
from .targets.base import EndpointArgs, EndpointRef, SecretArgs, SecretRef, ServiceArgs, ServiceRef, StoreRef, Target

__all__ = ["ModelService", "ModelServiceArgs"]


@dataclass(frozen=True)
class ModelServiceArgs:
    """What a model service needs.

    Attributes:
        target: the target to build on.
        registry: where the model's versions are.
        serve: how it answers.
        alias: the alias it follows.
        port: a fixed port, or None.
    """

    target: Target
    registry: Registry
    serve: ServeConfig
    alias: str = "champion"
    port: int | None = None


class ModelService(pulumi.ComponentResource):
    """The server of one model; `name` is the model's.

    Attributes:
        model: name of the model.
        endpoint: where it answers.
        key: the API key, which opens its metrics too.
        capture: the store of captured requests and labels.
    """

    model: str
    endpoint: EndpointRef
    key: SecretRef
    capture: StoreRef
    service: ServiceRef

    def __init__(self, name: str, args: ModelServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tidemill:components:ModelService", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        target = args.target
        self.model = name
        self.endpoint = target.endpoint(f"serving-{name}", EndpointArgs(public=True, port=args.port), child)
        self.key = target.secret(f"serving-{name}-key", SecretArgs(), child)
        self.capture = target.object_store(f"capture-{name}", child)
        password = args.registry.passwords["serving"]
        settings = {
            "listen": listen_settings(self.key.name),
            "model": name,
            "alias": args.alias,
            "registry": registry_settings(args.registry, "serving"),
            "capture": {"directory": f"@{{store:{self.capture.name}}}", "fraction": args.serve.capture},
            "poll_seconds": args.serve.poll_seconds,
            "cache": "@{scratch}/models",
            "limits": {"body_bytes": args.serve.max_body_bytes, "rows": args.serve.max_rows},
        }
        self.service = target.service(
            f"serving-{name}",
            ServiceArgs(
                argv=["@{python}", "-m", "tidemill.runtime.serving", "--settings", "@{config}/settings.json"],
                image="serving",
                endpoints=[self.endpoint],
                secrets=[self.key, password],
                config_files={"settings.json": as_json(settings)},
                stores=[self.capture],
            ),
            child,
        )
        self.register_outputs({"url": self.endpoint.public_url})
