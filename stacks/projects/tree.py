"""Renders the project template: answers -> every file of a project, as bytes.

The same answers and template always give the same bytes, on any machine and at any time.

The template `PATH.j2` becomes the file `PATH`, with these replacements:

| part | becomes |
|---|---|
| `dot-NAME` | `.NAME` |
| `__team__`, `__project__` | that answer |
| `__environment__`, `__repository__` | one file for each of them |
| `__model__` | one file for each model, with the name of its Python package |

A template that renders to nothing makes no file. A file that starts with `#!` is executable.
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

TEMPLATE_VERSION = "1"
"""The version of this tidemill's project template."""

_SUFFIX = ".j2"
_LOOPS = ("environment", "model", "repository")


@dataclass(frozen=True)
class ProjectFile:
    """A file of a project."""

    content: bytes
    executable: bool = False


def write_files(folder: Path, files: Mapping[PurePosixPath, ProjectFile]) -> None:
    """Write `files` below `folder`."""
    for path, file in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
        if file.executable:
            place.chmod(place.stat().st_mode | 0o111)


def template_folder() -> Path:
    """Return the folder of this tidemill's project template."""
    from ... import templates

    return Path(next(iter(templates.__path__))) / "project"


def render_project(answers: Answers, templates: Path | None = None) -> dict[PurePosixPath, ProjectFile]:
    """Return all files of a project, path -> file, sorted by path.

    Args:
        answers: the answers of the team.
        templates: folder of another version of the template; default: this tidemill's.

    Raises:
        TidemillError: a template uses an undefined value, or two templates make the same file.
    """
    folder = templates or template_folder()
    made: dict[PurePosixPath, ProjectFile] = {}
    for source in sorted(folder.rglob(f"*{_SUFFIX}")):
        name = source.relative_to(folder).as_posix()
        for path, values in _places(name.removesuffix(_SUFFIX), answers):
            text = render_from(folder, name, values)
            if not text.strip():
                continue
            if path in made:
                raise TidemillError("two templates make the same file", field="template", value=str(path))
            made[path] = ProjectFile(text.encode(), executable=text.startswith("#!"))
    return dict(sorted(made.items()))


def _places(name: str, answers: Answers) -> Iterator[tuple[PurePosixPath, Mapping[str, Any]]]:
    """Yield the path and the values of each file of the template `name`."""
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
