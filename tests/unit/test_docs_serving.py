"""docs/serving.md leaves no setting, metric, option or lineage key out, and says the defaults which there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest
import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from tidemill.components.settings import ServeConfig, format_duration
from tidemill.runtime.serving.settings import ServingSettings
from tidemill.stacks.cli.app import app

from tests.support.tree import ROOT

TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the line of a table which each setting wants."""
    for name, field in model.model_fields.items():
        found = [field.annotation, *get_args(field.annotation)]
        nested = next((kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if nested is not None:
            if field.default is None:
                yield f"| `{prefix}{name}` | `null` | {field.description} |"
            yield from rows(nested, f"{prefix}{name}.")
            continue
        yield f"| `{prefix}{name}` | {default(field)} | {field.description or ''} |"


def default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if isinstance(value, timedelta):
        return f"`{format_duration(value)}`"
    return f"`{json.dumps(value)}`"


def section(heading: str) -> str:
    return TEXT.split(f"### {heading}")[1].split("\n### ")[0]


@pytest.mark.parametrize(("heading", "model"), [("Settings", ServingSettings), ("In a stack config", ServeConfig)])
def test_every_setting_is_there_with_its_default(heading: str, model: type[BaseModel]) -> None:
    lines = section(heading).splitlines()
    missing = [row for row in rows(model) if row not in lines]
    assert missing == [], "\n".join(["docs/serving.md wants these lines:", *missing])


def test_every_metric_is_there() -> None:
    sources = [*(ROOT / "runtime" / "serving").rglob("*.py")]
    made = {name for file in sources for name in re.findall(r'"(tidemill_[a-z_]+)"', file.read_text())}
    assert len(made) > 10
    documented = {name.removesuffix("_total") for name in re.findall(r"`(tidemill_[a-z_]+)", TEXT)}
    assert made - documented == set()
    assert documented - made == set(), "what is documented and not there"


@pytest.mark.parametrize(
    "command", ["serve", "score", "keys add", "keys list", "keys revoke", "capture find", "capture forget"]
)
def test_every_option_is_there(command: str) -> None:
    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    text = section(f"`tidemill {command.split()[0]}")
    options = [option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)]
    missing = [option for option in options if option.startswith("--") and f"`{option}`" not in text]
    assert [name for name in missing if name != "--help"] == []


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
