"""Prepares the folder which an image is built from: nothing but what goes into the image is in it.

    <folder>/
      Dockerfile          rendered from `templates/images/Dockerfile.j2`
      requirements.txt    from the project's lock, with hashes
      lib/                tidemill's runtime as it is here, and its metadata; of one which trains, the sample team too
      project/            the project's files as Git knows them, where the image trains; with the commit they are of

The same inputs give the same bytes, so that the digest of the folder names the image.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.common.errors import ConfigError
from ...runtime.training.lineage import RECORDED, code_state
from ...templates import render
from .lock import requirements

__all__ = ["BuildContext", "ImageSpec", "prepare", "python_of"]

_SKIPPED = ("__pycache__", "*.pyc")
_KEPT_OUT = (".tidemill", ".tidemill-template", ".venv", ".pulumi", ".git")
# What says how the platform stands is no part of the code that trains: a changed setting is no other training.
_CONFIGS = ("Pulumi.yaml", "Pulumi.*.yaml")
_CONTENT = (
    "__init__.py",
    *(f"provider/{name}.py" for name in ("__init__", "apply", "base")),
    *(f"provider/content/{name}.py" for name in ("__init__", "base", "lakefs", "lakefs_action", "mlflow", "rest")),
)


@dataclass(frozen=True)
class ImageSpec:
    """One of our own images.

    Attributes:
        name: its name within the stack.
        extras: extras of tidemill which its program needs.
        base: the image it is built from.
        project_extras: with the project's code and what that depends on, these extras of its included; None without.
        content: with what makes content inside servers, for where that happens in a container.
    """

    name: str
    extras: Sequence[str]
    base: str
    project_extras: Sequence[str] | None = None
    content: bool = False


@dataclass(frozen=True)
class BuildContext:
    """A prepared folder.

    Attributes:
        folder: what is sent to the daemon.
        dockerfile: path of the Dockerfile.
        digest: of everything in it.
    """

    folder: Path
    dockerfile: Path
    digest: str


def prepare(folder: Path, project: Path, spec: ImageSpec, *, python: str, arch: str = "x86_64") -> BuildContext:
    """Make `folder` what `spec` is built from.

    Args:
        folder: emptied first.
        project: the folder of Pulumi.yaml and `uv.lock`.
        spec: the image.
        python: Python's version in the base image.
        arch: the machine the image is for.

    Raises:
        TidemillError: there is no lock, or it has not what is asked for.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    own = spec.project_extras
    text = requirements(project, spec.extras, python=python, own_extras=own, arch=arch)
    (folder / "requirements.txt").write_text(text, encoding="utf-8")
    (folder / "Dockerfile").write_text(
        render("images/Dockerfile.j2", base=spec.base, trains=own is not None), encoding="utf-8"
    )
    _copy_runtime(folder / "lib")
    if spec.content:
        _copy_content(folder / "lib")
    if own is not None:
        _copy_sample(folder / "lib")
        _copy_project(project, folder / "project")
    return BuildContext(folder, folder / "Dockerfile", _digest(folder))


def python_of(base: str) -> str:
    """Return the version of Python in the image `base`, as its name tells it.

    >>> python_of("python:3.12.9-slim")
    '3.12.9'
    """
    found = re.search(r"python:(\d+\.\d+(?:\.\d+)?)", base)
    return found[1] if found else f"{sys.version_info.major}.{sys.version_info.minor}"


def _copy_runtime(lib: Path) -> None:
    """Put the runtime of this very tidemill into `lib`, and enough of its metadata to tell its version."""
    source = _package("tidemill.runtime")
    shutil.copytree(source, lib / "tidemill" / "runtime", ignore=shutil.ignore_patterns(*_SKIPPED))
    version = importlib.metadata.version("tidemill")
    metadata = lib / f"tidemill-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tidemill\nVersion: {version}\n", encoding="utf-8")


def _copy_content(lib: Path) -> None:
    """Put the provider's own parts which talk to servers beside the runtime: no more of it is ever imported there."""
    source = Path(__file__).parents[1]
    for name in _CONTENT:
        target = lib / "tidemill" / "components" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)


def _copy_sample(lib: Path) -> None:
    """Put what the sample team's code imports of tidemill beside the runtime; elsewhere it is installed with it."""
    source = _package("tidemill.stacks.flights")
    to = lib / "tidemill" / "stacks"
    shutil.copytree(source, to / "flights", ignore=shutil.ignore_patterns(*_SKIPPED))
    shutil.copyfile(source.parent / "__init__.py", to / "__init__.py")


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None and found.submodule_search_locations  # noqa: S101 - it comes with this module
    return Path(next(iter(found.submodule_search_locations)))


def _copy_project(project: Path, to: Path) -> None:
    """Copy the files which Git knows, or could add, and write down which commit they are of."""
    to.mkdir()
    for name in _listed(project):
        source = project / name
        unwanted = any(part in _KEPT_OUT for part in Path(name).parts) or any(map(Path(name).match, _CONFIGS))
        if source.is_file() and not source.is_symlink() and not unwanted:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to / name)
    state = code_state(project, leave_out=_CONFIGS)
    recorded = {"commit": state.commit, "dirty": state.dirty, "patch": state.patch}
    (to / RECORDED).write_text(json.dumps(recorded, sort_keys=True), encoding="utf-8")


def _listed(project: Path) -> Iterator[str]:
    try:
        done = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=project, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise ConfigError(
            "is in no Git repository, so that it is not known which of its files are code and which are secrets",
            field="project",
            value=str(project),
            hint="run `git init` and commit it",
        ) from None
    yield from sorted(filter(None, done.stdout.decode("utf-8", "surrogateescape").split("\0")))


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()
