"""The component `ModelService`: the server of a model version behind an alias, and the store of captured traffic."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pulumi

from .access import as_json, listen_settings, registry_settings
from .registry import Registry
from .settings import ServeConfig
from .targets.base import EndpointArgs, EndpointRef, SecretArgs, SecretRef, ServiceArgs, ServiceRef, StoreRef, Target


@dataclass(frozen=True)
class ModelServiceArgs:
    """The arguments of a model service.

    Attributes:
        target: the target on which it runs.
        registry: the registry with the model's versions.
        serve: its serving settings.
        alias: the alias whose version it serves.
        port: a fixed port, or None.
    """

    target: Target
    registry: Registry
    serve: ServeConfig = field(default_factory=ServeConfig)
    alias: str = "champion"
    port: int | None = None


class ModelService(pulumi.ComponentResource):
    """The server of one model; `name` is the model's.

    Attributes:
        model: name of the model.
        endpoint: its endpoint.
        key: the API key for predictions and metrics.
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
        # Hashes of the named keys, separate from the capture store, which can be deleted.
        access = target.object_store(f"access-{name}", child)
        serve, capture = args.serve, args.serve.capture
        hash_key = target.secret(f"capture-{name}-hash", SecretArgs(), child) if capture.hash else None
        settings = {
            "listen": listen_settings(self.key.name, target, self.endpoint, args.serve.hosts),
            "model": name,
            "alias": args.alias,
            "registry": registry_settings(args.registry, "serving"),
            "capture": {
                "directory": f"@{{store:{self.capture.name}}}",
                "fraction": capture.fraction,
                "leave_out": capture.leave_out,
                "hash": capture.hash,
                "segment_rows": capture.segment_rows,
                "segment_seconds": capture.segment_seconds,
                **({"hash_key_file": f"@{{secret-file:{hash_key.name}}}"} if hash_key else {}),
                **({"retention_days": capture.retention / timedelta(days=1)} if capture.retention else {}),
            },
            "keys_file": f"@{{store:{access.name}}}/keys.json",
            "poll_seconds": serve.poll_seconds,
            "cache": "@{scratch}/models",
            "workers": serve.workers,
            "shadow": serve.shadow,
            "trust": list(serve.trust),
            "access_log": serve.access_log,
            "drain_seconds": serve.drain.total_seconds(),
            **{
                part: getattr(serve, part).model_dump(mode="json")
                for part in ("batch", "compile", "isolation", "labels", "limits", "outputs")
            },
        }
        self.service = target.service(
            f"serving-{name}",
            ServiceArgs(
                argv=["@{python}", "-m", "tidemill.runtime.serving", "--settings", "@{config}/settings.json"],
                image="serving",
                endpoints=[self.endpoint],
                secrets=[self.key, *args.registry.logins["serving"].secrets, *([hash_key] if hash_key else [])],
                config_files={"settings.json": as_json(settings)},
                stores=[self.capture, access],
                stop_seconds=10 + int(serve.drain.total_seconds()),
            ),
            child,
        )
        self.register_outputs({"url": self.endpoint.public_url})
