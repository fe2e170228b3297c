"""Reads a stack config: the file of the team, the base it extends, one error that says where.

The engine's own file is read, not what the engine makes of it, because only the file has lines to point at and a
base to extend. Scalars follow YAML 1.2 as the engine reads them: `off` is a word, not False. This imports no Pulumi.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from tidemill.runtime.errors import ConfigError, NotFoundError

from .marked import Mark, read_yaml
from .settings import StackConfig

__all__ = ["LoadedStack", "load_stack", "nearest", "project_settings", "stack_file", "stack_names"]

_KEY = "tidemill:stack"
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class LoadedStack:
    """A stack config which holds together.

    Attributes:
        config: the config.
        file: where it was read.
        project: the folder of Pulumi.yaml.
        secrets: names of the secrets which the file holds, encrypted.
        secrets_provider: the engine's secrets provider if the file names one, such as `awskms://...`.
        marks: path of each value -> file and line it came from.
    """

    config: StackConfig
    file: Path
    project: Path
    secrets: frozenset[str] = frozenset()
    secrets_provider: str | None = None
    marks: dict[_Path, Mark] = field(default_factory=dict[_Path, Mark], repr=False)

    def origin(self, path: str) -> str | None:
        """Return `file:line` of the value at the dotted `path`, or None where it is a default."""
        for where, mark in self.marks.items():
            if ".".join(map(str, where)) == path:
                return mark.text(self.project)
        return None

    def notes(self) -> list[str]:
        """Return what in the config does nothing on its target, a sentence each."""
        found: list[str] = []
        for note in self.config.notes():
            name = ".".join(map(str, note.path))
            found.append(f"{self.origin(name) or self.file.name}: {name} {note.message}; {note.mend}")
        return found


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `word` probably meant.

    >>> nearest("promot", ["promote", "serve"])
    'promote'
    """
    found = difflib.get_close_matches(word, list(known), n=1)
    return found[0] if found else None


@functools.lru_cache(maxsize=8)
def project_settings(project: Path) -> dict[str, Any]:
    """Return Pulumi.yaml of `project`.

    Raises:
        ConfigError: it is no YAML mapping with a name.
    """
    value, _, _ = read_yaml(project / "Pulumi.yaml", project)
    if not isinstance(value, dict) or not isinstance(cast("dict[str, Any]", value).get("name"), str):
        raise ConfigError("not a Pulumi project", field=str(project / "Pulumi.yaml"), mend="give it a `name`")
    return cast("dict[str, Any]", value)


def _config_folder(project: Path) -> Path:
    return project / str(project_settings(project).get("stackConfigDir", ""))


def stack_file(project: Path, stack: str) -> Path:
    """Return the config file of `stack`, which may not exist."""
    return _config_folder(project) / f"Pulumi.{stack}.yaml"


def stack_names(project: Path) -> list[str]:
    """Return the stacks which have a config file in `project`, sorted."""
    found = _config_folder(project).glob("Pulumi.*.yaml")
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in found)


def load_stack(project: Path, stack: str) -> LoadedStack:
    """Read and check the config of `stack` in `project`.

    Raises:
        NotFoundError: there is no such stack.
        ConfigError: the config does not hold; names file, line, path, value and what to do.
    """
    file = stack_file(project, stack)
    if not file.is_file():
        known = stack_names(project)
        close = nearest(stack, known)
        where = file.relative_to(project)
        hint = f"did you mean {close}?" if close else f"known: {', '.join(known)}" if known else f"write {where}"
        raise NotFoundError("no such stack", field="stack", value=stack, mend=hint)
    top, marks, keys = read_yaml(file, project)
    config = cast("dict[str, Any]", top).get("config") if isinstance(top, dict) else None
    raw = cast("dict[str, Any]", config).get(_KEY) if isinstance(config, dict) else None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"no object `{_KEY}` under `config`",
            field=str(file.relative_to(project)),
            mend=f"write `config: {{ '{_KEY}': {{ team: TEAM, environment: ENVIRONMENT }} }}`",
        )
    prefix: _Path = ("config", _KEY)
    source = _Source(project, _below(marks, prefix), _below(keys, prefix))
    merged = source.extended(cast("dict[str, Any]", raw), [file])
    try:
        model = StackConfig.model_validate(merged, strict=True)
    except ValidationError as error:
        raise source.explain(error, file) from None
    settings = cast("dict[str, Any]", top)
    secrets, plain = _secrets(project, cast("dict[str, Any]", config))
    source.check(model, stack, file, secrets, plain)
    provider = settings.get("secretsprovider")
    return LoadedStack(
        config=model,
        file=file,
        project=project,
        secrets=frozenset(secrets),
        secrets_provider=provider if isinstance(provider, str) else None,
        marks=source.marks,
    )


