"""Serves a model from an existing MLflow server."""

from __future__ import annotations

import pulumi
from tidemill.components import (
    ExistingRegistry,
    ModelService,
    ModelServiceArgs,
    Registry,
    RegistryArgs,
    ServeConfig,
    target_here,
)

config = pulumi.Config()
target = target_here()
registry = Registry(
    "registry",
    RegistryArgs(
        target=target,
        models=["fares"],
        existing=ExistingRegistry(
            url=config.require("mlflow"),
            username=config.require("user"),
            password=config.require_secret("password"),
            administrator=True,  # so the model server gets its own user, which can read only this model
        ),
    ),
)
service = ModelService("fares", ModelServiceArgs(target=target, registry=registry, serve=ServeConfig(poll_seconds=1.0)))

pulumi.export("mlflow", registry.endpoint.public_url)
pulumi.export("fares", service.endpoint.public_url)
