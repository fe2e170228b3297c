"""The contents of a stack, and their file names in an archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .schema import ACCOUNTS, TRACKING

DATABASES = (TRACKING, ACCOUNTS)
"""MLflow's databases. They refer to commits of the lake, so they are read before the lake."""

SECRETS = "secrets.json.sealed"
JOBS = "jobs.json"

PRIVATE = (ACCOUNTS,)
"""Databases whose rows are encrypted in the archive, because they contain password hashes."""

SETTLED = ("prometheus", "alertmanager", "grafana")
"""Stores that do not move: metrics of the old platform, silences, edited dashboards."""


@dataclass(frozen=True)
class Step:
    """The progress of an export or import.

    Attributes:
        what: name of the current step.
        done, total: bytes; a total of 0 means unknown.
    """

    what: str
    done: int = 0
    total: int = 0


Progress = Callable[[Step], None]
"""Receives each step of an export or import."""


def stores_of(models: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the object stores that move before MLflow, whose versions they refer to, and whether each is encrypted."""
    return [
        *((f"capture-{model}", False) for model in models),
        *((f"access-{model}", True) for model in models),
        ("retraining", False),
        ("monitor", False),
        ("validation-reports", False),
    ]


def store_prefix(name: str) -> str:
    """Return the prefix of the names of a store's files."""
    return f"stores/{name}/"


def objects_prefix(repository: str) -> str:
    """Return the prefix of the names of a repository's objects."""
    return f"lake/{repository}/objects/"


def commits_file(repository: str) -> str:
    """Return the name of the file with a repository's commit ids, one a line."""
    return f"lake/{repository}/commits.txt"


def runs_file(repository: str) -> str:
    """Return the name of the file with a repository's action runs, one a line."""
    return f"lake/{repository}/runs.jsonl"


def table_file(database: str, table: str) -> str:
    """Return the name of the file with the rows of a table."""
    return f"{database}/{table}.jsonl{'.sealed' if database in PRIVATE else ''}"