def _below(marks: dict[_Path, Mark], prefix: _Path) -> dict[_Path, Mark]:
    return {path[len(prefix) :]: mark for path, mark in marks.items() if path[: len(prefix)] == prefix}


def _secrets(project: Path, config: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the names of the config values which are encrypted, and of those which are not."""
    name = str(project_settings(project)["name"])
    encrypted: set[str] = set()
    plain: set[str] = set()
    for key, value in config.items():
        short = key.removeprefix(f"{name}:")
        is_secret = isinstance(value, dict) and "secure" in cast("dict[str, Any]", value)
        (encrypted if is_secret else plain).add(short)
    return encrypted, plain


@dataclass
class _Source:
    """Where values came from, and the errors that say so."""

    project: Path
    marks: dict[_Path, Mark]
    keys: dict[_Path, Mark]

    def extended(self, raw: dict[str, Any], chain: list[Path]) -> dict[str, Any]:
        """Return `raw` merged over the bases it extends."""
        base = raw.get("extends")
        rest = {key: value for key, value in raw.items() if key != "extends"}
        if base is None:
            return rest
        where = self.where(("extends",), chain[-1])
        if not isinstance(base, str):
            raise ConfigError("not a path", field=where, value=base, mend="name one file, relative to Pulumi.yaml")
        file = (self.project / base).resolve()
        if file in chain:
            raise ConfigError("the configs extend one another in a circle", field=where, value=base, mend="cut it")
        if not file.is_file():
            raise ConfigError("no such file", field=where, value=base, mend="paths are relative to Pulumi.yaml")
        value, marks, keys = read_yaml(file, self.project)
        prefix: _Path = ()
        if isinstance(value, dict) and "config" in value:
            inner = cast("dict[str, Any]", value)["config"]
            value, prefix = (
                (cast("dict[str, Any]", inner).get(_KEY) if isinstance(inner, dict) else None),
                ("config", _KEY),
            )
        if not isinstance(value, dict):
            raise ConfigError("not an object", field=where, value=base, mend=f"write what belongs under `{_KEY}`")
        own = self.marks, self.keys
        self.marks, self.keys = _below(marks, prefix), _below(keys, prefix)
        merged = self.extended(cast("dict[str, Any]", value), [*chain, file])
        self.marks, self.keys = {**self.marks, **own[0]}, {**self.keys, **own[1]}
        return _merge(merged, rest)

    def where(self, path: _Path, file: Path) -> str:
        """Return `file:line: dotted.path`, with the line of the nearest thing that has one."""
        text = ".".join(str(part) for part in path)
        for length in range(len(path), -1, -1):
            mark = self.keys.get(path[:length]) or self.marks.get(path[:length])
            if mark:
                return f"{mark.text(self.project)}: {text}" if text else mark.text(self.project)
        return f"{file.relative_to(self.project)}: {text}"

    def explain(self, error: ValidationError, file: Path) -> ConfigError:
        """Return the first of the problems as one sentence."""
        problems = error.errors(include_url=False)
        # An unknown key is likely the cause of a missing one: tell it first.
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        first = problems[0]
        path: _Path = tuple(part for part in first["loc"] if part != "[key]")
        kind, context = first["type"], first.get("ctx", {})
        value: Any = first.get("input")
        schema = _schema_at(path)
        mend = str(schema["description"]) if "description" in schema else None
        message = first["msg"][:1].lower() + first["msg"][1:]
        if kind == "missing":
            message, value, mend = "is missing", None, f"add it: {mend}" if mend else "add it"
        elif kind == "extra_forbidden":
            message, mend = "unknown key", _known_keys(path)
            value = None if isinstance(value, dict | list) else value
        elif kind == "literal_error":
            choices = str(context["expected"]).replace("'", "")
            close = nearest(str(value), choices.replace(" or ", ", ").split(", "))
            message, mend = "unknown value", f"did you mean {close}?" if close else f"use {choices}"
        elif kind == "value_error":
            message, _, mend = str(context["error"]).partition("; ")
        elif kind == "string_pattern_mismatch":
            message = f"does not match {context['pattern']}" + (" as a name" if "[key]" in first["loc"] else "")
        if "receivers" in path:
            value = None  # what stands where a secret's name should be may be the secret
        elif isinstance(value, str) and len(value) > 200:
            value = value[:200] + "..."
        if len(problems) > 1:
            mend = f"{mend.rstrip('.') if mend else 'mend it'} (and {len(problems) - 1} more after this)"
        return ConfigError(message, field=self.where(path, file), value=value, mend=mend.rstrip(".") if mend else None)

    def check(self, model: StackConfig, stack: str, file: Path, secrets: set[str], plain: set[str]) -> None:
        """Refuse names which lead nowhere."""

        def fail(path: _Path, message: str, value: object, mend: str) -> None:
            raise ConfigError(message, field=self.where(path, file), value=value, mend=mend)

        if model.stack != stack:
            path: _Path = ("team",) if not stack.startswith(f"{model.team}-") else ("environment",)
            fail(path, f"TEAM-ENVIRONMENT is not the stack's name {stack}", model.stack, "rename the file or mend it")
        repositories = model.lake.repositories
        for name, repository in repositories.items():
            if repository.gate and not (self.project / repository.gate).is_file():
                place: _Path = ("lake", "repositories", name, "gate")
                fail(place, "no such file", repository.gate, "paths are relative to Pulumi.yaml")
        for name, entry in model.models.items():
            if not (self.project / entry.code).is_dir():
                fail(("models", name, "code"), "no such folder", entry.code, "paths are relative to Pulumi.yaml")
            if entry.repository not in repositories:
                close = nearest(entry.repository, repositories)
                hint = f"did you mean {close}?" if close else "add it under lake.repositories"
                fail(("models", name, "data"), "names a repository which lake.repositories has not", entry.data, hint)
        for index, receiver in enumerate(model.monitoring.receivers):
            secret = receiver.url.secret
            kind = "slack" if receiver.slack else "webhook"
            if secret not in secrets:
                why = "is not encrypted" if secret in plain else "names a secret which the config has not"
                mend = f"run `pulumi config set --secret {secret}`"
                fail(("monitoring", "receivers", index, kind, "url", "secret"), why, secret, mend)
        services = model.services
        taken: dict[int, str] = {}
        for name, port in model.ports.items():
            if name not in services:
                close = nearest(name, services)
                hint = f"did you mean {close}?" if close else f"use one of {', '.join(services)}"
                fail(("ports", name), "no such service", name, hint)
            if port in taken:
                fail(("ports", name), f"the port of {taken[port]} too", port, "give each service its own")
            taken[port] = name
        for problem in model.problems():
            fail(problem.path, problem.message, problem.value, problem.mend)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `over` laid over `base`: objects are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(cast("dict[str, Any]", old), cast("dict[str, Any]", value)) if both else value
    return merged


@functools.cache
def _schema() -> dict[str, Any]:
    return StackConfig.model_json_schema()


def _schema_at(path: _Path) -> dict[str, Any]:
    """Return the part of the JSON Schema which describes `path`, or {}."""
    node: dict[str, Any] = _resolve(_schema())
    for part in path:
        if isinstance(part, int):
            node = cast("dict[str, Any]", node.get("items", {}))
        else:
            patterns = list(cast("dict[str, Any]", node.get("patternProperties", {})).values())
            other: Any = patterns[0] if patterns else node.get("additionalProperties")
            node = cast("dict[str, Any]", node.get("properties", {})).get(part) or other or {}
        node = _resolve(node) if isinstance(cast("Any", node), dict) else {}
    return node


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    for option in cast("list[dict[str, Any]]", node.get("anyOf", [])):
        if option.get("type") != "null":
            return _resolve({**option, **{key: value for key, value in node.items() if key != "anyOf"}})
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = cast("dict[str, Any]", _schema()["$defs"][reference.rsplit("/", 1)[1]])
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def _known_keys(path: _Path) -> str:
    known = list(cast("dict[str, Any]", _schema_at(path[:-1]).get("properties", {})))
    close = nearest(str(path[-1]), known)
    return f"did you mean {close}?" if close else f"use one of {', '.join(known)}"
