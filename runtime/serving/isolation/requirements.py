"""Reads a model's requirements and finds those that the server's own environment does not meet.

`requirements.txt` is read as pip reads it: continued lines, comments, markers, extras, URLs, files, `-r`, `-c`, hashes.
Files outside the model's folder are refused, because a model must not read the server's files. `conda.yaml` is read if
the model has no `requirements.txt`.

An environment is built only from named requirements, because a model must not choose where code comes from.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from ...common.errors import PlatformError
from .conda import BUILD_TOOLS, read_conda

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION_OF_REQUIREMENT = re.compile(r"\s+--?[a-z]")
_FILE_OPTION = re.compile(r"^(?:-(?P<short>[rc])\s*|--(?P<long>requirement|constraint)(?:\s+|=))(?P<file>.+)$")
_URL = re.compile(r"^(?:[a-z]+\+)?[a-z][a-z0-9.-]*://", re.IGNORECASE)
_EDITABLE = re.compile(r"^(-e|--editable)\b")
_PYTHON = re.compile(r"^\s*(?:python\s*)?=*\s*(\d+\.\d+)(?:\.\d+)?\s*$")
# MLflow only loads the model. A newer version with the same major number reads what an older one wrote.
_LOADER = ("mlflow", "mlflow-skinny")
_DEPTH = 8


class UnbuildableError(PlatformError):
    """A model's own environment cannot be built; the message says why."""


class InvalidRequirementsError(UnbuildableError):
    """The environment can never be built, because of what the model's files say."""


@dataclass
class ModelRequirements:
    """The requirements of one model, flattened into one list of requirements and one of constraints.

    Attributes:
        lines: requirements and their options, in order, as `uv pip install -r` takes them.
        constraints: constraints, as `-c` takes them.
        build: the versions of pip, setuptools and wheel that its own environment gets; a server need not have them.
        python: the Python version that it was trained with, such as `3.12`; None if unknown.
        mlflow: the version of MLflow that wrote the model.
        skops: whether it is stored with skops.
    """

    lines: list[str] = field(default_factory=list[str])
    constraints: list[str] = field(default_factory=list[str])
    build: list[str] = field(default_factory=list[str])
    python: str | None = None
    mlflow: str | None = None
    skops: bool = False

    @classmethod
    def of(cls, folder: Path) -> ModelRequirements:
        """Return the requirements of the model in `folder`; empty ones if it has no requirements.

        Raises:
            InvalidRequirementsError: a file cannot be read, or is outside the folder.
        """
        needs = cls()
        described = _yaml(folder / "python_env.yaml")
        needs.python = _python(described.get("python"))
        needs.build = _texts(described.get("build_dependencies"))
        if (folder / "requirements.txt").is_file():
            needs._read(folder.resolve(), Path("requirements.txt"), constraint=False, depth=0)
        else:
            needs._read_conda(folder.resolve(), _yaml(folder / "conda.yaml"))
        mlmodel = _yaml(folder / "MLmodel")
        needs.mlflow = _text(mlmodel.get("mlflow_version"))
        flavors = mlmodel.get("flavors")
        if isinstance(flavors, dict):
            stored = [
                _mapping(flavor).get("serialization_format") for flavor in cast("dict[Any, Any]", flavors).values()
            ]
            needs.skops = "skops" in stored
        return needs

    @property
    def names(self) -> set[str]:
        """The canonical names of the required distributions."""
        found: set[str] = set()
        for line in self.lines:
            required = _parse(line)
            if isinstance(required, Requirement):
                found.add(canonicalize_name(required.name))
            elif isinstance(required, Path) and (named := _name_and_version(required.name)):
                found.add(named[0])
        return found

    def _read_conda(self, folder: Path, document: dict[str, Any]) -> None:
        """Add the requirements of a model that has only a `conda.yaml`."""
        python, lines, unknown = read_conda(document)
        if unknown:
            raise InvalidRequirementsError(
                f"these conda packages have no known wheel on the package index: {', '.join(unknown)}",
                field="conda.yaml",
                hint="list their pip names below `pip:` in conda.yaml, or in a requirements.txt next to it",
            )
        self.python = self.python or _python(python)
        for line in lines:
            if distribution_name(line) in BUILD_TOOLS:
                self.build.append(line)
            else:
                self._add(folder, Path("conda.yaml"), line, constraint=False, depth=0)

    def _read(self, folder: Path, name: Path, *, constraint: bool, depth: int) -> None:
        path = _inside(folder, name)
        if depth > _DEPTH:
            raise InvalidRequirementsError("it includes itself", field=name.as_posix())
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InvalidRequirementsError(f"cannot be read ({reason})", field=name.as_posix()) from None
        for line in _joined_lines(text):
            self._add(folder, path.relative_to(folder), line, constraint=constraint, depth=depth)

    def _add(self, folder: Path, name: Path, line: str, *, constraint: bool, depth: int) -> None:
        """Add one line of the file `name`."""
        if found := _FILE_OPTION.match(line):
            kind = found["short"] or found["long"][0]
            inner = name.parent / unquote(found["file"].strip())
            self._read(folder, inner, constraint=constraint or kind == "c", depth=depth + 1)
            return
        if _EDITABLE.match(line):
            raise InvalidRequirementsError(
                "it names a folder on the machine where the model was trained",
                field=name.as_posix(),
                value=without_credentials(line),
                hint="log the model with a released version, or package the code with it (code_paths)",
            )
        (self.constraints if constraint else self.lines).append(line)


