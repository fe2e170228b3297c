"""What the template makes of the answers: every file of a project, as bytes.

The same answers and the same template give the same bytes: nothing of the machine, the time or the network is in them.

A template is a file `PATH.j2`; its path is that of the file it becomes, in which

| part | becomes |
|---|---|
| `dot-NAME` | `.NAME` |
| `__team__`, `__project__` | that answer |
| `__environment__`, `__repository__` | a file for each of them |
| `__model__` | a file for each model, by the name of its Python package |

A template which renders to nothing makes no file. One whose first line begins with `#!` is executable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...runtime.common.errors import TidemillError
from ...templates.rendering import render_from
from .answers import BLOCKS, Answers, module_of

__all__ = ["TEMPLATE_VERSION", "Rendered", "rendered", "template_folder"]

TEMPLATE_VERSION = "1"
"""The version of the project template which this tidemill brings."""

_SUFFIX = ".j2"
_LOOPS = ("environment", "model", "repository")


@dataclass(frozen=True)
class Rendered:
    """A generated file."""

    content: bytes
    executable: bool = False


def template_folder() -> Path:
    """Return the folder of the project template which this tidemill brings."""
    from ... import templates

    return Path(next(iter(templates.__path__))) / "project"


def rendered(answers: Answers, templates: Path | None = None) -> dict[PurePosixPath, Rendered]:
    """Return path -> file of a whole project, sorted by path.

    Args:
        answers: what the team said.
        templates: the folder of another version of the template; default: the one which this tidemill brings.

    Raises:
        TidemillError: a template uses a value which there is not, or two of them make the same file.
    """
    folder = templates or template_folder()
    made: dict[PurePosixPath, Rendered] = {}
    for source in sorted(folder.rglob(f"*{_SUFFIX}")):
        name = source.relative_to(folder).as_posix()
        for path, values in _places(name.removesuffix(_SUFFIX), answers):
            text = render_from(folder, name, values)
            if not text.strip():
                continue
            if path in made:
                raise TidemillError("two templates make the same file", field="template", value=str(path))
            made[path] = Rendered(text.encode(), executable=text.startswith("#!"))
    return dict(sorted(made.items()))


def _places(name: str, answers: Answers) -> Iterator[tuple[PurePosixPath, Mapping[str, Any]]]:
    """Yield the path of each file which the template `name` makes, and its values."""
    plain = re.sub(r"(^|/)dot-", r"\1.", name).replace("__team__", answers.team)
    plain = plain.replace("__project__", answers.project)
    values = _values(answers)
    loop = next((loop for loop in _LOOPS if f"__{loop}__" in plain), None)
    if loop is None:
        yield PurePosixPath(plain), values
        return
    several: dict[str, list[str]] = {
        "environment": answers.environments, "model": answers.models, "repository": answers.repositories,
    }  # fmt: skip
    for one in several[loop]:
        own = {**values, loop: one}
        if loop == "model":
            own["module"] = module_of(one)
        yield PurePosixPath(plain.replace(f"__{loop}__", own.get("module", one))), own


def _values(answers: Answers) -> dict[str, Any]:
    plain = answers.to_mapping()
    return {
        **plain,
        **{name: plain.get(name, {}) for name in BLOCKS},
        "modules": {name: module_of(name) for name in answers.models},
        "template_version": TEMPLATE_VERSION,
    }
