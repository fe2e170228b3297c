"""Updates a project to another version of the template and keeps the team's changes.

The update merges three trees: the old template's files (stored in the project), the new template's files for the same
answers, and the team's files. All changes are computed before any file is written. The stored template files are
replaced in the same step, so a second update has nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...runtime.common.errors import RefusedError, UserError
from . import template_base
from .answers import Answers
from .applying import apply, finish, interrupted
from .dependency_update import PYPROJECT, DependencyUpdate, TreeWithoutSource
from .merging import Change, merge_trees, written_files
from .text_merge import ConflictLabels
from .tree import TEMPLATE_VERSION, render_project
from .worktree import WorkTree

_LABEL = "tidemill template "
# These are part of the names of stacks, packages and data. `tidemill add` can extend the lists.
_FIXED = frozenset({"team", "project", "environments", "models", "repositories"})


@dataclass(frozen=True)
class Update:
    """The result of an update or of a dry run.

    Attributes:
        before: the template version before the update.
        after: the template version after it.
        changes: the changed files, sorted by path.
        questions: the answers used for questions that are new in the template.
        unresolved: files with conflicts of an earlier update.
        finished: the files of an interrupted update that was finished first.
        unlocked: why `uv.lock` could not be updated; None if it was.
        uncommitted: files with uncommitted changes that the update would touch; only in a dry run.
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
        """The files in which the team must decide."""
        found = {change.path for change in self.changes if change.kind == "conflict"}
        return sorted(found | set(self.unresolved))


def update(
    project: Path,
    answers: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
    dependency: DependencyUpdate | None = None,
    templates: Path | None = None,
    version: str = TEMPLATE_VERSION,
) -> Update:
    """Update `project` to `version` of the template.

    Args:
        project: the folder of Pulumi.yaml.
        answers: new or changed answers.
        dry_run: compute the changes, write nothing.
        dependency: updates the project's own tidemill; None keeps it.
        templates: folder of the template; default: this tidemill's.
        version: the version of the template in `templates`.

    Raises:
        NotFoundError: the project was not generated.
        UserError: the project is not in a Git repository, or an answer is invalid.
        RefusedError: the project is newer than this tidemill, or the update would touch uncommitted files.
        ToolError: Git is missing, or fails.
    """
    check_version(project, version)
    finished: list[PurePosixPath] = []
    if not dry_run:
        finished = finish(project)
    elif interrupted(project):
        raise RefusedError("an update was interrupted", field=str(project), hint="run `tidemill update` to finish it")
    base, asked = template_base.read(project), template_base.read_header(project)[1]
    chosen = _changed_answers(base.answers, answers or {})
    theirs = render_project(chosen, templates)
    team = TreeWithoutSource(project, template_base.FOLDER.parts[0])
    labels = ConflictLabels("yours", f"{_LABEL}{base.version}", f"{_LABEL}{version}")
    changes = merge_trees(base.tree, theirs, team, labels, str(template_base.BASE_FILES))
    changes, unlocked = _with_dependency(project, changes, dependency or DependencyUpdate.unchanged(project))
    touched = written_files(changes) | template_base.changes(project, chosen, version, theirs)
    unresolved = team.files_with_conflicts(_LABEL)
    uncommitted = team.uncommitted(touched)
    if not dry_run:
        _refuse_overwriting(uncommitted, [path for path in unresolved if path in touched])
        if touched:
            apply(project, touched)
    return Update(
        before=base.version,
        after=version,
        changes=changes,
        questions={key: value for key, value in chosen.to_mapping().items() if key not in asked},
        unresolved=unresolved,
        finished=finished,
        uncommitted=uncommitted if dry_run else (),
        unlocked=unlocked,
    )


def check_version(project: Path, version: str = TEMPLATE_VERSION) -> str:
    """Return the template version of `project`.

    Raises:
        RefusedError: it is newer than `version`.
    """
    found = template_base.read_header(project)[0]
    if _number(found) > _number(version):
        raise RefusedError(
            "the project was created or updated by a newer tidemill",
            field=str(template_base.ANSWERS),
            value=f"template {found}; this tidemill has {version}",
            hint="run the command with the project's own tidemill: `uv run tidemill`, after `uv sync`",
        )
    return found


def _with_dependency(
    project: Path, changes: list[Change], dependency: DependencyUpdate
) -> tuple[list[Change], str | None]:
    """Add the changes of the project's own tidemill to `changes`; also return why locking failed, or None."""
    team = WorkTree(project, template_base.FOLDER.parts[0])
    merged = next((change for change in changes if change.path == PYPROJECT), None)
    source = dependency.source_changes(team, merged)
    lock, why = dependency.lock_changes(team, source)
    rest = [change for change in changes if change is not merged]
    return sorted([*rest, *source, *lock], key=lambda change: change.path), why


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def _changed_answers(stored: Answers, answers: Mapping[str, Any]) -> Answers:
    for name, value in answers.items():
        if name in _FIXED and stored.to_mapping().get(name) != value:
            raise UserError(
                "cannot be changed: stacks, packages and data have this name",
                field=name,
                value=value,
                hint="use `tidemill add` to add names, or `tidemill init` for another project",
            )
    return stored.with_(**answers) if answers else stored


def _refuse_overwriting(uncommitted: Sequence[PurePosixPath], unresolved: Sequence[PurePosixPath]) -> None:
    if unresolved:
        raise RefusedError(
            "contain conflicts of an earlier update, and this update must change them",
            field=", ".join(map(str, unresolved)),
            hint="resolve the conflicts and commit, then run `tidemill update` again",
        )
    if uncommitted:
        raise RefusedError(
            "have uncommitted changes, and the update must change them",
            field=", ".join(map(str, uncommitted)),
            hint="commit them (`git add` and `git commit`), then run `tidemill update` again",
        )
