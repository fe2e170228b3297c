"""Adds models, environments and repositories to a project which was made from the template.

What is added is what the template writes for it: the difference between its files for the answers as they were and
for the answers with the new name among them. In the stack configs that are keys, put in without touching the lines
which are there; elsewhere it is merged like an update, but where that would be a conflict the file stays as it is and
is told. The new answers are kept, so that later updates know of what was added. What options say of it (`--train`, ...)
stands in the config alone: to an update it is a change of the team's, like one made by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...runtime.common.errors import ConfigError, NotFoundError, RefusedError, UserError
from ..loading import config_folder, nearest
from ..stack_config.findings import first_error
from ..stack_config.sources import STACK_KEY
from ..teams.checking import Report, check_project
from . import template_base
from .answers import Answers
from .applying import apply
from .editing import Keys, added_keys, block, insert, parse, value_at, with_value
from .merging import Change, merge_trees
from .rehearsal import rehearsed
from .text_merge import Labels
from .tree import TEMPLATE_VERSION, Rendered, rendered
from .updating import check_version, pristine_changes
from .worktree import WorkTree

__all__ = ["ModelOptions", "add_environment", "add_model", "add_repository"]

_Tree = Mapping[PurePosixPath, Rendered]
_STACK: Keys = ("config", STACK_KEY)


@dataclass(frozen=True)
class ModelOptions:
    """What a model is given other than the template's own; None leaves that as it is.

    Attributes:
        repository: the repository in which its data lives.
        data: where its data lives, REPOSITORY/BRANCH/PATH; instead of `repository`.
        train: the command which trains it.
        target: name of the target column.
        owner: who answers for it.
        purpose: the question it answers.
    """

    repository: str | None = None
    data: str | None = None
    train: Sequence[str] | None = None
    target: str | None = None
    owner: str | None = None
    purpose: str | None = None

    def values(self, address: str) -> dict[str, str | list[str]]:
        """Return the keys of the config which differ from the template's, whose model reads `address`."""
        given: dict[str, str | list[str] | None] = {
            "owner": self.owner,
            "purpose": self.purpose,
            "train": list(self.train) if self.train else None,
            "data": self.data or (f"{self.repository}/{address.partition('/')[2]}" if self.repository else None),
            "target": self.target,
        }
        return {key: value for key, value in given.items() if value is not None}


def add_model(project: Path, name: str, options: ModelOptions | None = None) -> list[Change]:
    """Add the model `name` to all stacks of `project`, with its code and tests; return what was written.

    Raises:
        UserError: there is a model of that name, it cannot be one, or the project does not hold.
        NotFoundError: there is no such repository, or the project was not generated.
        RefusedError: the project has another version of the template than this tidemill.
    """
    chosen = options or ModelOptions()
    if chosen.repository and chosen.data:
        raise UserError("says where the data lives, as `data` does", field="repository", hint="give one of the two")
    growth = _Growth(project)
    growth.refuse_taken("model", name, (one for config in growth.configs() for one in config.models))
    repository = chosen.repository or (chosen.data.partition("/")[0] if chosen.data else None)
    if repository is not None:
        _known_repository(growth, repository)

    def edited(path: Keys, lines: list[str], value: Any) -> list[str]:
        if path[-2:] != ("models", name) or "data" not in value:
            return lines  # an environment's own say over what all share
        for key, own in chosen.values(value["data"]).items():
            lines = with_value(lines, key, own)
        return lines

    return growth.grow(growth.kept.answers.with_(models=[*growth.kept.answers.models, name]), edited)


def add_environment(project: Path, name: str) -> list[Change]:
    """Add the environment `name`, a stack of its own, to `project`; return what was written.

    Raises:
        UserError: there is an environment of that name, it cannot be one, or the project does not hold.
        NotFoundError: the project was not generated.
        RefusedError: the project has another version of the template than this tidemill.
    """
    growth = _Growth(project)
    team = growth.kept.answers.team
    taken = (config.environment for config in growth.configs() if config.team == team)
    growth.refuse_taken("environment", name, [*taken, *growth.kept.answers.environments])
    return growth.grow(growth.kept.answers.with_(environments=[*growth.kept.answers.environments, name]))


def add_repository(project: Path, name: str) -> list[Change]:
    """Add the data repository `name`, with its gate, to all stacks of `project`; return what was written.

    Raises:
        UserError: there is a repository of that name, it cannot be one, or the project does not hold.
        NotFoundError: the project was not generated.
        RefusedError: the project has another version of the template than this tidemill.
    """
    growth = _Growth(project)
    growth.refuse_taken("repository", name, (one for config in growth.configs() for one in config.lake.repositories))
    return growth.grow(growth.kept.answers.with_(repositories=[*growth.kept.answers.repositories, name]))


def _known_repository(growth: _Growth, name: str) -> None:
    for found in growth.report.stacks:
        known = found.config.lake.repositories if found.config else {}
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close}?" if close else f"run `tidemill add repository {name}` first"
            raise NotFoundError(f"{found.stack} has no such repository", field="repository", value=name, hint=hint)


