"""What is said to the one Postgres server of a stack; each word Database is a database and a role of its own in it."""

from __future__ import annotations

from .naming import SECRETS, TMPFS, database_role

__all__ = ["ADMIN_SECRET", "FOLDER", "HEALTH", "SERVER_ENV", "SERVER_TMPFS", "USER", "make_database", "pass_line"]

USER = 999
"""The user `postgres` of the image; the server insists on one which has a name."""

ADMIN_SECRET = "postgres-admin"  # noqa: S105 - its name
FOLDER = "/var/lib/postgresql/data"
"""Where the image declares a volume, which would be a nameless one if ours were mounted elsewhere."""

SERVER_ENV = {
    "PGDATA": f"{FOLDER}/server",
    "POSTGRES_PASSWORD_FILE": f"{SECRETS}/{ADMIN_SECRET}",
    # Nobody comes in without a password, and it never crosses the network.
    "POSTGRES_INITDB_ARGS": "--auth=scram-sha-256",
}
SERVER_TMPFS = {**TMPFS, "/var/run/postgresql": "rw,nosuid,nodev,size=16m,mode=1777"}
HEALTH = ["CMD", "pg_isready", "--quiet", "--username", "postgres", "--host", "127.0.0.1"]


def make_database(name: str, secret: str) -> str:
    """Return the script for psql which makes the database `name`, or gives its role the password of now.

    psql reads the password out of its file, so that it stands neither here nor in an argument.
    """
    role = database_role(name)
    # The name is one of ours, of letters, digits and `_`.
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


def pass_line(secret: str) -> str:
    """Return the text of a file in which libpq finds a password, whatever it connects to."""
    return f"*:*:*:*:@{{secret:{secret}}}\n"
