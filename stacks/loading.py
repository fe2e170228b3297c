"""Loads and checks stack configs; errors name file and line. Imports no Pulumi.

It reads the file itself and not the engine's config, because only the file has line numbers and a base to extend.
Scalars follow YAML 1.2, as in the engine: `off` is a word, not False.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from ..runtime.common.errors import ConfigError, NotFoundError
from .settings import StackConfig
from .stack_config.cross_checks import cross_check, find_placeholders
from .stack_config.findings import Finding, first_error
from .stack_config.schema_errors import KeyPath, nearest, schema_problems
from .stack_config.sources import STACK_KEY, FileCache, Layer, Source, relative_path
from .stack_config.yaml_positions import Position, read_yaml


@dataclass(frozen=True)
class LoadedStack:
    """A valid stack config.

    Attributes:
        config: the config.
        file: its file.
        project: the folder of Pulumi.yaml.
        secrets: names of the encrypted secrets in the file.
        secrets_provider: the engine's secrets provider if the file names one, such as `awskms://...`.
        positions: path -> file and line of the value.
        layers: the values of the file and of its bases; each overrides the next.
    """

    config: StackConfig
    file: Path
    project: Path
    secrets: frozenset[str] = frozenset()
    secrets_provider: str | None = None
    positions: dict[KeyPath, Position] = field(default_factory=dict[KeyPath, Position], repr=False)
    layers: tuple[Layer, ...] = field(default=(), repr=False)

    def origin(self, path: str) -> str | None:
        """Return `file:line` of the value at the dotted `path`, or None for a default."""
        for where, position in self.positions.items():
            if ".".join(map(str, where)) == path:
                return position.text(self.project)
        return None

    def notes(self) -> list[str]:
        """Return a sentence for each setting that the target ignores."""
        return _note_texts(self.config, self.file, self.positions, self.project)


@dataclass(frozen=True)
class CheckedStack:
    """A stack config, valid or not.

    Attributes:
        stack: the stack name in the file name.
        file: the file.
        config: the config, or None if it is invalid.
        source: the sources of its values, or None if the file cannot be read.
        secrets: names of the encrypted secrets in the file.
        findings: its problems.
    """

    stack: str
    file: Path
    config: StackConfig | None
    source: Source | None
    secrets: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()

    def notes(self) -> list[str]:
        """Return a sentence for each setting that the target ignores."""
        if self.config is None or self.source is None:
            return []
        return _note_texts(self.config, self.file, self.source.positions(), self.source.project)


@functools.lru_cache(maxsize=8)
def project_settings(project: Path) -> dict[str, Any]:
    """Return the contents of Pulumi.yaml.

    Raises:
        ConfigError: it is not a YAML mapping with a name.
    """
    value, _, _ = read_yaml(project / "Pulumi.yaml", project)
    if not isinstance(value, dict) or not isinstance(cast("dict[str, Any]", value).get("name"), str):
        raise ConfigError("not a Pulumi project", field=str(project / "Pulumi.yaml"), hint="add a `name`")
    return cast("dict[str, Any]", value)


def config_folder(project: Path) -> Path:
    """Return the folder of the stack configs."""
    return project / str(project_settings(project).get("stackConfigDir", ""))


def stack_file(project: Path, stack: str) -> Path:
    """Return the path of the config of `stack`, which may not exist."""
    return config_folder(project) / f"Pulumi.{stack}.yaml"


def stack_names(project: Path) -> list[str]:
    """Return the sorted names of the stacks that have a config in `project`."""
    found = config_folder(project).glob("Pulumi.*.yaml")
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in found)


def load_stack(project: Path, stack: str) -> LoadedStack:
    """Read and check the config of `stack` in `project`.

    Raises:
        NotFoundError: there is no such stack.
        ConfigError: the config is invalid; the error has file, line, path, value and hint.
    """
    files = FileCache(project)
    checked = check_stack(files, stack)
    if checked.findings:
        raise first_error(checked.findings)
    assert checked.config is not None  # noqa: S101 - a config without findings has both
    assert checked.source is not None  # noqa: S101
    provider = cast("dict[str, Any]", files.content(checked.file)[0]).get("secretsprovider")
    return LoadedStack(
        config=checked.config,
        file=checked.file,
        project=project,
        secrets=checked.secrets,
        secrets_provider=provider if isinstance(provider, str) else None,
        positions=checked.source.positions(),
        layers=tuple(checked.source.layers),
    )


def check_stack(files: FileCache, stack: str) -> CheckedStack:
    """Read the config of `stack` and find all its problems.

    Raises:
        NotFoundError: there is no such stack.
    """
    project = files.project
    file = stack_file(project, stack)
    if not file.is_file():
        known = stack_names(project)
        close = nearest(stack, known)
        hint = f"write {relative_path(file, project)}"
        if known:
            hint = f"did you mean {close}?" if close else f"known: {', '.join(known)}"
        raise NotFoundError("no such stack", field="stack", value=stack, hint=hint)
    try:
        content = files.content(file)
        config, raw = _stack_object(content[0], file, project)
        source = Source(files, file, raw, content)
    except ConfigError as error:
        return CheckedStack(stack, file, None, None, findings=(Finding.from_error(error, stack),))
    merged = source.merged()
    problems = list(find_placeholders(merged))
    secrets, plain = _secrets(project, config)
    model = None
    try:
        model = StackConfig.model_validate(merged, strict=True)
        problems += cross_check(model, project, stack, secrets, plain)
    except ValidationError as error:
        problems += schema_problems(error)
    findings = tuple(source.finding(problem, stack) for problem in problems)
    return CheckedStack(stack, file, model, source, frozenset(secrets), findings)


def _note_texts(config: StackConfig, file: Path, positions: Mapping[KeyPath, Position], project: Path) -> list[str]:
    return [
        f"{positions[note.path].text(project) if note.path in positions else file.name}: "
        f"{'.'.join(map(str, note.path))} {note.message}; {note.hint}"
        for note in config.notes()
    ]


def _stack_object(top: object, file: Path, project: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the `config` mapping of a file, and the `tidemill:stack` object in it."""
    config = cast("dict[str, Any]", top).get("config") if isinstance(top, dict) else None
    raw = cast("dict[str, Any]", config).get(STACK_KEY) if isinstance(config, dict) else None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"no object `{STACK_KEY}` under `config`",
            field=relative_path(file, project),
            hint=f"write `config: {{ '{STACK_KEY}': {{ team: TEAM, environment: ENVIRONMENT }} }}`",
        )
    return cast("dict[str, Any]", config), cast("dict[str, Any]", raw)


def _secrets(project: Path, config: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the names of the encrypted config values, and of the others."""
    name = str(project_settings(project)["name"])
    encrypted: set[str] = set()
    plain: set[str] = set()
    for key, value in config.items():
        short = key.removeprefix(f"{name}:")
        is_secret = isinstance(value, dict) and "secure" in cast("dict[str, Any]", value)
        (encrypted if is_secret else plain).add(short)
    return encrypted, plain
