"""Each format's reader gets exactly the written value back, or the value is refused."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
import tomllib
from io import StringIO
from typing import Any

import dockerfile
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from ruamel.yaml import YAML
from tidemill.runtime.common.errors import TidemillError
from tidemill.templates.formats import FILTERS

from tests.support.hostile_text import texts, whole

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | whole
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(whole, inner, max_size=3), max_leaves=6
)


def read_workflow(text: str) -> Any:
    """Return what GitHub reads: YAML, with expressions of one quoted text evaluated once."""

    def evaluated(value: Any) -> Any:
        if isinstance(value, dict):
            return {evaluated(key): evaluated(one) for key, one in value.items()}
        if isinstance(value, list):
            return [evaluated(one) for one in value]
        if not isinstance(value, str):
            return value
        assert all(re.fullmatch(r" '\$' ", inner) for inner in re.findall(r"\$\{\{(.*?)\}\}", value, re.DOTALL))
        assert value.count("${{") == value.count("${{ '$' }}")
        return value.replace("${{ '$' }}", "$")

    return evaluated(yaml.safe_load(text))


@given(trees)
def test_yaml_is_read_back(value: Any) -> None:
    text = f"value: {FILTERS['yaml'](value)}\nnext: [{FILTERS['yaml'](value)}, 1]\n"
    wanted = {"value": value, "next": [value, 1]}
    assert yaml.safe_load(text) == wanted, "as YAML 1.1"
    assert YAML(typ="safe", pure=True).load(StringIO(text)) == wanted, "as YAML 1.2"


@given(trees)
def test_a_workflow_is_read_back(value: Any) -> None:
    assert read_workflow(f"value: {FILTERS['workflow'](value)}\n") == {"value": value}


@given(trees.filter(lambda value: "inf" not in repr(value)))
def test_json_and_python_are_read_back(value: Any) -> None:
    assert json.loads(FILTERS["json"](value)) == value
    assert ast.literal_eval(FILTERS["python"](value)) == value


def without_none(value: Any) -> bool:
    if isinstance(value, dict):
        return all(without_none(one) for one in value.values())
    return all(without_none(one) for one in value) if isinstance(value, list) else value is not None


@given(trees.filter(without_none))
def test_toml_is_read_back(value: Any) -> None:
    # TOML guarantees only 64-bit integers; this reader supports larger ones.
    assert tomllib.loads(f"value = {FILTERS['toml'](value)}\nnext = 1\n") == {"value": value, "next": 1}


@given(whole)
def test_a_shell_word_is_one_word(value: str) -> None:
    if "\0" in value:
        with pytest.raises(TidemillError, match="NUL"):
            FILTERS["shell"](value)
        return
    assert shlex.split(f"echo {FILTERS['shell'](value)} next", comments=True) == ["echo", value, "next"]


@given(whole)
def test_a_dockerfile_word_is_one_word_to_dockers_parser(value: str) -> None:
    try:
        word = FILTERS["dockerfile"](value)
    except TidemillError:
        assert re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", value), "only control characters are refused"
        return
    found = dockerfile.parse_string(f"FROM scratch\nLABEL one={word}\nUSER 1\n")
    assert [command.cmd for command in found] == ["FROM", "LABEL", "USER"]
    name, quoted = found[1].value
    assert name == "one"
    assert re.sub(r'\\(["\\$])', r"\1", quoted[1:-1]) == value


@given(whole)
def test_promql_is_one_string(value: str) -> None:
    literal = FILTERS["promql"](value)
    assert re.fullmatch(r'"(?:[^"\\\n]|\\["\\nrt]|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})*"', literal)
    assert not re.search(r"\\u[dD][89a-fA-F]", literal), "Go has no surrogate pairs"
    assert ast.literal_eval(literal) == value


@given(whole)
def test_go_templates_find_no_action(value: str) -> None:
    text = FILTERS["gotext"](value)
    quoted = '{{ "{{" }}'
    assert text.replace(quoted, "{{") == value
    assert "{{" not in text.replace(quoted, "")


@given(whole)
def test_markdown_shows_only_the_text(value: str) -> None:
    text = FILTERS["markdown"](value)
    assert "\n" not in text
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").parse(text)
    if not text:
        assert tokens == []
        return
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    inner = tokens[1].children or []
    assert {token.type for token in inner} <= {"text", "text_special"}, text
    shown = "".join(token.content for token in inner)
    # Invisible characters become blanks, and Markdown readers merge blanks.
    assert shown.split() == "".join(one if one.isprintable() else " " for one in value).split()


@given(whole)
def test_a_comment_ends_with_its_line(value: str) -> None:
    text = FILTERS["comment"](value)
    assert text.isprintable()
    assert yaml.safe_load(f"a: 1 # {text}\n") == {"a": 1}


@given(texts)
def test_a_word_needs_no_quotes(value: str) -> None:
    try:
        text = FILTERS["word"](value)
    except TidemillError:
        return
    assert text == value
    assert re.fullmatch(r"[A-Za-z0-9._@/:+-]+", text)


def test_placeholders_and_lone_surrogates_are_refused() -> None:
    with pytest.raises(TidemillError, match="which a target would replace"):
        FILTERS["placeholder"]("a @{secret:admin}")
    assert FILTERS["placeholder"]("a{@}") == "a{@}"
    for name in ("yaml", "toml", "python", "shell", "dockerfile", "promql", "workflow", "markdown", "comment"):
        with pytest.raises(TidemillError, match="surrogate"):
            FILTERS[name]("\ud800")


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("flights", ("flights", '"flights"', '"flights"')),
        ("no", ('"no"', '"no"', '"no"')),
        ("2024-01-01", ('"2024-01-01"',) * 3),
        (1e16, ("1.0e+16", "1.0e+16", "1.0e+16")),
        (math.inf, (".inf", "inf", 'float("inf")')),
        ({"a b": [True, "x y"]}, ('{"a b": [true, "x y"]}', '{"a b" = [true, "x y"]}', '{"a b": [True, "x y"]}')),
    ],
)
def test_examples_of_each_format(value: Any, texts: tuple[str, str, str]) -> None:
    assert tuple(FILTERS[name](value) for name in ("yaml", "toml", "python")) == texts


def test_values_that_a_format_cannot_represent_are_refused() -> None:
    with pytest.raises(TidemillError, match="TOML cannot contain an empty value"):
        FILTERS["toml"]([None])
    with pytest.raises(TidemillError, match="JSON cannot contain a number that is not finite"):
        FILTERS["json"](math.nan)
    with pytest.raises(TidemillError, match="anything but letters"):
        FILTERS["words"](["libgomp1", "x; id"])
