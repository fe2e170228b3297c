"""`open`: open a service in the browser."""

from __future__ import annotations

import json

import typer

from ....runtime.common.errors import UserError
from ...operations import deployed_operations
from ..options import JsonOption, ServiceArgument, StackOption
from ..selection import load_chosen_stack, require_service


def open_(service: ServiceArgument, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Open a service in the browser. Prints its user and where its password is."""
    import webbrowser

    from ...overview import LOGINS

    operations = deployed_operations(load_chosen_stack(stack))
    require_service(service, (found.name for found in operations.services()))
    url = operations.url(service)
    if url is None:
        raise UserError(
            "it has no address that this machine can reach", field="service", value=service, hint="run `tidemill up`"
        )
    user, secret = LOGINS.get(service, (None, None))
    place = operations.secret_place(secret) if secret else None
    file = operations.secret_file(secret) if secret else None
    if as_json:
        login = {"user": user, "password_file": str(file)} if file else {"user": user, "password": place}
        typer.echo(json.dumps({"url": url, **(login if place or file else {})}))
        return
    typer.echo(url)
    if place and user:
        who = f"the user in {operations.secret_place(user)}" if service == "lakefs" else f"user {user}"
        typer.echo(f"log in as {who} with the password in {place}")
    webbrowser.open(url)
