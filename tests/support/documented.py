"""Generates the tables in docs/serving.md; `python -m tests.support.documented` updates them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from tidemill.components.settings import ServeConfig, format_duration
from tidemill.runtime.serving.settings import ServingSettings

from tests.compat import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
TABLES: dict[str, type[BaseModel]] = {"In a stack config": ServeConfig, "Settings": ServingSettings}
_HEAD = "| key | default | |\n|---|---|---|\n"


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield one table row for each setting."""
    for name, field in model.model_fields.items():
        found = [field.annotation, *get_args(field.annotation)]
        nested = next((kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if nested is None or field.default is None:
            yield f"| `{prefix}{name}` | {_default(field)} | {field.description or ''} |"
        if nested is not None:
            yield from rows(nested, f"{prefix}{name}.")


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    return f"`{format_duration(value) if isinstance(value, timedelta) else json.dumps(value)}`"


def section(text: str, heading: str) -> str:
    """Return the text below a third-level heading."""
    return text.split(f"### {heading}")[1].split("\n### ")[0]


def renewed(text: str) -> str:
    """Return the page with its tables updated."""
    for heading, model in TABLES.items():
        old = section(text, heading)
        lines = "".join(f"{row}\n" for row in rows(model))
        new = re.sub(rf"{re.escape(_HEAD)}(\|.*\n)*", lambda _, lines=lines: _HEAD + lines, old)
        text = text.replace(f"### {heading}{old}", f"### {heading}{new}")
    return table.renewed(text)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
