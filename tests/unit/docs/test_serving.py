"""docs/serving.md names every setting with its default, every metric and every option."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main
from tidemill.stacks.cli.app import app

from tests.support.documented import PAGE, TABLES, renewed, rows, section
from tests.support.tree import ROOT

TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = ["serve", "score", "keys add", "keys list", "keys revoke", "capture find", "capture forget", "image"]


def test_every_setting_is_there_with_its_default() -> None:
    assert renewed(TEXT) == TEXT, "run `python -m tests.support.documented`"
    for heading, model in TABLES.items():
        listed = section(TEXT, heading).splitlines()
        assert [row for row in rows(model) if row not in listed] == []


def test_every_metric_is_there() -> None:
    sources = [file for name in ("serving", "monitor") for file in (ROOT / "runtime" / name).rglob("*.py")]
    made = {name for file in sources for name in re.findall(r'"(tidemill_[a-z_]+)"', file.read_text())}
    assert len(made) > 10
    documented = {name.removesuffix("_total") for name in re.findall(r"`(tidemill_[a-z_]+)", TEXT)}
    assert made - documented == set()
    assert documented - made == set(), "documented, but not in the code"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_there(command: str) -> None:
    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    text = section(TEXT, f"`tidemill {command.split()[0]}")
    options = [option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)]
    missing = [option for option in options if option.startswith("--") and f"`{option}`" not in text]
    assert [name for name in missing if name != "--help"] == []


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
