"""Translates the arguments of a service or job into the spec of its task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import pulumi

from ....runtime.common.errors import ConfigError
from ...images.container_layout import PROJECT, SCRATCH
from ...images.container_placeholders import ContainerPlaceholders
from ..base import ProcessArgs, ServiceArgs
from ..postgres_access import pass_file, pass_line
from . import permissions
from .databases import Databases
from .foundation import Foundation
from .metrics import each_task
from .names import size_of
from .permissions import Statement
from .secrets import Secrets
from .settings import AwsSettings, TaskSize
from .stores import use_of
from .tasks import TaskSpec

_Statements = pulumi.Output[Sequence[Statement]]


class TaskSpecs:
    """Makes task specs.

    Args:
        foundation: the shared parts of the stack.
        secrets: the stack's secrets.
        databases: the stack's databases.

    Attributes:
        more: service -> its additional permissions.
    """

    def __init__(self, foundation: Foundation, secrets: Secrets, databases: Databases) -> None:
        self._base = foundation
        self._secrets = secrets
        self._databases = databases
        self.more: dict[str, _Statements] = {}

    def uses_postgres(self, name: str, args: ProcessArgs) -> bool:
        """Return whether the task `name` connects to Postgres."""
        if name == "grafana":
            return True
        return isinstance(args, ServiceArgs) and any(one.name in self._databases for one in args.databases)

    def make(
        self, name: str, args: ProcessArgs, opts: pulumi.ResourceOptions
    ) -> tuple[TaskSpec, list[pulumi.Resource]]:
        """Return the spec of the task `name`, and the resources on which it depends."""
        base, secrets, databases = self._base, self._secrets, self._databases
        service = args if isinstance(args, ServiceArgs) else None
        own = service is None and args.cwd is not None
        image = base.images.get("training" if own else args.image or "runtime")
        used = list(service.databases) if service else []
        config = dict(args.config_files)
        env = {**(image.upstream.env if image.upstream else {}), **args.env}
        secret_env = {variable: (ref.name, secrets.stored(ref.name)) for variable, ref in args.secret_env.items()}
        statements = [self.more[name]] if name in self.more else []
        match name:
            case "lakefs" if table := databases.lake_statements():
                statements.append(table)
            case "grafana":
                used.append(databases.grafana(env, secret_env, opts))
                if base.metrics:
                    config = base.metrics.reading(config)
                    env |= {"GF_AUTH_SIGV4_AUTH_ENABLED": "true", "AWS_SDK_LOAD_CONFIG": "true"}
                    statements.append(base.metrics.arn.apply(permissions.metrics_query))
            case "prometheus":
                config = each_task(config)
                if base.metrics:
                    config = base.metrics.writing(config)
                    statements.append(base.metrics.arn.apply(permissions.metrics_write))
            case _:
                pass
        in_postgres = [one.name for one in used if one.name in databases]
        resolve = ContainerPlaceholders(image.upstream, {database: databases.url(database) for database in in_postgres})
        config |= {pass_file(database): pass_line(f"@{{secret:database-{database}}}") for database in in_postgres}
        return TaskSpec(
            image=image,
            command=[resolve(part) for part in args.argv],
            env={key: resolve(value) for key, value in env.items()},
            config={file: resolve(text) for file, text in config.items()},
            secrets=secrets.all_of(args.secrets),
            values={label: secrets.stored(label) for label in (f"database-{database}" for database in in_postgres)},
            secret_env=secret_env,
            stores={store.name: use_of(store.name, name) for store in args.stores},
            statements=pulumi.Output.all(*statements).apply(lambda found: [one for part in found for one in part]),
            size=_size(base.core.settings, name, service),
            health=service.health if service else None,
            stop_seconds=service.stop_seconds if service else 30.0,
            open_files=service.limits.open_files if service else None,
            folder=SCRATCH if args.cwd is None else str(PurePosixPath(PROJECT) / args.cwd),
            listens=service is not None,
        ), [*(database.resource for database in used), *(store.resource for store in args.stores)]


def _size(settings: AwsSettings, name: str, service: ServiceArgs | None) -> TaskSize:
    """Return the size of the main container: at least the limits of the component, unless the config sets it.

    Raises:
        ConfigError: no Fargate task is that large.
    """
    if service is None:
        return size_of(settings, "jobs")
    size, limits = size_of(settings, name), service.limits
    if name in settings.services:
        return size
    cpu = max(size.cpu, int((limits.cpu or 0) * 1024))
    try:
        return TaskSize(cpu=cpu, memory_mb=max(size.memory_mb, limits.memory_mb or 0), disk_gb=size.disk_gb)
    except ValueError:
        raise ConfigError(
            "needs more than a Fargate task can have", field=f"aws.services.{name}", value=limits
        ) from None
