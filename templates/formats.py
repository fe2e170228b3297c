"""Jinja2 filters that write a value safely in the format of a file.

    {{ value | json }}        a JSON literal
    {{ value | yaml }}        a YAML node with the same meaning in YAML 1.1 and 1.2; a safe word stays unquoted
    {{ value | toml }}        a TOML value
    {{ value | python }}      a Python literal
    {{ value | shell }}       one word of a POSIX shell
    {{ value | dockerfile }}  a quoted word of a Dockerfile, without variables
    {{ value | promql }}      a PromQL string literal
    {{ value | gotext }}      text without actions of Go's text/template; then apply the filter of the file
    {{ value | workflow }}    a YAML node of a GitHub workflow, without expressions
    {{ value | markdown }}    text for one line of Markdown, without markup
    {{ value | word }}        only letters, digits and ._@/:+-, for places without quotes; `words` for a list
    {{ value | comment }}     text for one line of a `#` comment
    {{ value | placeholder }} text without a target's placeholders `@{...}`

A value that the format cannot represent raises a `TidemillError`.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from ..runtime.common.errors import TidemillError

__all__ = ["FILTERS"]

# Characters outside the control characters that some readers treat as line breaks.
_BREAKS = "\x85\u2028\u2029"
_PLAIN_YAML = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS_YAML = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_PLAIN_TOML = re.compile(r"[A-Za-z0-9_-]+")


def _refused(format_name: str, value: object, reason: str) -> TidemillError:
    return TidemillError(f"{format_name} cannot contain {reason}", field="value", value=str(value)[:200])


def _valid_text(format_name: str, text: str) -> str:
    """Return `text` if UTF-8 can encode it, else raise TidemillError."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused(format_name, ascii(text), "half a character (a lone surrogate)")
    return text


def _hidden(character: str) -> bool:
    """Return whether `character` is invisible, or a line break to some reader."""
    return not character.isprintable()


def _escaped(text: str, short: Mapping[str, str], *, nul: str = "\\u0000") -> str:
    """Return `text` in double quotes, with the escapes that Go, YAML, TOML and Python share."""
    parts: list[str] = []
    for character in text:
        if character in short:
            parts.append(short[character])
        elif character == "\0":
            parts.append(nul)
        elif _hidden(character) and character != " ":
            code = ord(character)
            parts.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
        else:
            parts.append(character)
    return '"' + "".join(parts) + '"'


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=True, sort_keys=True, allow_nan=False)
    except ValueError:
        raise _refused("JSON", value, "a number that is not finite") from None


def _number(value: float, words: Mapping[str, str]) -> str:
    """Return a float with a decimal point; YAML 1.1 reads 1e+16 as text."""
    if math.isnan(value):
        return words["nan"]
    if math.isinf(value):
        return words["inf"] if value > 0 else f"-{words['inf']}"
    mantissa, letter, exponent = repr(value).partition("e")
    return mantissa + ("" if "." in mantissa or not letter else ".0") + (f"e{int(exponent):+03d}" if letter else "")


def _nodes(value: object, text: Callable[[str], str], words: Mapping[str, str], key: Callable[[str], str]) -> str:
    """Return `value` as nested flow collections in the format that `text`, `words` and `key` define."""
    if value is None:
        if "none" not in words:
            raise _refused("TOML", value, "an empty value")
        return words["none"]
    if isinstance(value, bool):
        return words["true" if value else "false"]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value, words)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        inner = ", ".join(f"{key(str(name))}{words['is']}{_nodes(one, text, words, key)}" for name, one in pairs)
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_nodes(one, text, words, key) for one in cast("list[Any]", value)) + "]"
    return text(str(value))


def _yaml_text(text: str) -> str:
    _valid_text("YAML", text)
    if _PLAIN_YAML.fullmatch(text) and text.lower() not in _WORDS_YAML:
        return text
    return _escaped(text, _SHORT, nul="\\0")


