"""`schema`: print the JSON Schema of config files."""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    teams: Annotated[bool, typer.Option("--teams", help="Print the schema of teams.yaml instead.")] = False,
) -> None:
    """Print the JSON Schema of stack configs, for editors."""
    from ...stack_config.json_schema import stack_schema_text, teams_schema_text

    typer.echo(teams_schema_text() if teams else stack_schema_text(), nl=False)
