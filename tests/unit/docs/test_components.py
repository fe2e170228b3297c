"""docs/components.md names everything that a program can import, and its examples run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from tidemill import components

from tests.support.recorded import record
from tests.support.tree import ROOT

PAGE = ROOT / "docs" / "components.md"
TEXT = PAGE.read_text(encoding="utf-8")
WORDS = set(re.findall(r"[A-Za-z_]\w*", " ".join(re.findall(r"`([^`\n]+)`", TEXT))))


def test_every_name_is_there() -> None:
    assert set(components.__all__) - WORDS == set()


@pytest.mark.parametrize("brought", [components.ExistingRegistry, components.ExistingLake])
def test_every_field_of_what_is_brought_is_there(brought: Any) -> None:
    assert {field.name for field in dataclasses.fields(brought)} - WORDS == set()


def test_the_placeholders_are_those_which_targets_know() -> None:
    known = set(re.findall(r"@\{([a-z-]+)", (ROOT / "components" / "targets" / "base.py").read_text(encoding="utf-8")))
    assert set(re.findall(r"@\{([a-z-]+)", TEXT)) <= known


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    assert [target for target in targets if not (PAGE.parent / target).is_file()] == []


def test_the_lines_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: harbour\nruntime: python\n")
    lines = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    names = "from tidemill.components import *\n"
    space: dict[str, Any] = {}
    recorded = record(lambda: exec(names + lines, space))  # noqa: S102 - it is our own page
    assert {"lakefs", "mlflow", "serving-tides", "prometheus"} <= set(recorded.of("Service"))