def _yaml(value: object) -> str:
    words = {"none": "null", "true": "true", "false": "false", "nan": ".nan", "inf": ".inf", "is": ": "}
    return _nodes(value, _yaml_text, words, _yaml_text)


def _toml_text(text: str) -> str:
    return _escaped(_valid_text("TOML", text), {**_SHORT, "\b": "\\b", "\f": "\\f"})


def _toml(value: object) -> str:
    words = {"true": "true", "false": "false", "nan": "nan", "inf": "inf", "is": " = "}
    return _nodes(value, _toml_text, words, lambda name: name if _PLAIN_TOML.fullmatch(name) else _toml_text(name))


def _python_text(text: str) -> str:
    return _escaped(_valid_text("Python", text), _SHORT)


def _python(value: object) -> str:
    words = {"none": "None", "true": "True", "false": "False", "is": ": "}
    return _nodes(value, _python_text, {**words, "nan": 'float("nan")', "inf": 'float("inf")'}, _python_text)


def _shell(value: object) -> str:
    text = _valid_text("A shell", str(value))
    if "\0" in text:
        raise _refused("a shell word", ascii(text), "the character NUL")
    return shlex.quote(text)


def _dockerfile(value: object) -> str:
    text = _valid_text("a Dockerfile", str(value))
    # A Dockerfile has no escapes for these.
    if any(ord(character) < 32 or character == "\x7f" or character in _BREAKS for character in text):
        raise _refused("a Dockerfile", text, "control characters")
    return '"' + re.sub(r'(["\\$])', r"\\\1", text) + '"'


def _promql(value: object) -> str:
    # Go's escapes (https://prometheus.io/docs/prometheus/latest/querying/basics/#string-literals); unlike JSON's, they
    # have no surrogate pairs.
    return _escaped(_valid_text("PromQL", str(value)), _SHORT)


def _gotext(value: object) -> str:
    # Labels and annotations of alerts are templates: https://prometheus.io/docs/prometheus/latest/configuration/.
    return re.sub(r"\{\{", '{{ "{{" }}', str(value))


def _workflow(value: object) -> str:
    def text(value: str) -> str:
        # The dollar comes from an expression, whose result is not evaluated again.
        return _yaml_text(value.replace("${{", "${{ '$' }}{{"))

    words = {"none": "null", "true": "true", "false": "false", "nan": ".nan", "inf": ".inf", "is": ": "}
    return _nodes(value, text, words, text)


def _one_line(text: str) -> str:
    return " ".join("".join(" " if _hidden(character) else character for character in text).split())


def _markdown(value: object) -> str:
    line = _one_line(_valid_text("Markdown", str(value)))
    text = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)
    # These have a meaning only at the start of a line.
    return re.sub(r"^([#+=!-]|\d+(?=[.)]))", lambda found: _at_start(found[1]), text)


def _at_start(mark: str) -> str:
    return f"&#{ord(mark[0])};{mark[1:]}" if mark[0].isdigit() else f"\\{mark}"


def _word(value: object) -> str:
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@/:+-]*", text, re.ASCII):
        raise _refused("a place without quotes", ascii(text), "anything but letters, digits and ._@/:+-")
    return text


def _words(value: object) -> str:
    return " ".join(_word(one) for one in cast("Iterable[object]", value))


def _comment(value: object) -> str:
    return _one_line(_valid_text("a comment", str(value)))


def _placeholder(value: object) -> str:
    # The targets replace `@{...}` and have no escape for it.
    if "@{" in str(value):
        raise _refused("a config file", value, "`@{`, which a target would replace")
    return str(value)


FILTERS: dict[str, Callable[[object], str]] = {
    "json": _json,
    "yaml": _yaml,
    "toml": _toml,
    "python": _python,
    "shell": _shell,
    "dockerfile": _dockerfile,
    "promql": _promql,
    "gotext": _gotext,
    "workflow": _workflow,
    "markdown": _markdown,
    "word": _word,
    "words": _words,
    "comment": _comment,
    "placeholder": _placeholder,
}
