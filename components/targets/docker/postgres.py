"""Settings and scripts of a stack's Postgres server, in which each database has its own role."""

from __future__ import annotations

from ...images.container_layout import SECRETS
from ..postgres_access import database_role
from .naming import TMPFS

USER = 999
"""The user `postgres` of the image; the server requires a user with a name."""

ADMIN_SECRET = "postgres-admin"  # noqa: S105 - its name
FOLDER = "/var/lib/postgresql/data"
"""Where the image declares a volume. Mounting ours elsewhere would leave an anonymous volume here."""

SERVER_ENV = {
    "PGDATA": f"{FOLDER}/server",
    "POSTGRES_PASSWORD_FILE": f"{SECRETS}/{ADMIN_SECRET}",
    # Require a password from everyone, and never send it over the network.
    "POSTGRES_INITDB_ARGS": "--auth=scram-sha-256",
}
SERVER_TMPFS = {**TMPFS, "/var/run/postgresql": "rw,nosuid,nodev,size=16m,mode=1777"}
HEALTH = ["CMD", "pg_isready", "--quiet", "--username", "postgres", "--host", "127.0.0.1"]


def make_database(name: str, secret: str) -> str:
    """Return the psql script that creates the database `name` and its role, or updates the role's password.

    psql reads the password from the file of `secret`, so it appears neither here nor in an argument.
    """
    role = database_role(name)
    # The name is one of ours: letters, digits and `_`.
    return f"""\\set ON_ERROR_STOP on
-- A statement which fails is repeated in the server's log, and a password stands in one.
SET log_min_error_statement TO panic;
\\set password `cat {SECRETS}/{secret}`
SELECT 'CREATE ROLE "{role}" LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec
ALTER ROLE "{role}" LOGIN PASSWORD :'password';
SELECT 'CREATE DATABASE "{role}" OWNER "{role}"' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{role}')
\\gexec
REVOKE ALL ON DATABASE "{role}" FROM PUBLIC;
"""  # noqa: S608 - see above
