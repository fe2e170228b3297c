"""The one way a template becomes a file.

Strict: an undefined value is an error which names the template and the variable. Values enter a file only through
the filter of its format, so that none can break out of it:

    {{ value | json }}     a JSON literal, which is a YAML flow scalar too
    {{ value | promql }}   a PromQL string literal (https://prometheus.io/docs/prometheus/latest/querying/basics/)
    {{ value | dockerfile }}   a quoted word of a Dockerfile, in which no variable is replaced
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from tidemill.runtime.errors import TidemillError

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, sort_keys=True)


def _promql(value: object) -> str:
    # PromQL's double-quoted strings follow Go's escapes, of which JSON's are a part when all is ASCII.
    return json.dumps(str(value), ensure_ascii=True)


def _dockerfile(value: object) -> str:
    text = str(value)
    # A Dockerfile is read line by line, and has no way to write these.
    if any(ord(character) < 32 or ord(character) in (0x7F, 0x85, 0x2028, 0x2029) for character in text):
        raise TidemillError("a Dockerfile cannot hold control characters", field="value", value=text[:200])
    return '"' + re.sub(r'(["\\$])', r"\\\1", text) + '"'


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tidemill.templates", package_path=""),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML here; each format has its own filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = _json
    environment.filters["promql"] = _promql
    environment.filters["dockerfile"] = _dockerfile
    return environment


def render(template: str, **values: object) -> str:
    """Return the text of `template` (a path below `templates/`) with `values` put in.

    Raises:
        TidemillError: the template does not exist, or uses a value which was not given.

    >>> print(render("monitoring/web.yml.j2", user="admin", secret="prometheus-admin").splitlines()[-1])
      "admin": "@{bcrypt:prometheus-admin}"
    """
    from jinja2 import TemplateNotFound, UndefinedError

    try:
        return _environment().get_template(template).render(**values)
    except TemplateNotFound as error:
        raise TidemillError("no such template", field="template", value=error.name) from None
    except UndefinedError as error:
        raise TidemillError(f"a value is missing: {error.message}", field="template", value=template) from None
