"""Takes a later version of the template into a project which has moved on.

Three trees meet: what the template wrote when it was last taken in (kept in the project), what it writes today for the
same answers, and what the team has. Everything is computed before anything is written, and what was kept is replaced
in the same step, so that a second update has nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from ...runtime.common.errors import RefusedError, UserError
from ..stack_config.yaml_positions import read_yaml
from . import template_base
from .answers import Answers
from .applying import apply, finish, interrupted
from .merging import Change, merge_trees
from .supply import PYPROJECT, SuppliedTree, Supply
from .text_merge import Labels
from .tree import TEMPLATE_VERSION, Rendered, rendered
from .worktree import WorkTree

__all__ = ["Update", "check_version", "pristine_changes", "update"]

_LABEL = "tidemill template "
# Each is part of names: of stacks, of packages, of the data. `tidemill add` knows how to grow the lists.
_FIXED = frozenset({"team", "project", "environments", "models", "repositories"})


@dataclass(frozen=True)
class Update:
    """What an update did, or would do.

    Attributes:
        before: the version of the template which the project had.
        after: the version it has then.
        changes: what becomes of the files, sorted by path.
        questions: the answers to questions which the template did not ask before, as they were taken.
        unresolved: files in which conflicts of an earlier update are left.
        finished: the files of an interrupted update which was finished first.
        unlocked: why `uv.lock` could not be brought up to date; None where it is.
        uncommitted: files which it would touch and which hold changes that no commit has; only ever of a dry run.
    """

    before: str
    after: str
    changes: Sequence[Change]
    questions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    unresolved: Sequence[PurePosixPath] = ()
    finished: Sequence[PurePosixPath] = ()
    uncommitted: Sequence[PurePosixPath] = ()
    unlocked: str | None = None

    @property
    def conflicts(self) -> list[PurePosixPath]:
        """The files which a human has to look at."""
        found = {change.path for change in self.changes if change.kind == "conflict"}
        return sorted(found | set(self.unresolved))


def update(
    project: Path,
    answers: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
    supply: Supply | None = None,
    templates: Path | None = None,
    version: str = TEMPLATE_VERSION,
) -> Update:
    """Take the template of `version` into `project`.

    Args:
        project: the folder of Pulumi.yaml.
        answers: answers which are new or other than those which are kept.
        dry_run: only say what would become of it.
        supply: moves the project's own tidemill along; None leaves it where it is.
        templates: the folder of the template; default: the one which this tidemill brings.
        version: the version of the template in `templates`.

    Raises:
        NotFoundError: the project was not generated.
        UserError: the project is in no Git repository, or its answers do not hold.
        RefusedError: the project is newer than this tidemill, or files which would be touched are not committed.
        ToolError: Git is missing, or fails.
    """
    check_version(project, version)
    finished: list[PurePosixPath] = []
    if not dry_run:
        finished = finish(project)
    elif interrupted(project):
        raise RefusedError("an update was interrupted", field=str(project), hint="run `tidemill update` to finish it")
    kept, asked = template_base.read(project), _told(project)[1]
    chosen = _chosen(kept.answers, answers or {})
    theirs = rendered(chosen, templates)
    team = SuppliedTree(project, template_base.FOLDER.parts[0])
    labels = Labels("yours", f"{_LABEL}{kept.version}", f"{_LABEL}{version}")
    changes = merge_trees(kept.tree, theirs, team, labels, str(template_base.PRISTINE))
    changes, unlocked = _supplied(project, changes, supply or Supply.kept(project))
    touched: dict[PurePosixPath, Rendered | None] = {}
    for change in changes:
        if change.removes is not None:
            touched[change.removes] = None
    touched |= {change.path: change.file for change in changes if change.file is not None}
    touched |= pristine_changes(project, chosen, version, theirs)
    unresolved = team.marked(_LABEL)
    uncommitted = team.uncommitted(touched)
    if not dry_run:
        _refuse_overwriting(uncommitted, [path for path in unresolved if path in touched])
        if touched:
            apply(project, touched)
    return Update(
        before=kept.version,
        after=version,
        changes=changes,
        questions={key: value for key, value in chosen.to_mapping().items() if key not in asked},
        unresolved=unresolved,
        finished=finished,
        uncommitted=uncommitted if dry_run else (),
        unlocked=unlocked,
    )


def check_version(project: Path, version: str = TEMPLATE_VERSION) -> str:
    """Return the version of the template which `project` has.

    Raises:
        RefusedError: it is newer than `version`.
    """
    found = _told(project)[0]
    if _number(found) > _number(version):
        raise RefusedError(
            "the project was made or updated by a newer tidemill than this one",
            field=str(template_base.ANSWERS),
            value=f"template {found}, where this tidemill has {version}",
            hint="run the command with the project's own tidemill: `uv run tidemill`, after `uv sync`",
        )
    return found


def pristine_changes(
    project: Path, answers: Answers, version: str, tree: Mapping[PurePosixPath, Rendered]
) -> dict[PurePosixPath, Rendered | None]:
    """Return what has to be written so that `project` keeps `tree` as what the template wrote; None removes a file."""
    new = template_base.files(answers, version, tree)
    team = WorkTree(project, "")
    changed: dict[PurePosixPath, Rendered | None] = {
        path: file for path, file in new.items() if team.file(path) != file
    }
    root = project / template_base.FOLDER
    old = (PurePosixPath(path.relative_to(project)) for path in sorted(root.rglob("*")) if path.is_file())
    gone: dict[PurePosixPath, Rendered | None] = {path: None for path in old if path not in new}
    return gone | changed


def _supplied(project: Path, changes: list[Change], supply: Supply) -> tuple[list[Change], str | None]:
    """Return `changes` and those which bring the project's own tidemill along; and why it was not locked, or None."""
    team = WorkTree(project, template_base.FOLDER.parts[0])
    merged = next((change for change in changes if change.path == PYPROJECT), None)
    moved = supply.moved(team, merged)
    locked, why = supply.locked(team, moved)
    rest = [change for change in changes if change is not merged]
    return sorted([*rest, *moved, *locked], key=lambda change: change.path), why


