"""The JSON Schemas of config files, for editors.

`tidemill schema > stacks/stack.schema.json` writes the one of stack configs, `tidemill schema --teams` the other.
"""

from __future__ import annotations

import json
from typing import Any

from ..settings import StackConfig
from ..teams.rules import TeamsRules

__all__ = ["stack_schema", "stack_schema_text", "teams_schema", "teams_schema_text"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def stack_schema() -> dict[str, Any]:
    """Return the schema of a whole `Pulumi.TEAM-ENVIRONMENT.yaml`."""
    stack = StackConfig.model_json_schema()
    definitions = stack.pop("$defs", {})
    stack["properties"]["extends"] = {
        "type": "string",
        "description": "A config this one is laid over, relative to Pulumi.yaml.",
        "examples": ["stacks/config/base.yaml"],
    }
    # A base may hold what is required: the loader checks the merged config.
    stack["anyOf"] = [{"required": stack.pop("required", [])}, {"required": ["extends"]}]
    stack["description"] = "The platform of one team in one environment."
    config = {
        "description": "The engine's config: `tidemill:stack`, and secrets by names of their own.",
        "type": "object",
        "properties": {"tidemill:stack": stack},
        "required": ["tidemill:stack"],
        "examples": [{"tidemill:stack": {"team": "flights", "environment": "dev"}}],
    }
    return {
        "$schema": _DIALECT,
        "title": "tidemill stack config",
        "type": "object",
        "properties": {"config": config},
        "required": ["config"],
        "$defs": definitions,
    }


def stack_schema_text() -> str:
    """Return the schema as the text of `stack.schema.json`."""
    return json.dumps(stack_schema(), indent=2, ensure_ascii=False) + "\n"


def teams_schema() -> dict[str, Any]:
    """Return the schema of `teams.yaml`."""
    return {"$schema": _DIALECT, **TeamsRules.model_json_schema(), "title": "tidemill rules across teams"}


def teams_schema_text() -> str:
    """Return that schema as text."""
    return json.dumps(teams_schema(), indent=2, ensure_ascii=False) + "\n"
