"""Creates a database on a Postgres server and the role that owns it. Runs inside the stack's network.

    PGHOST=... PGPORT=... PGUSER=... PGPASSWORD=... python -m tidemill.runtime.cloud.databases NAME PASSWORD-FILE

It may run again; the role then gets the current password.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.secrets import read_secret


def create_database(connection: Any, name: str, password: str) -> None:
    """Create the database `name` and the role of the same name, unless they exist; set the role's password.

    Args:
        connection: in autocommit mode, as a user who may create databases and roles.
        name: of the database and its role.
        password: of the role.
    """
    from psycopg2 import sql
    from psycopg2.extensions import encrypt_password

    role = sql.Identifier(name)
    # The server logs failed statements, so the statement contains only the hash of the password.
    hashed = encrypt_password(password, name, connection, "scram-sha-256")
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        cursor.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD %s").format(role), (hashed,))
        # Only a member of the role can create a database that the role owns.
        cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role))


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Create the database that `arguments` name; return the exit code."""
    import psycopg2

    name, file = arguments
    password = read_secret(Path(file))
    try:
        connection = psycopg2.connect(
            dbname="postgres", sslmode=environ.get("PGSSLMODE", "require"), connect_timeout=30
        )
    except psycopg2.OperationalError as error:
        sys.stderr.write(f"Postgres does not answer: {str(error).strip()}\n")
        return 3
    try:
        connection.autocommit = True
        create_database(connection, name, password)
    except psycopg2.Error as error:
        sys.stderr.write(f"{name}: Postgres refuses ({error.pgcode})\n")
        return 3
    finally:
        connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
