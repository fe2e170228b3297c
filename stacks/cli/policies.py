"""`policies`: what the policy pack asks, and where it is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .context import JsonOption
from .inspect import print_tables, table_of

__all__ = ["policies"]


def policies(
    path: Annotated[bool, typer.Option("--path", help="Print the pack's folder alone, for `--policy-pack`.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the rules of the policy pack, and its folder for a plain `pulumi preview --policy-pack`."""
    from ...components.policies.rules import RULES
    from ..engine.policies import PACK

    if path:
        typer.echo(PACK)
    elif as_json:
        rules = [
            {
                "name": rule.name,
                "level": rule.level,
                "title": rule.title,
                "parameters": {name: one.default for name, one in rule.parameters.items()},
            }
            for rule in RULES
        ]
        typer.echo(json.dumps({"path": str(PACK), "rules": rules}, indent=2))
    else:
        table = table_of("rule", "level", "what it asks")
        for rule in RULES:
            table.add_row(rule.name, rule.level, rule.title)
        print_tables(table, f"the pack is in {PACK}")
