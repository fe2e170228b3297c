"""The template's own files and answers, stored in the project: the base of the next three-way merge.

.tidemill-template/
  answers.yaml       the answers and the template version
  pristine/PATH      each generated file, unchanged
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import yaml

from ...runtime.common.errors import ConfigError, NotFoundError
from ..stack_config.yaml_positions import read_yaml
from .answers import Answers
from .tree import ProjectFile
from .worktree import WorkTree

FOLDER = PurePosixPath(".tidemill-template")
ANSWERS = FOLDER / "answers.yaml"
BASE_FILES = FOLDER / "pristine"

_HEAD = """\
# The answers from which this project was generated. `tidemill update` and `tidemill add` read and write this folder.
# Commit it; do not edit it.
"""


@dataclass(frozen=True)
class TemplateBase:
    """The answers, the template version and the generated files (path -> file) of a project."""

    answers: Answers
    version: str
    tree: Mapping[PurePosixPath, ProjectFile]


def base_files(
    answers: Answers, version: str, tree: Mapping[PurePosixPath, ProjectFile]
) -> dict[PurePosixPath, ProjectFile]:
    """Return the files to store, by their paths in the project."""
    text = yaml.safe_dump(
        {"template": version, "answers": answers.to_mapping()}, sort_keys=False, allow_unicode=True, width=120
    )
    made = {ANSWERS: ProjectFile((_HEAD + text).encode())}
    return made | {BASE_FILES / path: file for path, file in tree.items()}


def changes(
    project: Path, answers: Answers, version: str, tree: Mapping[PurePosixPath, ProjectFile]
) -> dict[PurePosixPath, ProjectFile | None]:
    """Return the files to write so that `project` stores this template base; None removes a file."""
    new = base_files(answers, version, tree)
    team = WorkTree(project, "")
    root = project / FOLDER
    old = (PurePosixPath(path.relative_to(project)) for path in sorted(root.rglob("*")) if path.is_file())
    removed: dict[PurePosixPath, ProjectFile | None] = {path: None for path in old if path not in new}
    return removed | {path: file for path, file in new.items() if team.file(path) != file}


def read_header(project: Path) -> tuple[str, frozenset[str]]:
    """Return the template version and the names of the stored answers, without checking the answers.

    A newer tidemill may have stored answers that this one does not know and `read` rejects.

    Raises:
        NotFoundError: the project was not generated, or the folder was removed.
    """
    raw = _read_answers(project)
    answers = raw.get("answers")
    names = cast("dict[str, Any]", answers) if isinstance(answers, dict) else ()
    return str(raw.get("template", "0")), frozenset(names)


def _read_answers(project: Path) -> dict[str, Any]:
    answers_file = project / ANSWERS
    if not answers_file.is_file():
        raise NotFoundError(
            "the project was not created by `tidemill init`, or its template folder was removed",
            field=str(ANSWERS),
            hint=f"restore it from Git: `git log --oneline -- {FOLDER}`",
        )
    value, _, _ = read_yaml(answers_file, project)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def read(project: Path) -> TemplateBase:
    """Return the template base of `project`.

    Raises:
        NotFoundError: the project was not generated, or the folder was removed.
        ConfigError: an answer is invalid.
    """
    raw = _read_answers(project)
    version, answers = raw.get("template"), raw.get("answers")
    if not isinstance(version, str) or not isinstance(answers, dict):
        raise ConfigError("has no template version or answers", field=str(ANSWERS), hint="restore it from Git")
    root = project / BASE_FILES
    tree = {
        PurePosixPath(path.relative_to(root).as_posix()): ProjectFile(
            path.read_bytes(), executable=bool(path.stat().st_mode & 0o100)
        )
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    return TemplateBase(Answers.of(cast("dict[str, Any]", answers)), version, tree)
