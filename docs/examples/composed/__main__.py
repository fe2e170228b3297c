"""Composes a lake and a service of our own."""

from __future__ import annotations

import pulumi
from tidemill.components import (
    EndpointArgs,
    Lake,
    LakeArgs,
    RepositoryConfig,
    SecretArgs,
    ServiceArgs,
    Target,
    as_json,
    lake_settings,
    listen_settings,
    target_here,
)


class Catalogue(pulumi.ComponentResource):
    """A service that returns the head commit of each repository; it runs catalogue.py."""

    def __init__(
        self, name: str, target: Target, lake: Lake, repositories: list[str], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("harbour:index:Catalogue", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.endpoint = target.endpoint(name, EndpointArgs(public=True), child)
        self.token = target.secret(f"{name}-token", SecretArgs(), child)
        settings = {
            "listen": listen_settings(self.token.name, target, self.endpoint),
            "lake": lake_settings(lake),
            "repositories": repositories,
        }
        self.service = target.service(
            name,
            ServiceArgs(
                argv=["@{python}", "@{project}/catalogue.py", "@{config}/settings.json"],
                endpoints=[self.endpoint],
                secrets=[self.token, lake.key_id, lake.secret],
                config_files={"settings.json": as_json(settings)},
            ),
            pulumi.ResourceOptions(parent=self, depends_on=list(lake.content.values())),
        )
        self.register_outputs({"url": self.endpoint.public_url})


names: list[str] = pulumi.Config().require_object("repositories")
target = target_here()
lake = Lake("lake", LakeArgs(target=target, repositories={name: RepositoryConfig() for name in names}))
catalogue = Catalogue("catalogue", target, lake, names)

pulumi.export("lake", lake.endpoint.public_url)
pulumi.export("catalogue", catalogue.endpoint.public_url)
