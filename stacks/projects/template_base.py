"""The project as the template wrote it, kept in the project and committed: what an update is the difference to.

.tidemill-template/
  answers.yaml       the answers, and the template's version
  pristine/PATH      each file as it was generated
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
from .tree import Rendered

__all__ = ["ANSWERS", "FOLDER", "PRISTINE", "Pristine", "files", "read", "write"]

FOLDER = PurePosixPath(".tidemill-template")
ANSWERS = FOLDER / "answers.yaml"
PRISTINE = FOLDER / "pristine"

_HEAD = """\
# What this project was generated from. `tidemill update` and `tidemill add` read and write this folder: commit it, and
# leave it as it is.
"""


@dataclass(frozen=True)
class Pristine:
    """What a project was generated from.

    Attributes:
        answers: what the team said.
        version: the template's version.
        tree: path -> file as it was generated.
    """

    answers: Answers
    version: str
    tree: Mapping[PurePosixPath, Rendered]


def files(answers: Answers, version: str, tree: Mapping[PurePosixPath, Rendered]) -> dict[PurePosixPath, Rendered]:
    """Return the files of the folder, by their paths within the project."""
    text = yaml.safe_dump(
        {"template": version, "answers": answers.to_mapping()}, sort_keys=False, allow_unicode=True, width=120
    )
    made = {ANSWERS: Rendered((_HEAD + text).encode())}
    return made | {PRISTINE / path: file for path, file in tree.items()}


def write(project: Path, answers: Answers, version: str, tree: Mapping[PurePosixPath, Rendered]) -> None:
    """Write the folder into `project`, which has none yet."""
    for path, file in files(answers, version, tree).items():
        place = project / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
        if file.executable:
            place.chmod(place.stat().st_mode | 0o111)


def read(project: Path) -> Pristine:
    """Return what `project` was generated from.

    Raises:
        NotFoundError: it was not generated, or the folder was removed.
        ConfigError: its answers do not hold.
    """
    answers_file = project / ANSWERS
    if not answers_file.is_file():
        raise NotFoundError(
            "this project was not made by `tidemill init`, or its folder of the template was removed",
            field=str(ANSWERS),
            hint=f"restore it from Git: `git log --oneline -- {FOLDER}`",
        )
    value, _, _ = read_yaml(answers_file, project)
    raw = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    version, answers = raw.get("template"), raw.get("answers")
    if not isinstance(version, str) or not isinstance(answers, dict):
        raise ConfigError(
            "does not say what the project was generated from", field=str(ANSWERS), hint="restore it from Git"
        )
    root = project / PRISTINE
    tree = {
        PurePosixPath(path.relative_to(root).as_posix()): Rendered(
            path.read_bytes(), executable=bool(path.stat().st_mode & 0o100)
        )
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    return Pristine(Answers.of(cast("dict[str, Any]", answers)), version, tree)
