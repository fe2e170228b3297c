"""Adds models, environments and repositories to a generated project.

The template is rendered for the old answers and for the answers with the new name; the difference is added. In stack
configs, new keys are inserted and all other lines stay. Other files are merged as in an update; a file that would
conflict stays unchanged and is reported. The new answers are stored, so that later updates know them. Options
(`--train`, ...) change only the config: an update treats them like edits of the team.
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
from .editing import Keys, added_keys, block, insert, parse, set_value, value_at
from .merging import Change, merge_trees
from .overlay import overlay
from .text_merge import ConflictLabels
from .tree import TEMPLATE_VERSION, ProjectFile, render_project
from .updating import check_version
from .worktree import WorkTree

_Tree = Mapping[PurePosixPath, ProjectFile]
_STACK: Keys = ("config", STACK_KEY)


@dataclass(frozen=True)
class ModelOptions:
    """Settings of a new model that replace the template's; None keeps the template's.

    Attributes:
        repository: repository of its data.
        data: address of its data, REPOSITORY/BRANCH/PATH; excludes `repository`.
        train: training command.
        target: name of the target column.
        owner: address of the owner.
        purpose: the question it answers.
    """

    repository: str | None = None
    data: str | None = None
    train: Sequence[str] | None = None
    target: str | None = None
    owner: str | None = None
    purpose: str | None = None

    def values(self, address: str) -> dict[str, str | list[str]]:
        """Return the config keys to set in a model that reads `address`."""
        given: dict[str, str | list[str] | None] = {
            "owner": self.owner,
            "purpose": self.purpose,
            "train": list(self.train) if self.train else None,
            "data": self.data or (f"{self.repository}/{address.partition('/')[2]}" if self.repository else None),
            "target": self.target,
        }
        return {key: value for key, value in given.items() if value is not None}


def add_model(project: Path, name: str, options: ModelOptions | None = None) -> list[Change]:
    """Add the model `name` to all stacks of `project`, with its code and tests; return the changes.

    Raises:
        UserError: the name is taken or invalid, or the project is invalid.
        NotFoundError: the repository does not exist, or the project was not generated.
        RefusedError: the project and this tidemill have different versions of the template.
    """
    chosen = options or ModelOptions()
    if chosen.repository and chosen.data:
        raise UserError("excludes `data`: both say where the data is", field="repository", hint="use one of the two")
    addition = _Addition(project)
    addition.refuse_taken("model", name, (one for config in addition.configs() for one in config.models))
    repository = chosen.repository or (chosen.data.partition("/")[0] if chosen.data else None)
    if repository is not None:
        _require_repository(addition, repository)

    def edited(path: Keys, lines: list[str], value: Any) -> list[str]:
        if path[-2:] != ("models", name) or "data" not in value:
            return lines  # an environment's override of the shared settings
        for key, own in chosen.values(value["data"]).items():
            lines = set_value(lines, key, own)
        return lines

    return addition.run(addition.base.answers.with_(models=[*addition.base.answers.models, name]), edited)


def add_environment(project: Path, name: str) -> list[Change]:
    """Add the environment `name`, with its own stack, to `project`; return the changes.

    Raises:
        UserError: the name is taken or invalid, or the project is invalid.
        NotFoundError: the project was not generated.
        RefusedError: the project and this tidemill have different versions of the template.
    """
    addition = _Addition(project)
    team = addition.base.answers.team
    taken = (config.environment for config in addition.configs() if config.team == team)
    addition.refuse_taken("environment", name, [*taken, *addition.base.answers.environments])
    return addition.run(addition.base.answers.with_(environments=[*addition.base.answers.environments, name]))


def add_repository(project: Path, name: str) -> list[Change]:
    """Add the data repository `name`, with its gate, to all stacks of `project`; return the changes.

    Raises:
        UserError: the name is taken or invalid, or the project is invalid.
        NotFoundError: the project was not generated.
        RefusedError: the project and this tidemill have different versions of the template.
    """
    addition = _Addition(project)
    taken = (one for config in addition.configs() for one in config.lake.repositories)
    addition.refuse_taken("repository", name, taken)
    return addition.run(addition.base.answers.with_(repositories=[*addition.base.answers.repositories, name]))


def _require_repository(addition: _Addition, name: str) -> None:
    for found in addition.report.stacks:
        known = found.config.lake.repositories if found.config else {}
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close}?" if close else f"run `tidemill add repository {name}` first"
            raise NotFoundError(f"{found.stack} has no such repository", field="repository", value=name, hint=hint)


class _Addition:
    """Adds one name to the answers of a project."""

    def __init__(self, project: Path) -> None:
        self.project = project
        check_version(project)
        self.base = template_base.read(project)
        self.before = render_project(self.base.answers)
        if self.base.version != TEMPLATE_VERSION or self.before != self.base.tree:
            raise RefusedError(
                "the project and this tidemill have different versions of the template",
                field=str(template_base.ANSWERS),
                hint="run `tidemill update` first",
            )
        self.report = _require_valid(project)
        self.configs_folder = PurePosixPath(config_folder(project).relative_to(project).as_posix())

    def configs(self) -> Iterable[Any]:
        """Yield the config of each stack."""
        return (found.config for found in self.report.stacks if found.config)

    def refuse_taken(self, kind: str, name: str, taken: Iterable[str]) -> None:
        """Raise UserError if `name` is one of `taken`."""
        if name in set(taken):
            raise UserError("already exists", field=kind, value=name, hint="choose another name")

    def run(
        self, answers: Answers, edited: Callable[[Keys, list[str], Any], list[str]] = lambda _path, lines, _value: lines
    ) -> list[Change]:
        """Add what the template renders for `answers`; `edited` can change the lines of each new config key."""
        after = render_project(answers)
        configs = [
            path
            for path, file in after.items()
            if path.is_relative_to(self.configs_folder) and path.suffix == ".yaml" and path in self.before
            and self.before[path] != file
        ]  # fmt: skip
        changes = self._edited_configs(configs, after, edited)
        changes += self._merged({path: file for path, file in after.items() if path not in configs}, configs)
        files = {change.path: change.file for change in changes if change.file is not None}
        written = {**files, **template_base.changes(self.project, answers, TEMPLATE_VERSION, after)}
        with overlay(self.project, written, self.configs_folder) as root:
            try:
                _require_valid(root)
            except ConfigError as error:
                message = f"the addition would make the project invalid; nothing was changed: {error.message}"
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
                    own = _path_in(text, path, str(place))
                    if _has_key(text, own, str(place)):
                        continue
                    texts[place] = insert(text, own, lines, str(place))
        return [
            Change(path, "merged", file=ProjectFile(text.encode(), bool((file := team.file(path)) and file.executable)))
            for path, text in texts.items()
        ]

    def _places(self, source: PurePosixPath, path: Keys) -> list[PurePosixPath]:
        """Return the configs of the project that get the key `path` of the template's file `source`."""
        team = WorkTree(self.project, template_base.FOLDER.parts[0])
        if team.obstacle(source, frozenset()) is None and team.file(source) is not None:
            return [source]
        # The team arranged its configs differently: use the last layer with the parent key, or the stack's own file.
        if path[: len(_STACK)] == _STACK:
            return []
        places: list[PurePosixPath] = []
        for found in self.report.stacks:
            if found.source is None or found.config is None or found.config.team != self.base.answers.team:
                continue
            layers = [layer for layer in found.source.layers if isinstance(value_at(layer.values, path[:-1]), dict)]
            own = found.file.resolve()
            file = layers[-1].file.resolve() if layers else own
            inside = file if file.is_relative_to(self.project.resolve()) else own
            place = PurePosixPath(inside.relative_to(self.project.resolve()).as_posix())
            if place not in places:
                places.append(place)
        return places

    def _merged(self, after: _Tree, configs: Iterable[PurePosixPath]) -> list[Change]:
        """Return the changes of all files except `configs`; conflicts become `kept`."""
        before = {path: file for path, file in self.before.items() if path not in configs}
        team = WorkTree(self.project, template_base.FOLDER.parts[0])
        labels = ConflictLabels("yours", "before", "after")
        merged = merge_trees(before, after, team, labels, str(template_base.BASE_FILES))
        return [_without_conflict(change) for change in merged]


def _without_conflict(change: Change) -> Change:
    if change.kind != "conflict":
        return change
    note = f"your project changed it, so it stays; the template's version: {template_base.BASE_FILES / change.path}"
    return replace(change, kind="kept", note=note, file=None, removes=None)


def _path_in(text: str, path: Keys, name: str) -> Keys:
    """Return the path in `text` of the value that the template's file has at `path`."""
    inside = path[len(_STACK) :] if path[: len(_STACK)] == _STACK else path
    return (*_STACK, *inside) if "config" in parse(text, name) else inside


def _has_key(text: str, path: Keys, name: str) -> bool:
    above = value_at(parse(text, name), path[:-1])
    return isinstance(above, dict) and path[-1] in above


def _require_valid(project: Path) -> Report:
    """Check `project` and return the report.

    Raises:
        ConfigError: a stack config is invalid.
    """
    report = check_project(project)
    if report.findings:
        raise first_error(report.findings)
    return report
