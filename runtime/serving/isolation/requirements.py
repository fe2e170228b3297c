"""What a model says it needs, and which of it this server's own environment does not give.

`requirements.txt` is read as pip reads it: continued lines, comments, markers, extras, URLs, wheels which lie beside
it, `-r` and `-c`, hashes. Files outside the model's folder are refused: a model must not read the server's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
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

__all__ = ["Needs", "UnbuildableError", "differing", "installed_version", "lighter", "loaded_by", "without_credentials"]

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION_OF_REQUIREMENT = re.compile(r"\s+--?[a-z]")
_FILE_OPTION = re.compile(r"^(?:-(?P<short>[rc])\s*|--(?P<long>requirement|constraint)(?:\s+|=))(?P<file>.+)$")
_URL = re.compile(r"^(?:[a-z]+\+)?[a-z][a-z0-9.-]*://", re.IGNORECASE)
_EDITABLE = re.compile(r"^(-e|--editable)\b")
_PYTHON = re.compile(r"^\s*(?:python\s*)?=*\s*(\d+\.\d+)(?:\.\d+)?\s*$")
# What loads the model, and no part of it; a newer one of the same major version reads what an older one wrote.
_LOADER = ("mlflow", "mlflow-skinny")
_DEPTH = 8


class UnbuildableError(PlatformError):
    """A model's own environment cannot be had; the message says why."""


@dataclass
class Needs:
    """The requirements of one model, flattened into one file each of requirements and constraints.

    Attributes:
        lines: requirements and the options which go with them, in order, as `uv pip install -r` takes them.
        constraints: likewise, for `-c`.
        files: the model's own files they name, wheels for the most part.
        python: the Python version it was trained with, as `3.12`; None where it does not say.
        mlflow: the version of MLflow which wrote the model.
        skops: whether it is stored with skops.
    """

    lines: list[str] = field(default_factory=list[str])
    constraints: list[str] = field(default_factory=list[str])
    files: list[Path] = field(default_factory=list[Path])
    python: str | None = None
    mlflow: str | None = None
    skops: bool = False

    @classmethod
    def of(cls, folder: Path) -> Needs:
        """Return what the model in `folder` says; nothing where it says nothing.

        Raises:
            UnbuildableError: a file cannot be read, or one outside of the folder is named.
        """
        needs = cls()
        if (folder / "requirements.txt").is_file():
            needs._read(folder.resolve(), Path("requirements.txt"), constraint=False, depth=0)
        needs.python = _python(_yaml(folder / "python_env.yaml").get("python"))
        described = _yaml(folder / "MLmodel")
        needs.mlflow = _text(described.get("mlflow_version"))
        flavors = described.get("flavors")
        if isinstance(flavors, dict):
            stored = [
                _mapping(flavor).get("serialization_format") for flavor in cast("dict[Any, Any]", flavors).values()
            ]
            needs.skops = "skops" in stored
        return needs

    @property
    def names(self) -> set[str]:
        """The distributions which its requirements name, in their canonical form."""
        found: set[str] = set()
        for line in self.lines:
            wanted = _wanted(line)
            if isinstance(wanted, Requirement):
                found.add(canonicalize_name(wanted.name))
            elif isinstance(wanted, Path) and (named := _of_file(wanted.name)):
                found.add(named[0])
        return found

    def _read(self, folder: Path, name: Path, *, constraint: bool, depth: int) -> None:
        path = _inside(folder, name)
        if depth > _DEPTH:
            raise UnbuildableError("it includes itself", field=name.as_posix())
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UnbuildableError(f"cannot be read ({reason})", field=name.as_posix()) from None
        for line in _logical(text):
            if found := _FILE_OPTION.match(line):
                kind = found["short"] or found["long"][0]
                inner = path.parent.relative_to(folder) / unquote(found["file"].strip())
                self._read(folder, inner, constraint=constraint or kind == "c", depth=depth + 1)
                continue
            if _EDITABLE.match(line):
                raise UnbuildableError(
                    "it names a folder of the machine the model was trained on",
                    field=name.as_posix(),
                    value=without_credentials(line),
                    hint="log the model with a released version, or with the code beside it (code_paths)",
                )
            # A path is meant from the folder of the model, wherever the build runs.
            if isinstance(wanted := _wanted(line), Path):
                own = _inside(folder, wanted)
                self.files.append(own)
                line = line.replace(_bare(line), own.as_posix(), 1)
            (self.constraints if constraint else self.lines).append(line)


def _inside(folder: Path, name: Path) -> Path:
    try:
        path = (folder / name).resolve()
        if path.is_relative_to(folder):
            return path
    except (OSError, ValueError):
        pass
    raise UnbuildableError(
        "it names a file which is not the model's own", field="requirements.txt", value=name.as_posix()
    )


