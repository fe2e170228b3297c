"""Templates: every value passes through a filter; missing values and templates are errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import Environment, nodes
from tidemill.runtime.common.errors import TidemillError
from tidemill.templates import render
from tidemill.templates.formats import FILTERS
from tidemill.templates.rendering import render_from

TEMPLATES = Path(__file__).resolve().parents[3] / "templates"
ALL = sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.j2"))


def escapes(node: nodes.Node, safe: set[str]) -> bool:
    """Return whether the output of `node` is a constant of the template or passed through a filter."""
    if isinstance(node, nodes.TemplateData | nodes.Const):
        return True
    if isinstance(node, nodes.Filter):
        return node.name in FILTERS
    if isinstance(node, nodes.CondExpr):
        return escapes(node.expr1, safe) and (node.expr2 is None or escapes(node.expr2, safe))
    if isinstance(node, nodes.Concat):
        return all(escapes(part, safe) for part in node.nodes)
    if isinstance(node, nodes.BinExpr):
        return escapes(node.left, safe) and escapes(node.right, safe)
    if isinstance(node, nodes.Getattr):
        return isinstance(node.node, nodes.Name) and node.node.name == "loop"
    return isinstance(node, nodes.Name) and node.name in safe


@pytest.mark.parametrize("template", ALL)
def test_every_value_goes_through_a_filter(template: str) -> None:
    environment = Environment(autoescape=False)  # noqa: S701 - it is only parsed
    environment.filters.update(FILTERS)
    tree = environment.parse((TEMPLATES / template).read_text(encoding="utf-8"))
    safe: set[str] = set()
    for made in tree.find_all(nodes.Assign):
        if isinstance(made.target, nodes.Name) and escapes(made.node, safe):
            safe.add(made.target.name)
    raw = [
        f"line {part.lineno}"
        for output in tree.find_all(nodes.Output)
        for part in output.nodes
        if not escapes(part, safe)
    ]
    assert not raw, f"{template}: a value enters as it is: {', '.join(raw)}"


def test_a_missing_value_is_an_error_with_template_and_name() -> None:
    with pytest.raises(TidemillError) as caught:
        render("monitoring/web.yml.j2", user="admin")
    assert (caught.value.field, caught.value.value) == ("template", "monitoring/web.yml.j2")
    assert "'secret' is undefined" in caught.value.message


def test_a_missing_template_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_text("{{ one | yaml }}")
    assert render_from(tmp_path, "a.j2", {"one": "no"}) == '"no"'
    for call in (lambda: render("moon.j2"), lambda: render_from(tmp_path, "moon.j2", {})):
        with pytest.raises(TidemillError, match=r"no such template, got 'moon\.j2'"):
            call()
