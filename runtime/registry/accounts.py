"""The accounts of the stack's MLflow server and their roles. Imports no MLflow.

MLflow's own database of accounts is the only record: the services' accounts by their names, and people by the MLflow
roles `tidemill-read`, `tidemill-train` and `tidemill-promote` that are assigned to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal

from ..common.tags import ACCOUNT, GATE, JOB_ID, MOVED

ADMIN: Final = "admin"
"""The administrator: creates experiments, registered models, accounts and permissions. `tidemill up` uses it."""

SERVING: Final = "serving"
MONITOR: Final = "monitor"
TRAINING: Final = "training"
RETRAINING: Final = "retraining"
METRICS: Final = "metrics"
SERVICES: Final = frozenset({SERVING, MONITOR, TRAINING, RETRAINING, METRICS})
"""Accounts of services and jobs, which are also their roles."""

Permitted = Literal["read", "train", "promote"]
READ: Final = "read"
TRAIN: Final = "train"
PROMOTE: Final = "promote"
PEOPLE: Final = frozenset({READ, TRAIN, PROMOTE})
"""Roles of people."""

GRANTS: Final[Mapping[Permitted, Mapping[str, str]]] = {
    READ: {"experiment": "READ", "registered_model": "READ"},
    TRAIN: {"experiment": "EDIT", "registered_model": "EDIT"},
    # MLflow requires MANAGE to remove an alias.
    PROMOTE: {"experiment": "READ", "registered_model": "MANAGE"},
}
"""MLflow's permissions of each role of people, on all experiments and all registered models."""

OWN_HOSTS: Final = ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*")
"""Host headers of requests through an SSH tunnel. A browser does not send them for a page of another site."""

ROLE_PREFIX: Final = "tidemill-"
WORKSPACE: Final = "default"
"""MLflow's workspace of the roles; the stack's server has no other workspace."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?")


def service_of(name: str) -> str | None:
    """Return the service whose account `name` is, or None. On a server of several stacks, the stack's name precedes it.

    >>> service_of("serving"), service_of("flights-dev-serving"), service_of("ana")
    ('serving', 'serving', None)
    """
    service = name.rpartition("-")[2]
    return service if service in SERVICES else None


def trainer_of(name: str) -> str:
    """Return the account that trains for the account `name`.

    On a server of several stacks, it is that of the same stack. Without accounts of services, it is the same account.

    >>> trainer_of("retraining"), trainer_of("flights-dev-retraining"), trainer_of("ana")
    ('training', 'flights-dev-training', 'ana')
    """
    service = service_of(name)
    return name.removesuffix(service) + TRAINING if service else name


@dataclass(frozen=True)
class Account:
    """The account of a request.

    Attributes:
        name: its name.
        roles: its roles: that of a service, or those of a person.
        admin: whether it is an administrator.
    """

    name: str
    roles: frozenset[str]
    admin: bool = False


CURRENT: ContextVar[Account | None] = ContextVar("tidemill_account", default=None)
"""The account of the request that the server handles; None outside a request."""


def role_names(roles: Iterable[str]) -> frozenset[str]:
    """Return the roles of people among the names of MLflow roles.

    >>> sorted(role_names(["tidemill-train", "tidemill-serving", "__user_3__"]))
    ['train']
    """
    return frozenset(name.removeprefix(ROLE_PREFIX) for name in roles if name.startswith(ROLE_PREFIX)) & PEOPLE


def name_problem(name: str) -> str | None:
    """Return why a person cannot have the account `name`, or None.

    >>> name_problem("serving")
    'is the name of an account of the platform'
    >>> name_problem("ana@example.org") is None
    True
    """
    if service_of(name) or name == ADMIN:
        return "is the name of an account of the platform"
    if not _NAME.fullmatch(name):
        return "is not a valid name: use up to 64 of a-z 0-9 . _ @ -, with a letter or digit at both ends"
    return None


def who_sets(key: str) -> str | None:
    """Return who may set the tag `key` if the account of the request may not, else None."""
    if key == ACCOUNT or key.startswith(MOVED):
        return "the server"
    account = CURRENT.get()
    if account is None or account.admin:
        return None
    if key == JOB_ID and TRAINING not in account.roles:
        return "the training account"
    if key.startswith(GATE) and account.roles.isdisjoint({RETRAINING, PROMOTE}):
        return "an account that may promote"
    return None


def changer_of(owner: str | None) -> str | None:
    """Return the account that may change what `owner` created if the account of the request may not, else None.

    What a service's account created, only this account and administrators change.
    """
    account = CURRENT.get()
    if account is None or account.admin or owner is None or service_of(owner) is None:
        return None
    return None if owner == account.name else owner
