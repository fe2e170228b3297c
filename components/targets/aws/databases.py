"""The stack's databases: each is one of its own, with a role of its own, in one Postgres; lakeFS's may be a table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pulumi
import pulumi_aws as aws

from ...provider import resources as native
from ..base import DatabaseRef, SecretArgs
from . import permissions
from .core import after
from .foundation import Foundation
from .names import CONFIG, SECRETS
from .permissions import Statement
from .secrets import Secrets
from .settings import TaskSize
from .storage import Postgres, lake_table
from .tasks import Held, Work

__all__ = ["HELPER", "Databases", "pass_file"]

HELPER = TaskSize(cpu=256, memory_mb=512)
"""What a task gets which only asks others."""

_GRAFANA = "grafana"
_LAKE = "lakefs"


def pass_file(database: str) -> str:
    """Return the config file with the password of `database`."""
    return f"pgpass-{database}"


class Databases:
    """Makes databases, and knows where each of them is.

    Args:
        foundation: what everything stands on.
        secrets: the stack's secrets.
    """

    def __init__(self, foundation: Foundation, secrets: Secrets) -> None:
        self._on = foundation
        self._secrets = secrets
        self._roles: dict[str, str] = {}
        self._table_is_lakes = foundation.core.settings.lake_metadata == "dynamodb"

    def __contains__(self, name: str) -> bool:
        """Return whether the database `name` is in Postgres."""
        return name in self._roles

    @cached_property
    def _postgres(self) -> Postgres:
        return Postgres(self._on.core, self._on.network)

    @cached_property
    def _table(self) -> aws.dynamodb.Table:
        return lake_table(self._on.core)

    def make(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Make a database, and a role which owns it, in the stack's Postgres; or lakeFS's table."""
        if name == _LAKE and self._table_is_lakes:
            return DatabaseRef(name, self._table)
        on, postgres = self._on, self._postgres
        secret = self._secrets.make(f"database-{name}", SecretArgs(), opts)
        role = self._roles[name] = name.replace("-", "_")
        made = on.tasks.make(
            f"databases-{name}",
            Work(
                image=on.images.get("mlflow"),
                command=["python", "-m", "tidemill.runtime.cloud.databases", role, f"{SECRETS}/{secret.name}"],
                env={"PGHOST": postgres.host, "PGPORT": str(postgres.port)},
                secrets=self._secrets.all_of([secret]),
                raw_env={
                    variable: (pulumi.Output.concat(postgres.admin, f":{key}::"), postgres.admin)
                    for variable, key in (("PGUSER", "username"), ("PGPASSWORD", "password"))
                },
                size=HELPER,
                group="databases",
            ),
            opts,
        )
        job = native.TaskJob(
            f"database-{name}",
            name=f"database-{name}",
            timeout=600.0,
            triggers={"files": made.files},
            opts=after(opts, [*postgres.resources, *on.network.ready]),
            **on.run(made, postgres=True),
        )
        return DatabaseRef(name, job)

    def grafana(
        self,
        env: dict[str, pulumi.Input[str]],
        secret_env: dict[str, tuple[str, Held]],
        opts: pulumi.ResourceOptions,
    ) -> DatabaseRef:
        """Have Grafana keep what people make in Postgres: the disk of a task ends with it."""
        database = self.make(_GRAFANA, opts)
        postgres = self._postgres
        env |= {
            "GF_DATABASE_TYPE": "postgres",
            "GF_DATABASE_HOST": pulumi.Output.concat(postgres.host, f":{postgres.port}"),
            "GF_DATABASE_NAME": _GRAFANA,
            "GF_DATABASE_USER": _GRAFANA,
            "GF_DATABASE_SSL_MODE": "require",
        }
        secret_env["GF_DATABASE_PASSWORD"] = (f"database-{_GRAFANA}", self._secrets.held(f"database-{_GRAFANA}"))
        return database

    def url(self, name: str) -> pulumi.Output[str]:
        """Return the URL of a database without its password: that is read from a file."""
        role, postgres = self._roles[name], self._postgres
        return pulumi.Output.concat(
            f"postgresql://{role}@",
            postgres.host,
            f":{postgres.port}/{role}?sslmode=require&passfile={CONFIG}/{pass_file(name)}",
        )

    def lake_env(self) -> dict[str, pulumi.Input[str]]:
        """Return lakeFS's settings of where its metadata is."""
        if self._table_is_lakes:
            return {
                "LAKEFS_DATABASE_TYPE": "dynamodb",
                "LAKEFS_DATABASE_DYNAMODB_TABLE_NAME": self._table.name,
                "LAKEFS_DATABASE_DYNAMODB_AWS_REGION": self._on.core.region,
            }
        return {
            "LAKEFS_DATABASE_TYPE": "postgres",
            "LAKEFS_DATABASE_POSTGRES_CONNECTION_STRING": f"@{{database:{_LAKE}}}",
        }

    def lake_statements(self) -> pulumi.Output[Sequence[Statement]] | None:
        """Return what lakeFS may do with its table; None where it has none."""
        if not self._table_is_lakes:
            return None
        both: pulumi.Output[Any] = pulumi.Output.all(self._table.arn, self._on.core.key.arn)
        return both.apply(_use_table)


def _use_table(found: list[str]) -> Sequence[Statement]:
    return permissions.table(*found)
