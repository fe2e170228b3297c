"""Renders templates strictly. To add a template, see `templates/__init__.py`.

An undefined value is an error that names the template and the variable. Every value passes through the filter of the
file's format (`tidemill.templates.formats`), so no value can break out of its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.common.errors import TidemillError
from .formats import FILTERS

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render", "render_from"]


@lru_cache(maxsize=8)
def _environment(folder: Path | None) -> Environment:
    from jinja2 import Environment, FileSystemLoader, PackageLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder) if folder else PackageLoader("tidemill.templates", package_path=""),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML here; each format has its own filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment


def render(template: str, **values: object) -> str:
    """Render `template`, a path below `templates/`.

    Raises:
        TidemillError: the template does not exist, or uses a value that is not in `values`.

    >>> print(render("monitoring/web.yml.j2", user="admin", secret="prometheus-admin").splitlines()[-1])
      admin: "@{bcrypt:prometheus-admin}"
    """
    return render_from(None, template, values)


def render_from(folder: Path | None, template: str, values: Mapping[str, object]) -> str:
    """Render `template`, a path below `folder` (default: `templates/`); otherwise like `render`."""
    from jinja2 import TemplateNotFound, UndefinedError

    try:
        return _environment(folder).get_template(template).render(**values)
    except TemplateNotFound as error:
        raise TidemillError("no such template", field="template", value=error.name) from None
    except UndefinedError as error:
        raise TidemillError(f"a value is missing: {error.message}", field="template", value=template) from None
