"""The stack's databases: each is one of its own, with a role of its own, in one Postgres."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import pulumi

from ...provider import resources as native
from ..base import DatabaseRef, SecretArgs, SecretRef
from . import postgres
from .container import Mounts, Spec, make
from .foundation import Foundation, after
from .naming import CONFIG, MOUNT, TMPFS

__all__ = ["Databases"]


class Databases:
    """Makes databases.

    Args:
        foundation: what containers stand on.
        secret: makes a secret.
    """

    def __init__(
        self, foundation: Foundation, secret: Callable[[str, SecretArgs, pulumi.ResourceOptions], SecretRef]
    ) -> None:
        self._on = foundation
        self._secret = secret
        self._passwords: dict[str, SecretRef] = {}

    def password(self, name: str) -> SecretRef:
        """Return the password of the database `name`, which was made."""
        return self._passwords[name]

    def make(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Make a database, and a role which owns it, in the stack's Postgres."""
        on = self._on
        secret = self._passwords[name] = self._secret(f"database-{name}", SecretArgs(), opts)
        admin = self._admin
        files = on.files(
            f"database-{name}",
            {
                "config/make.sql": postgres.make_database(name, secret.name),
                "config/pgpass": postgres.pass_line(admin.name),
            },
            [secret.name],
            after(opts, [admin.resource, secret.resource]),
            owner=postgres.USER,
        )
        image = on.images.get("postgres")
        job = native.ContainerJob(
            f"database-{name}",
            stack=on.stack,
            root=on.root,
            host=on.host,
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
            networks=[on.private.name],
            user=f"{postgres.USER}:{postgres.USER}",
            tmpfs=TMPFS,
            memory_mb=256,
            cpus=1.0,
            processes=64,
            labels=on.names.labels(job=f"database-{name}"),
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
        """The one Postgres server, made when the first database is asked for."""
        on, admin = self._on, self._admin
        opts = pulumi.ResourceOptions()
        image = on.images.get("postgres")
        volume = on.volume("postgres", opts, owner=postgres.USER)
        files = on.files("postgres", None, [admin.name], after(opts, [admin.resource]), owner=postgres.USER)
        limits = on.limits("postgres", None)
        container = make(
            "postgres",
            on.names,
            on.settings,
            Spec(
                image=image,
                entrypoint=None,
                command=["postgres"],
                env=postgres.SERVER_ENV,
                mounts=Mounts(files.volume, {postgres.FOLDER: volume.volume}),
                networks=[(on.private.name, ["postgres"])],
                health=postgres.HEALTH,
                start_seconds=60.0,
                user=postgres.USER,
                tmpfs=postgres.SERVER_TMPFS,
                limits=limits,
                # A server which is not let end in peace has to recover at its next start.
                stop_seconds=60.0,
                working_dir=None,
                digest=files.digest,
            ),
            after(on.options, [volume, files, *image.resources]),
        )
        return on.bounded("postgres", container, limits, opts)
