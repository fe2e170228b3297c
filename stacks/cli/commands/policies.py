"""`policies`: list the rules of the policy pack."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..options import JsonOption
from ..terminal import print_tables, table_with


def policies(
    path: Annotated[
        bool, typer.Option("--path", help="Print only the folder of the pack, for `pulumi --policy-pack`.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the rules of the policy pack. Also prints its folder, for `pulumi preview --policy-pack`."""
    from ....components.policies.rules import RULES
    from ...engine.policies import PACK

    if path:
        typer.echo(PACK)
    elif as_json:
        rules = [
            {
                "name": rule.name,
                "level": rule.level,
                "title": rule.title,
                "parameters": {name: parameter.default for name, parameter in rule.parameters.items()},
            }
            for rule in RULES
        ]
        typer.echo(json.dumps({"path": str(PACK), "rules": rules}, indent=2))
    else:
        table = table_with("rule", "level", "requirement")
        for rule in RULES:
            table.add_row(rule.name, rule.level, rule.title)
        print_tables(table, f"the pack is in {PACK}")
