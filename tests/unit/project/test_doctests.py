"""The examples in docstrings are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import textwrap

import pytest

from tests.support.platform import ROOT

MODULES = sorted(
    "tidemill." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("components", "runtime", "stacks", "templates")
    for path in (ROOT / package).rglob("*.py")
    if re.search(r"^ *>>> ", path.read_text(), flags=re.MULTILINE)
)


def test_there_are_examples() -> None:
    assert len(MODULES) > 10


@pytest.mark.parametrize("name", ["data", "registry", "training"])
def test_examples_that_need_a_platform_name_what_there_is(name: str) -> None:
    """They have no prompt: the integration tests call the same functions."""
    text = importlib.import_module(f"tidemill.runtime.{name}").__doc__ or ""
    example = textwrap.dedent("\n".join(line for line in text.splitlines() if line.startswith("    ") or not line))
    used = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Attribute)]
    assert used
    packages = {each: importlib.import_module(f"tidemill.runtime.{each}") for each in ("data", "registry", "training")}
    scope = {**packages, "run": packages["training"].Run}
    for node in used:
        if isinstance(node.value, ast.Name) and node.value.id in scope:
            assert hasattr(scope[node.value.id], node.attr), ast.unparse(node)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