def differing(folder: Path) -> list[str]:
    """Return what the model in `folder` needs and this process's environment does not have, as sentences.

    Raises:
        UnbuildableError: its requirements cannot be read.
    """
    needs = Needs.of(folder)
    reasons: list[str] = []
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if needs.python is not None and needs.python != own:
        reasons.append(f"Python {needs.python}, the server has {own}")
    for line in needs.lines:
        reasons += _reasons(line)
    for line in needs.constraints:
        # A constraint says nothing of what is not there.
        reasons += [reason for reason in _reasons(line) if not reason.endswith(_NONE)]
    return list(dict.fromkeys(reasons))


_NONE = ", the server has none"


def _reasons(line: str) -> list[str]:
    if line.startswith("-"):
        return []  # says where to look, and nothing of what is wanted
    wanted = _wanted(line)
    if isinstance(wanted, Requirement):
        return list(_missing(wanted, frozenset()))
    if isinstance(wanted, Path):
        named = _of_file(wanted.name)
        if named is None or _installed(named[0]) != named[1]:
            return [f"{wanted.name}, the server has {_version_text(named[0]) if named else 'none'}"]
        return []
    return [f"{without_credentials(wanted)}{_NONE}"]


def _missing(wanted: Requirement, seen: frozenset[str]) -> Iterator[str]:
    """Yield why `wanted` is not satisfied, the extras it asks for included."""
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return
    text, name = without_credentials(str(wanted).partition(";")[0].strip()), canonicalize_name(wanted.name)
    if name in _LOADER and not wanted.extras and wanted.url is None:
        if not _loads(wanted):
            yield f"{text}, the server has {_version_text('mlflow-skinny')}"
        return
    version = _installed(name)
    if version is None:
        yield f"{text}{_NONE}"
    elif wanted.url is not None:
        if (origin := _origin(name)) is None or origin != wanted.url.partition("#")[0]:
            yield f"{text}, the server has {version} of another origin"
    elif not wanted.specifier.contains(version, prereleases=True):
        yield f"{text}, the server has {version}"
    else:
        for extra in sorted(wanted.extras):
            if (mark := f"{name}[{extra}]") in seen:
                continue
            for inner in metadata.requires(name) or []:
                needed = Requirement(inner)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    continue
                if needed.marker.evaluate({"extra": extra}):
                    needed.marker = None
                    yield from (f"{mark} wants {said}" for said in _missing(needed, seen | {mark}))


def _loads(wanted: Requirement) -> bool:
    own = _installed("mlflow-skinny")
    if own is None or wanted.specifier.contains(own, prereleases=True):
        return own is not None
    pins = [_version(one.version) for one in wanted.specifier if one.operator == "=="]
    return len(pins) == 1 and pins[0] is not None and pins[0].major == own.major and pins[0] <= own


def loaded_by(line: str) -> bool:
    """Tell whether a requirement asks for MLflow's loader alone, in a version which the server's stands in for."""
    wanted = _wanted(line)
    if not isinstance(wanted, Requirement) or wanted.extras or wanted.url is not None:
        return False
    return canonicalize_name(wanted.name) in _LOADER and _loads(wanted)


def lighter(line: str) -> str:
    """Return a requirement with MLflow's loader alone instead of all of MLflow, which it names for itself.

    >>> lighter("mlflow==3.17.2"), lighter("mlflow[extras]==3.17.2")
    ('mlflow-skinny==3.17.2', 'mlflow[extras]==3.17.2')
    """
    wanted = _wanted(line)
    if isinstance(wanted, Requirement) and wanted.name.lower() == "mlflow" and not wanted.extras and not wanted.url:
        wanted.name = "mlflow-skinny"
        return str(wanted)
    return line


def _logical(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file, continued ones joined, without comments."""
    held = ""
    for line in text.splitlines():
        if line.rstrip().endswith("\\") and not line.lstrip().startswith("#"):
            held += line.rstrip()[:-1] + " "
            continue
        if whole := _COMMENT.sub("", held + line).strip():
            yield whole
        held = ""
    if whole := _COMMENT.sub("", held).strip():
        yield whole


def _bare(line: str) -> str:
    """Return a requirement without the options (hashes, build settings) which follow it."""
    return _OPTION_OF_REQUIREMENT.split(line, maxsplit=1)[0].strip()


def _wanted(line: str) -> Requirement | Path | str:
    """Return what a line asks for: a named requirement, a file of the model, or the text which is neither."""
    text = _bare(line)
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


def _of_file(name: str) -> tuple[str, Version] | None:
    try:
        project, version, _, _ = parse_wheel_filename(name)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    return project, version


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
    """Return the URL which `name` was installed from, if that was no index."""
    try:
        text = metadata.distribution(name).read_text("direct_url.json")
        return _text(_mapping(json.loads(text or "{}")).get("url"))
    except ValueError:
        return None


def without_credentials(text: str) -> str:
    """Return `text` with the user and password of every URL in it left out.

    >>> without_credentials("a @ https://me:secret@example.org/a.whl")
    'a @ https://example.org/a.whl'
    """
    return re.sub(r"//[^/\s]*@", "//", text)


def _python(given: object) -> str | None:
    found = _PYTHON.match(str(given)) if given is not None else None
    return found[1] if found else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return _mapping(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        raise UnbuildableError("cannot be read", field=path.name) from None
