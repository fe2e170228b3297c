"""The JSON Schemas of config files, for editors.

`tidemill schema` prints the schema of stack configs, and `tidemill schema --teams` that of `teams.yaml`.
"""

from __future__ import annotations

import json
from typing import Any

from ..settings import StackConfig
from ..teams.rules import TeamsRules

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def stack_schema() -> dict[str, Any]:
    """Return the schema of `Pulumi.TEAM-ENVIRONMENT.yaml`."""
    stack = StackConfig.model_json_schema()
    definitions = stack.pop("$defs", {})
    stack["properties"]["extends"] = {
        "type": "string",
        "description": "A base config whose values this one overrides; path relative to Pulumi.yaml.",
        "examples": ["stacks/config/base.yaml"],
    }
    # A base may have the required keys; the loader checks the merged config.
    stack["anyOf"] = [{"required": stack.pop("required", [])}, {"required": ["extends"]}]
    stack["description"] = "The platform of one team in one environment."
    config = {
        "description": "The config of Pulumi: `tidemill:stack`, and secrets under their own names.",
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
    """Return the text of `stack.schema.json`."""
    return json.dumps(stack_schema(), indent=2, ensure_ascii=False) + "\n"


def teams_schema() -> dict[str, Any]:
    """Return the schema of `teams.yaml`."""
    return {"$schema": _DIALECT, **TeamsRules.model_json_schema(), "title": "tidemill rules across teams"}


def teams_schema_text() -> str:
    """Return the schema of `teams.yaml` as text."""
    return json.dumps(teams_schema(), indent=2, ensure_ascii=False) + "\n"
