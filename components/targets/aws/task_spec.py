"""What the task of a service or job is made of: image, settings, files, secrets, permissions, size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import pulumi

from ....runtime.common.errors import ConfigError
from ..base import ProcessArgs, ServiceArgs
from . import permissions
from .databases import Databases, pass_file
from .foundation import Foundation
from .metrics import each_task
from .names import PROJECT, SCRATCH, size_of
from .permissions import Statement
from .placeholders import Texts
from .secrets import Secrets
from .settings import AwsSettings, TaskSize
from .stores import use_of
from .tasks import Work

__all__ = ["Works"]

_Statements = pulumi.Output[Sequence[Statement]]


class Works:
    """Translates what a component asks for.

    Args:
        foundation: what everything stands on.
        secrets: the stack's secrets.
        databases: the stack's databases.

    Attributes:
        more: service -> permissions which it gets besides.
    """

    def __init__(self, foundation: Foundation, secrets: Secrets, databases: Databases) -> None:
        self._on = foundation
        self._secrets = secrets
        self._databases = databases
        self.more: dict[str, _Statements] = {}

    def uses_postgres(self, name: str, args: ProcessArgs) -> bool:
        """Return whether the task `name` asks Postgres."""
        if name == "grafana":
            return True
        return isinstance(args, ServiceArgs) and any(one.name in self._databases for one in args.databases)

    def make(self, name: str, args: ProcessArgs, opts: pulumi.ResourceOptions) -> tuple[Work, list[pulumi.Resource]]:
        """Return what the task `name` is made of, and what it waits for."""
        on, secrets, databases = self._on, self._secrets, self._databases
        service = args if isinstance(args, ServiceArgs) else None
        own = service is None and args.cwd is not None
        image = on.images.get("training" if own else args.image or "runtime")
        used = list(service.databases) if service else []
        config = dict(args.config_files)
        env = {**(image.upstream.env if image.upstream else {}), **args.env}
        secret_env = {variable: (ref.name, secrets.held(ref.name)) for variable, ref in args.secret_env.items()}
        statements = [self.more[name]] if name in self.more else []
        match name:
            case "lakefs" if table := databases.lake_statements():
                statements.append(table)
            case "grafana":
                used.append(databases.grafana(env, secret_env, opts))
                if on.metrics:
                    config = on.metrics.reading(config)
                    env |= {"GF_AUTH_SIGV4_AUTH_ENABLED": "true", "AWS_SDK_LOAD_CONFIG": "true"}
                    statements.append(on.metrics.arn.apply(permissions.metrics_query))
            case "prometheus":
                config = each_task(config)
                if on.metrics:
                    config = on.metrics.writing(config)
                    statements.append(on.metrics.arn.apply(permissions.metrics_write))
            case _:
                pass
        in_postgres = [one.name for one in used if one.name in databases]
        texts = Texts(image.upstream, {database: databases.url(database) for database in in_postgres})
        config |= {pass_file(database): f"*:*:*:*:@{{secret:database-{database}}}\n" for database in in_postgres}
        return Work(
            image=image,
            command=[texts.later(part) for part in args.argv],
            env={key: texts.later(value) for key, value in env.items()},
            config={file: texts.later(text) for file, text in config.items()},
            secrets=secrets.all_of(args.secrets),
            values={label: secrets.held(label) for label in (f"database-{database}" for database in in_postgres)},
            secret_env=secret_env,
            stores={store.name: use_of(store.name, name) for store in args.stores},
            statements=pulumi.Output.all(*statements).apply(lambda found: [one for part in found for one in part]),
            size=_size(on.core.settings, name, service),
            health=service.health if service else None,
            stop_seconds=service.stop_seconds if service else 30.0,
            open_files=service.limits.open_files if service else None,
            folder=SCRATCH if args.cwd is None else str(PurePosixPath(PROJECT) / args.cwd),
            listens=service is not None,
        ), [*(database.resource for database in used), *(store.resource for store in args.stores)]


def _size(settings: AwsSettings, name: str, service: ServiceArgs | None) -> TaskSize:
    """Return what the main container gets, and no less than the component asks for.

    Raises:
        ConfigError: no task can have that much.
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
            "asks for more than a task of Fargate can have", field=f"aws.services.{name}", value=limits
        ) from None