def _inside(folder: Path, name: Path) -> Path:
    try:
        path = (folder / name).resolve()
        if path.is_relative_to(folder):
            return path
    except (OSError, ValueError):
        pass
    raise InvalidRequirementsError(
        "it names a file outside the model's folder", field="requirements.txt", value=name.as_posix()
    )


def unmet_requirements(folder: Path) -> list[str]:
    """Return a reason for each requirement of the model in `folder` that this process's environment does not meet.

    Raises:
        InvalidRequirementsError: the requirements cannot be read.
    """
    needs = ModelRequirements.of(folder)
    reasons: list[str] = []
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if needs.python is not None and needs.python != own:
        reasons.append(f"Python {needs.python}, the server has {own}")
    for line in needs.lines:
        reasons += _reasons(line)
    for line in needs.constraints:
        # A constraint does not require its package to be installed.
        reasons += [reason for reason in _reasons(line) if not reason.endswith(_NONE)]
    return list(dict.fromkeys(reasons))


def named_requirements(lines: Iterable[str]) -> list[str]:
    """Return the requirements in `lines`, each with its hashes; refuse anything that says where code comes from.

    Raises:
        InvalidRequirementsError: a line is an option, a URL, a file, or no requirement.
    """
    found: list[str] = []
    for line in lines:
        given, options = _parse(line), _OPTION_OF_REQUIREMENT.search(line)
        hashes = line[options.start() :].split() if options else []
        if line.startswith("-"):
            raise _refused(
                line, "options", "set the package index for the server instead: UV_DEFAULT_INDEX, or uv.toml"
            )
        if isinstance(given, Path) or (isinstance(given, str) and _URL.match(given)):
            raise _refused(line, "files and URLs", _BUILD_WHEEL)
        if isinstance(given, str):
            raise InvalidRequirementsError(
                "this line is not a requirement", field="requirements.txt", value=line, hint="write NAME==VERSION"
            )
        if given.url is not None or given.name.lower().endswith(_ARCHIVES):
            raise _refused(line, "files and URLs", _BUILD_WHEEL)
        if wrong := [each for each in hashes if not _HASH.fullmatch(each)]:
            raise _refused(line, f"options such as {wrong[0]}", "remove it")
        found.append(" ".join([str(given), *hashes]))
    return found


_ARCHIVES = (".whl", ".gz", ".tgz", ".zip", ".bz2", ".tbz", ".xz", ".txz", ".lz", ".lzma", ".zst", ".tar")
_HASH = re.compile(r"--hash[=:][a-z0-9]+:[0-9a-fA-F]+")
_BUILD_WHEEL = "build a wheel, upload it to your package index, and require it as NAME==VERSION"


def _refused(line: str, what: str, hint: str) -> InvalidRequirementsError:
    return InvalidRequirementsError(
        f"a model's requirements may not contain {what}: only the platform's package index provides code",
        field="requirements.txt",
        value=without_credentials(line),
        hint=hint,
    )


_NONE = ", the server has none"


def _reasons(line: str) -> list[str]:
    if line.startswith("-"):
        return []  # an option for where to look, not a requirement
    required = _parse(line)
    if isinstance(required, Requirement):
        return list(_missing(required, frozenset()))
    if isinstance(required, Path):
        named = _name_and_version(required.name)
        if named is None or _installed(named[0]) != named[1]:
            return [f"{required.name}, the server has {_version_text(named[0]) if named else 'none'}"]
        return []
    return [f"{without_credentials(required)}{_NONE}"]


