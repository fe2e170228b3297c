"""People's accounts in the stack's MLflow, through its REST interface as the administrator.

MLflow's database of accounts is the only record: a person is an account with one or more of the roles `tidemill-read`,
`tidemill-train` and `tidemill-promote`, which the server creates when it starts.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..components.targets.operations import Operations
from ..runtime.common.errors import NotFoundError, PlatformError, UserError
from ..runtime.common.http import json_body, open_client, server_message, unreachable
from ..runtime.registry.accounts import (
    ADMIN,
    PEOPLE,
    ROLE_PREFIX,
    WORKSPACE,
    Permitted,
    name_problem,
    role_names,
    service_of,
)

if TYPE_CHECKING:
    import httpx

_USERS = "/api/2.0/mlflow/users"
_ROLES = "/api/3.0/mlflow/roles"


@dataclass(frozen=True)
class Person:
    """A person's account.

    Attributes:
        name: its name.
        may: its roles, sorted; empty for an account without access, which someone created in MLflow itself.
    """

    name: str
    may: tuple[str, ...]


class People:
    """The people who have an account in the MLflow server of a stack; a context manager."""

    def __init__(self, operations: Operations) -> None:
        """Connect to the server of the stack behind `operations`.

        Raises:
            UserError: the stack has no MLflow of its own, or this machine cannot reach it.
            NotFoundError: the administrator's password is not available to this machine.
        """
        url = operations.url("mlflow")
        if url is None:
            raise UserError(
                "has no address that this machine can reach",
                field="mlflow",
                hint="run `tidemill up`, or `tidemill start`",
            )
        self._url = url
        self._client = open_client(url, auth=(ADMIN, operations.secret(f"mlflow-{ADMIN}")), timeout=30)

    def __enter__(self) -> People:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def all(self) -> list[Person]:
        """Return every person, by name."""
        found = self._send("GET", f"{_USERS}/list")["users"]
        return [
            Person(user["username"], tuple(sorted(role_names(role["name"] for role in user["roles"]))))
            for user in sorted(cast("list[dict[str, Any]]", found), key=lambda user: user["username"])
            if not user["is_admin"] and not service_of(user["username"])
        ]

    def add(self, name: str, may: Collection[Permitted]) -> str:
        """Create the account `name` with the roles `may`, and return its password.

        Raises:
            UserError: the name is not valid, belongs to the platform, or already has an account.
        """
        if problem := name_problem(name):
            raise UserError(problem, field="NAME", value=name, hint="choose another name")
        roles = self._role_ids()
        if name in {person.name for person in self.all()}:
            hint = f"to change it, run `tidemill users revoke {name}` first"
            raise UserError("already has an account", field="NAME", value=name, hint=hint)
        password = secrets.token_urlsafe(24)
        self._send("POST", f"{_USERS}/create", {"username": name, "password": password})
        # The account has no access until it has a role.
        for role in sorted(may):
            self._send("POST", f"{_ROLES}/assign", {"username": name, "role_id": roles[role]})
        return password

    def revoke(self, name: str) -> None:
        """Delete the account `name`; the server refuses it from the next request on.

        Raises:
            UserError: the account belongs to the platform.
            NotFoundError: there is no such account.
        """
        if service_of(name) or name == ADMIN:
            raise UserError("is an account of the platform", field="NAME", value=name, hint="see `tidemill users list`")
        if name not in {person.name for person in self.all()}:
            raise NotFoundError("has no account", field="NAME", value=name, hint="see `tidemill users list`")
        self._send("DELETE", f"{_USERS}/delete", {"username": name})

    def _role_ids(self) -> dict[str, int]:
        """Return role -> MLflow's id.

        Raises:
            PlatformError: the server does not have them.
        """
        found = cast("list[dict[str, Any]]", self._send("GET", f"{_ROLES}/list?workspace={WORKSPACE}")["roles"])
        ids = {role["name"].removeprefix(ROLE_PREFIX): int(role["id"]) for role in found}
        if missing := PEOPLE - ids.keys():
            # An MLflow that an earlier release started.
            raise PlatformError(
                "does not have the roles of people", field="mlflow", value=sorted(missing), hint="run `tidemill up`"
            )
        return ids

    def _send(self, method: str, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import httpx

        try:
            answer: httpx.Response = self._client.request(method, route, json=body)
        except httpx.TransportError as error:
            raise unreachable("mlflow", self._url, error) from None
        found = json_body(answer)
        if not answer.is_success:
            message = server_message(found, answer.text)
            raise PlatformError(
                f"answered {answer.status_code} to {method} {route} ({message})",
                field="mlflow",
                hint="see `tidemill logs mlflow`",
            )
        return cast("dict[str, Any]", found)