def _told(project: Path) -> tuple[str, frozenset[str]]:
    """Return version and names of the answers which the project keeps, as far as they can be told.

    A newer tidemill may have kept answers which this one does not know; `pristine.read` would stumble over them.
    """
    file = project / template_base.ANSWERS
    if not file.is_file():
        template_base.read(project)  # says what that means
    value, _, _ = read_yaml(file, project)
    raw = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    answers = raw.get("answers")
    return str(raw.get("template", "0")), frozenset(
        cast("dict[str, Any]", answers) if isinstance(answers, dict) else ()
    )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def _chosen(kept: Answers, answers: Mapping[str, Any]) -> Answers:
    for name, value in answers.items():
        if name in _FIXED and kept.to_mapping().get(name) != value:
            raise UserError(
                "cannot be answered otherwise any more: stacks, packages and data bear the name",
                field=name,
                value=value,
                hint="use `tidemill add` for more of them, or `tidemill init` for another project",
            )
    return kept.with_(**answers) if answers else kept


def _refuse_overwriting(uncommitted: Sequence[PurePosixPath], unresolved: Sequence[PurePosixPath]) -> None:
    if unresolved:
        raise RefusedError(
            "conflicts of an earlier update are left in files which this one has to touch",
            field=", ".join(map(str, unresolved)),
            hint="decide between the markers and commit, then run `tidemill update` again",
        )
    if uncommitted:
        raise RefusedError(
            "hold changes which are not committed, and the update has to touch them",
            field=", ".join(map(str, uncommitted)),
            hint="commit them (`git add` and `git commit`), then run `tidemill update` again",
        )
