"""The JSON Schema of a stack config file, for editors: `tidemill schema > stacks/stack.schema.json`."""

from __future__ import annotations

import json
from typing import Any

from .settings import StackConfig

__all__ = ["stack_schema", "stack_schema_text"]


def stack_schema() -> dict[str, Any]:
    """Return the schema of a whole `Pulumi.TEAM-ENVIRONMENT.yaml`."""
    stack = StackConfig.model_json_schema()
    definitions = stack.pop("$defs", {})
    stack["properties"]["extends"] = {
        "type": "string",
        "description": "A config this one is laid over, relative to Pulumi.yaml.",
    }
    # A base may hold what is required: the loader checks the merged config.
    stack["anyOf"] = [{"required": stack.pop("required", [])}, {"required": ["extends"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tidemill stack config",
        "type": "object",
        "properties": {
            "config": {"type": "object", "properties": {"tidemill:stack": stack}, "required": ["tidemill:stack"]}
        },
        "required": ["config"],
        "$defs": definitions,
    }


def stack_schema_text() -> str:
    """Return the schema as the text of `stack.schema.json`."""
    return json.dumps(stack_schema(), indent=2, ensure_ascii=False) + "\n"
