"""What a stack's contents are, and under which names an archive keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .schema import ACCOUNTS, TRACKING

__all__ = [
    "DATABASES",
    "JOBS",
    "PRIVATE",
    "SECRETS",
    "SETTLED",
    "Step",
    "Tell",
    "commits_file",
    "objects_prefix",
    "runs_file",
    "store_prefix",
    "stores_of",
    "table_file",
]

DATABASES = (TRACKING, ACCOUNTS)
"""MLflow's databases. What refers to the lake's commits is read before the lake is."""

SECRETS = "secrets.json.sealed"
JOBS = "jobs.json"

PRIVATE = (ACCOUNTS,)
"""Databases whose rows are encrypted in the archive: they hold hashes of passwords."""

SETTLED = ("prometheus", "alertmanager", "grafana")
"""Stores which stay where they are: measurements of the old platform, silences, edited dashboards."""


@dataclass(frozen=True)
class Step:
    """How far it is.

    Attributes:
        what: what is at work, for people.
        done, total: bytes; a total of 0 is not known.
    """

    what: str
    done: int = 0
    total: int = 0


Tell = Callable[[Step], None]


def stores_of(models: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the object stores which move, and whether each is encrypted in the archive.

    What refers to model versions comes before MLflow does.
    """
    return [
        *((f"capture-{model}", False) for model in models),
        *((f"access-{model}", True) for model in models),
        ("retraining", False),
        ("monitor", False),
        ("validation-reports", False),
    ]


def store_prefix(name: str) -> str:
    """Return what the names of a store's files begin with."""
    return f"stores/{name}/"


def objects_prefix(repository: str) -> str:
    """Return what the names of the files of a repository's objects begin with."""
    return f"lake/{repository}/objects/"


def commits_file(repository: str) -> str:
    """Return the name of the file with the ids of a repository's commits, one a line."""
    return f"lake/{repository}/commits.txt"


def runs_file(repository: str) -> str:
    """Return the name of the file with the runs of a repository's actions, one a line."""
    return f"lake/{repository}/runs.jsonl"


def table_file(database: str, table: str) -> str:
    """Return the name of the file with the rows of a table."""
    return f"{database}/{table}.jsonl{'.sealed' if database in PRIVATE else ''}"