def _missing(required: Requirement, seen: frozenset[str]) -> Iterator[str]:
    """Yield why a requirement and its extras are not met."""
    if required.marker is not None and not required.marker.evaluate({"extra": ""}):
        return
    text, name = without_credentials(str(required).partition(";")[0].strip()), canonicalize_name(required.name)
    if name in _LOADER and not required.extras and required.url is None:
        if not _loads(required):
            yield f"{text}, the server has {_version_text('mlflow-skinny')}"
        return
    version = _installed(name)
    if version is None:
        yield f"{text}{_NONE}"
    elif required.url is not None:
        if (origin := _origin(name)) is None or origin != required.url.partition("#")[0]:
            yield f"{text}, the server has {version} of another origin"
    elif not required.specifier.contains(version, prereleases=True):
        yield f"{text}, the server has {version}"
    else:
        for extra in sorted(required.extras):
            if (mark := f"{name}[{extra}]") in seen:
                continue
            for inner in metadata.requires(name) or []:
                needed = Requirement(inner)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    continue
                if needed.marker.evaluate({"extra": extra}):
                    needed.marker = None
                    yield from (f"{mark} requires {reason}" for reason in _missing(needed, seen | {mark}))


def _loads(required: Requirement) -> bool:
    own = _installed("mlflow-skinny")
    if own is None or required.specifier.contains(own, prereleases=True):
        return own is not None
    pins = [_version(one.version) for one in required.specifier if one.operator == "=="]
    return len(pins) == 1 and pins[0] is not None and pins[0].major == own.major and pins[0] <= own


def covered_by_own_mlflow(line: str) -> bool:
    """Tell whether a requirement names only MLflow, in a version whose models the server's own MLflow loads."""
    required = _parse(line)
    if not isinstance(required, Requirement) or required.extras or required.url is not None:
        return False
    return canonicalize_name(required.name) in _LOADER and _loads(required)


def with_light_mlflow(line: str) -> str:
    """Return a requirement of MLflow as one of mlflow-skinny, which suffices to load a model; others unchanged.

    >>> with_light_mlflow("mlflow==3.17.2"), with_light_mlflow("mlflow[extras]==3.17.2")
    ('mlflow-skinny==3.17.2', 'mlflow[extras]==3.17.2')
    """
    required = _parse(line)
    if (
        isinstance(required, Requirement)
        and required.name.lower() == "mlflow"
        and not required.extras
        and not required.url
    ):
        required.name = "mlflow-skinny"
        return str(required)
    return line


def _joined_lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file without comments; join continued lines."""
    start = ""
    for line in text.splitlines():
        if line.rstrip().endswith("\\") and not line.lstrip().startswith("#"):
            start += line.rstrip()[:-1] + " "
            continue
        if joined := _COMMENT.sub("", start + line).strip():
            yield joined
        start = ""
    if joined := _COMMENT.sub("", start).strip():
        yield joined


def _without_options(line: str) -> str:
    """Return a requirement without its options (hashes, build settings)."""
    return _OPTION_OF_REQUIREMENT.split(line, maxsplit=1)[0].strip()


def _parse(line: str) -> Requirement | Path | str:
    """Return the requirement of a line: a named one, a file of the model, or any other text."""
    text = _without_options(line)
    if line.startswith("-"):
        return line
    try:
        return Requirement(text)
    except InvalidRequirement:
        pass
    if _URL.match(text) or "\0" in text:
        return text
    if "/" in text or text.lower().endswith((".whl", ".tar.gz", ".zip")):
        return Path(text.partition(";")[0].partition("[")[0].strip())
    return text


def _name_and_version(name: str) -> tuple[str, Version] | None:
    try:
        project, version, _, _ = parse_wheel_filename(name)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    return project, version


def distribution_name(line: str) -> str | None:
    """Return the canonical name of the distribution that a line requires, or None if it names none."""
    required = _parse(line)
    return canonicalize_name(required.name) if isinstance(required, Requirement) else None


def installed_version(name: str) -> str | None:
    """Return the version of the distribution `name` in this environment."""
    return str(found) if (found := _installed(name)) else None


def _installed(name: str) -> Version | None:
    try:
        return _version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None


def _version_text(name: str) -> str:
    return str(_installed(name) or "none")


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _origin(name: str) -> str | None:
    """Return the URL that `name` was installed from, unless it was an index."""
    try:
        text = metadata.distribution(name).read_text("direct_url.json")
        return _text(_mapping(json.loads(text or "{}")).get("url"))
    except ValueError:
        return None


def without_credentials(text: str) -> str:
    """Return `text` without the user and password of each URL in it.

    >>> without_credentials("a @ https://me:secret@example.org/a.whl")
    'a @ https://example.org/a.whl'
    """
    return re.sub(r"//[^/\s]*@", "//", text)


def _python(given: object) -> str | None:
    found = _PYTHON.match(str(given)) if given is not None else None
    return found[1] if found else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> list[str]:
    return [text for text in cast("list[Any]", value) if isinstance(text, str)] if isinstance(value, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return _mapping(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        raise InvalidRequirementsError("cannot be read", field=path.name) from None