class _Growth:
    """One step from the answers which a project keeps to those with one more name."""

    def __init__(self, project: Path) -> None:
        self.project = project
        check_version(project)
        self.kept = template_base.read(project)
        self.before = rendered(self.kept.answers)
        if self.kept.version != TEMPLATE_VERSION or self.before != self.kept.tree:
            raise RefusedError(
                "the project has another version of the template than this tidemill",
                field=str(template_base.ANSWERS),
                hint="run `tidemill update` first",
            )
        self.report = _holding(project)
        self.configs_folder = PurePosixPath(config_folder(project).relative_to(project).as_posix())

    def configs(self) -> Iterable[Any]:
        """Yield the config of each stack."""
        return (found.config for found in self.report.stacks if found.config)

    def refuse_taken(self, kind: str, name: str, taken: Iterable[str]) -> None:
        """Refuse a name which is there already."""
        if name in set(taken):
            raise UserError("is there already", field=kind, value=name, hint="choose another name")

    def grow(
        self,
        answers: Answers,
        edited: Callable[[Keys, list[str], Any], list[str]] = lambda _path, lines, _value: lines,
    ) -> list[Change]:
        """Take what the template writes for `answers` in; `edited` may change the lines of each key before."""
        after = rendered(answers)
        configs = [
            path
            for path, file in after.items()
            if path.is_relative_to(self.configs_folder) and path.suffix == ".yaml" and path in self.before
            and self.before[path] != file
        ]  # fmt: skip
        changes = self._edited_configs(configs, after, edited)
        changes += self._merged({path: file for path, file in after.items() if path not in configs}, configs)
        files = {change.path: change.file for change in changes if change.file is not None}
        written = {**files, **pristine_changes(self.project, answers, TEMPLATE_VERSION, after)}
        with rehearsed(self.project, written, self.configs_folder) as root:
            try:
                _holding(root)
            except ConfigError as error:
                message = f"with this the project would not hold, nothing was changed: {error.message}"
                raise ConfigError(message, field=error.field, value=error.value, hint=error.hint) from None
        apply(self.project, written)
        return sorted(changes, key=lambda change: change.path)

    def _edited_configs(
        self, paths: Iterable[PurePosixPath], after: _Tree, edited: Callable[[Keys, list[str], Any], list[str]]
    ) -> list[Change]:
        team = WorkTree(self.project, template_base.FOLDER.parts[0])
        texts: dict[PurePosixPath, str] = {}
        for source in paths:
            old, new = (tree[source].content.decode() for tree in (self.before, after))
            data = parse(new, str(source))
            for path in added_keys(parse(old, str(source)), data):
                lines = edited(path, block(new, path), value_at(data, path))
                for place in self._places(source, path):
                    file = team.file(place)
                    text = texts.get(place) or (file.content.decode() if file else "")
                    own = _in(text, path, str(place))
                    if _is_there(text, own, str(place)):
                        continue
                    texts[place] = insert(text, own, lines, str(place))
        return [
            Change(path, "merged", file=Rendered(text.encode(), bool((file := team.file(path)) and file.executable)))
            for path, text in texts.items()
        ]

    def _places(self, source: PurePosixPath, path: Keys) -> list[PurePosixPath]:
        """Return the configs of the project into which the key `path` of the template's `source` goes."""
        team = WorkTree(self.project, template_base.FOLDER.parts[0])
        if team.obstacle(source, frozenset()) is None and team.file(source) is not None:
            return [source]
        # The team has put its configs in order in another way: the base which has such keys, or the stack's own file.
        if path[: len(_STACK)] == _STACK:
            return []
        places: list[PurePosixPath] = []
        for found in self.report.stacks:
            if found.source is None or found.config is None or found.config.team != self.kept.answers.team:
                continue
            having = [layer for layer in found.source.layers if isinstance(value_at(layer.values, path[:-1]), dict)]
            own = found.file.resolve()
            file = having[-1].file.resolve() if having else own
            inside = file if file.is_relative_to(self.project.resolve()) else own
            place = PurePosixPath(inside.relative_to(self.project.resolve()).as_posix())
            if place not in places:
                places.append(place)
        return places

    def _merged(self, after: _Tree, configs: Iterable[PurePosixPath]) -> list[Change]:
        """Return what becomes of the files which are no configs; without conflicts."""
        before = {path: file for path, file in self.before.items() if path not in configs}
        team = WorkTree(self.project, template_base.FOLDER.parts[0])
        labels = Labels("yours", "before", "after")
        return [_without_conflict(one) for one in merge_trees(before, after, team, labels, str(template_base.PRISTINE))]


def _without_conflict(change: Change) -> Change:
    if change.kind != "conflict":
        return change
    note = f"left as it is, since it was changed here; the template's is {template_base.PRISTINE / change.path}"
    return replace(change, kind="kept", note=note, file=None, removes=None)


def _in(text: str, path: Keys, shown: str) -> Keys:
    """Return `path`, of the template's file, as the path of the same value in the file with `text`."""
    inside = path[len(_STACK) :] if path[: len(_STACK)] == _STACK else path
    return (*_STACK, *inside) if "config" in parse(text, shown) else inside


def _is_there(text: str, path: Keys, shown: str) -> bool:
    above = value_at(parse(text, shown), path[:-1])
    return isinstance(above, dict) and path[-1] in above


def _holding(project: Path) -> Report:
    """Return what is found in `project`, whose configs hold.

    Raises:
        ConfigError: they do not.
    """
    report = check_project(project)
    if report.findings:
        raise first_error(report.findings)
    return report
