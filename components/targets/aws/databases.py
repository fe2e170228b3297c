"""Creates the stack's databases in one Postgres server, each with its own role. lakeFS can use DynamoDB instead."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pulumi
import pulumi_aws as aws

from ...images.container_layout import CONFIG, SECRETS
from ...provider import resources as native
from ..base import DatabaseRef, SecretArgs
from ..options import after
from ..postgres_access import database_role, pass_file
from . import permissions
from .foundation import Foundation
from .permissions import Statement
from .secrets import Secrets
from .settings import TaskSize
from .storage import Postgres, lake_table
from .tasks import StoredSecret, TaskSpec

CLIENT_SIZE = TaskSize(cpu=256, memory_mb=512)
"""Size of a task that only calls other servers."""

_GRAFANA = "grafana"
_LAKE = "lakefs"


class Databases:
    """Creates databases.

    Args:
        foundation: the shared parts of the stack.
        secrets: the stack's secrets.
    """

    def __init__(self, foundation: Foundation, secrets: Secrets) -> None:
        self._base = foundation
        self._secrets = secrets
        self._roles: dict[str, str] = {}
        self._lake_in_table = foundation.core.settings.lake_metadata == "dynamodb"

    def __contains__(self, name: str) -> bool:
        """Return whether the database `name` is in Postgres."""
        return name in self._roles

    @cached_property
    def _postgres(self) -> Postgres:
        return Postgres(self._base.core, self._base.network)

    @cached_property
    def _table(self) -> aws.dynamodb.Table:
        return lake_table(self._base.core)

    def make(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Create a database and the role that owns it in Postgres, or the DynamoDB table of lakeFS."""
        if name == _LAKE and self._lake_in_table:
            return DatabaseRef(name, self._table)
        base, postgres = self._base, self._postgres
        secret = self._secrets.make(f"database-{name}", SecretArgs(), opts)
        role = self._roles[name] = database_role(name)
        made = base.tasks.make(
            f"databases-{name}",
            TaskSpec(
                image=base.images.get("mlflow"),
                command=["python", "-m", "tidemill.runtime.cloud.databases", role, f"{SECRETS}/{secret.name}"],
                env={"PGHOST": postgres.host, "PGPORT": str(postgres.port)},
                secrets=self._secrets.all_of([secret]),
                raw_env={
                    variable: (pulumi.Output.concat(postgres.admin, f":{key}::"), postgres.admin)
                    for variable, key in (("PGUSER", "username"), ("PGPASSWORD", "password"))
                },
                size=CLIENT_SIZE,
                group="databases",
            ),
            opts,
        )
        job = native.TaskJob(
            f"database-{name}",
            name=f"database-{name}",
            timeout=600.0,
            triggers={"files": made.files},
            opts=after(opts, [*postgres.resources, *base.network.ready]),
            **base.run(made, postgres=True),
        )
        return DatabaseRef(name, job)

    def grafana(
        self,
        env: dict[str, pulumi.Input[str]],
        secret_env: dict[str, tuple[str, StoredSecret]],
        opts: pulumi.ResourceOptions,
    ) -> DatabaseRef:
        """Let Grafana store its data in Postgres, because the disk of a task is deleted with the task."""
        database = self.make(_GRAFANA, opts)
        postgres = self._postgres
        env |= {
            "GF_DATABASE_TYPE": "postgres",
            "GF_DATABASE_HOST": pulumi.Output.concat(postgres.host, f":{postgres.port}"),
            "GF_DATABASE_NAME": _GRAFANA,
            "GF_DATABASE_USER": _GRAFANA,
            "GF_DATABASE_SSL_MODE": "require",
        }
        secret_env["GF_DATABASE_PASSWORD"] = (f"database-{_GRAFANA}", self._secrets.stored(f"database-{_GRAFANA}"))
        return database

    def url(self, name: str) -> pulumi.Output[str]:
        """Return the URL of a database; libpq reads the password from a file."""
        role, postgres = self._roles[name], self._postgres
        return pulumi.Output.concat(
            f"postgresql://{role}@",
            postgres.host,
            f":{postgres.port}/{role}?sslmode=require&passfile={CONFIG}/{pass_file(name)}",
        )

    def lake_env(self) -> dict[str, pulumi.Input[str]]:
        """Return the environment variables that tell lakeFS where its metadata is."""
        if self._lake_in_table:
            return {
                "LAKEFS_DATABASE_TYPE": "dynamodb",
                "LAKEFS_DATABASE_DYNAMODB_TABLE_NAME": self._table.name,
                "LAKEFS_DATABASE_DYNAMODB_AWS_REGION": self._base.core.region,
            }
        return {
            "LAKEFS_DATABASE_TYPE": "postgres",
            "LAKEFS_DATABASE_POSTGRES_CONNECTION_STRING": f"@{{database:{_LAKE}}}",
        }

    def lake_statements(self) -> pulumi.Output[Sequence[Statement]] | None:
        """Return the permissions of lakeFS on its table, or None if it has none."""
        if not self._lake_in_table:
            return None
        known: pulumi.Output[Any] = pulumi.Output.all(self._table.arn, self._base.core.key.arn)
        return known.apply(_use_table)


def _use_table(found: list[str]) -> Sequence[Statement]:
    return permissions.table(*found)
