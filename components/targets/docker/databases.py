"""Creates the stack's databases in one Postgres server, each with its own role."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import pulumi

from ...images.container_layout import CONFIG, MOUNT
from ...provider import resources as native
from ..base import DatabaseRef, SecretArgs, SecretRef
from ..options import after
from ..postgres_access import pass_line
from . import postgres
from .container import ContainerSpec, Mounts, declare_container
from .foundation import Foundation
from .naming import TMPFS


class Databases:
    """Creates databases, and the server with the first of them.

    Args:
        foundation: networks, images and volumes of the stack.
        secret: creates a secret.
    """

    def __init__(
        self, foundation: Foundation, secret: Callable[[str, SecretArgs, pulumi.ResourceOptions], SecretRef]
    ) -> None:
        self._base = foundation
        self._secret = secret
        self._passwords: dict[str, SecretRef] = {}

    def password(self, name: str) -> SecretRef:
        """Return the secret with the password of the database `name`."""
        return self._passwords[name]

    def make(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Create a database and the role that owns it."""
        base = self._base
        secret = self._passwords[name] = self._secret(f"database-{name}", SecretArgs(), opts)
        admin = self._admin
        files = base.files(
            f"database-{name}",
            {
                "config/make.sql": postgres.make_database(name, secret.name),
                "config/pgpass": pass_line(f"@{{secret:{admin.name}}}"),
            },
            [secret.name],
            after(opts, [admin.resource, secret.resource]),
            owner=postgres.USER,
        )
        image = base.images.get("postgres")
        job = native.ContainerJob(
            f"database-{name}",
            stack=base.stack,
            root=base.root,
            host=base.host,
            image=image.reference,
            entrypoint=["psql"],
            argv=["--no-psqlrc", "--quiet", "--file", f"{CONFIG}/make.sql"],
            env={
                "PGHOST": "postgres",
                "PGUSER": "postgres",
                "PGDATABASE": "postgres",
                "PGPASSFILE": f"{CONFIG}/pgpass",
                "HOME": "/tmp",  # noqa: S108 - within the container
            },
            mounts=[native.MountInputs(volume=files.volume, target=MOUNT, readOnly=True)],
            networks=[base.private.name],
            user=f"{postgres.USER}:{postgres.USER}",
            tmpfs=TMPFS,
            memory_mb=256,
            cpus=1.0,
            processes=64,
            labels=base.names.labels(job=f"database-{name}"),
            timeout=120.0,
            triggers={"files": files.digest},
            opts=after(opts, [self._server, *image.resources]),
        )
        return DatabaseRef(name, job)

    @cached_property
    def _admin(self) -> SecretRef:
        return self._secret(postgres.ADMIN_SECRET, SecretArgs(), pulumi.ResourceOptions())

    @cached_property
    def _server(self) -> pulumi.Resource:
        """The Postgres server."""
        base, admin = self._base, self._admin
        opts = pulumi.ResourceOptions()
        image = base.images.get("postgres")
        volume = base.volume("postgres", opts, owner=postgres.USER)
        files = base.files("postgres", None, [admin.name], after(opts, [admin.resource]), owner=postgres.USER)
        limits = base.limits("postgres", None)
        container = declare_container(
            "postgres",
            base.names,
            base.settings,
            ContainerSpec(
                image=image,
                entrypoint=None,
                command=["postgres"],
                env=postgres.SERVER_ENV,
                mounts=Mounts(files.volume, {postgres.FOLDER: volume.volume}),
                networks=[(base.private.name, ["postgres"])],
                health=postgres.HEALTH,
                start_seconds=60.0,
                user=postgres.USER,
                tmpfs=postgres.SERVER_TMPFS,
                limits=limits,
                # A server that is killed must recover at its next start.
                stop_seconds=60.0,
                working_dir=None,
                digest=files.digest,
            ),
            after(base.options, [volume, files, *image.resources]),
        )
        return base.bounded("postgres", container, limits, opts)
