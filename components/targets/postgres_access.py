"""How services name and open their databases in a stack's Postgres server. Imports no Pulumi."""

from __future__ import annotations


def database_role(name: str) -> str:
    """Return the name in Postgres of the database `name`, and of the role that owns it."""
    return name.replace("-", "_")


def pass_file(name: str) -> str:
    """Return the name of the file with the password of the database `name`."""
    return f"pgpass-{name}"


def pass_line(password: str) -> str:
    """Return the text of a password file that libpq accepts for every server, database and user.

    Args:
        password: the password, or the placeholder of the secret with it.
    """
    return f"*:*:*:*:{password}\n"
