"""Prepares the build context of one of our images: a folder with only the files that go into the image.

    <folder>/
      Dockerfile          rendered from `templates/images/services/Dockerfile.j2`
      requirements.txt    from the project's lock, with hashes
      lib/                the runtime of this tidemill and its metadata; for training, also the sample team
      project/            for training: the project's files that Git lists, and the commit they belong to

The same inputs give the same bytes, so the digest of the folder identifies the image.
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

_SKIPPED = ("__pycache__", "*.pyc")
_EXCLUDED = (".tidemill", ".tidemill-template", ".venv", ".pulumi", ".git")
# Platform settings are not part of the training code: changing them must not change the image.
_CONFIGS = ("Pulumi.yaml", "Pulumi.*.yaml")
_CONTENT = (
    "__init__.py",
    *(f"provider/{name}.py" for name in ("__init__", "apply", "base")),
    *(f"provider/content/{name}.py" for name in ("__init__", "base", "lakefs", "lakefs_action", "mlflow", "rest")),
)


@dataclass(frozen=True)
class ImageSpec:
    """One of our images.

    Attributes:
        name: its name within the stack.
        extras: extras of tidemill to install.
        base: its base image.
        project_extras: extras of the project to install, with its dependencies and code; None leaves the project out.
        content: whether it contains the code that creates content inside servers.
    """

    name: str
    extras: Sequence[str]
    base: str
    project_extras: Sequence[str] | None = None
    content: bool = False


@dataclass(frozen=True)
class BuildContext:
    """A prepared build context.

    Attributes:
        folder: the folder.
        dockerfile: path of the Dockerfile.
        digest: digest of all its files.
    """

    folder: Path
    dockerfile: Path
    digest: str


def prepare(folder: Path, project: Path, spec: ImageSpec, *, python: str, arch: str = "x86_64") -> BuildContext:
    """Write the build context of `spec` into `folder`.

    Args:
        folder: the folder; its old contents are deleted.
        project: the folder of Pulumi.yaml and `uv.lock`.
        spec: the image.
        python: Python's version in the base image.
        arch: architecture of the image, `x86_64` or `aarch64`.

    Raises:
        TidemillError: the lock does not exist, or lacks a package or extra.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    own = spec.project_extras
    text = requirements(project, spec.extras, python=python, own_extras=own, arch=arch)
    (folder / "requirements.txt").write_text(text, encoding="utf-8")
    (folder / "Dockerfile").write_text(
        render("images/services/Dockerfile.j2", base=spec.base, trains=own is not None), encoding="utf-8"
    )
    _copy_runtime(folder / "lib")
    if spec.content:
        _copy_content(folder / "lib")
    if own is not None:
        _copy_sample(folder / "lib")
        _copy_project(project, folder / "project")
    return BuildContext(folder, folder / "Dockerfile", _digest(folder))


def python_of(base: str) -> str:
    """Return the version of Python in the image `base`, according to its name.

    >>> python_of("python:3.12.9-slim")
    '3.12.9'
    """
    found = re.search(r"python:(\d+\.\d+(?:\.\d+)?)", base)
    return found[1] if found else f"{sys.version_info.major}.{sys.version_info.minor}"


def _copy_runtime(lib: Path) -> None:
    """Copy the runtime of this tidemill into `lib`, and metadata with its version."""
    source = _package("tidemill.runtime")
    shutil.copytree(source, lib / "tidemill" / "runtime", ignore=shutil.ignore_patterns(*_SKIPPED))
    version = importlib.metadata.version("tidemill")
    metadata = lib / f"tidemill-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tidemill\nVersion: {version}\n", encoding="utf-8")


def _copy_content(lib: Path) -> None:
    """Copy the part of the provider that creates content; the container imports no other part."""
    source = Path(__file__).parents[1]
    for name in _CONTENT:
        target = lib / "tidemill" / "components" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)


def _copy_sample(lib: Path) -> None:
    """Copy the sample team's package, which its training code imports."""
    source = _package("tidemill.stacks.flights")
    to = lib / "tidemill" / "stacks"
    shutil.copytree(source, to / "flights", ignore=shutil.ignore_patterns(*_SKIPPED))
    shutil.copyfile(source.parent / "__init__.py", to / "__init__.py")


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None and found.submodule_search_locations  # noqa: S101 - it comes with this module
    return Path(next(iter(found.submodule_search_locations)))


def _copy_project(project: Path, to: Path) -> None:
    """Copy the project's tracked and untracked files, except ignored ones, and record their commit."""
    to.mkdir()
    for name in _git_files(project):
        source = project / name
        excluded = any(part in _EXCLUDED for part in Path(name).parts) or any(map(Path(name).match, _CONFIGS))
        if source.is_file() and not source.is_symlink() and not excluded:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to / name)
    state = code_state(project, leave_out=_CONFIGS)
    recorded = {"commit": state.commit, "dirty": state.dirty, "patch": state.patch}
    (to / RECORDED).write_text(json.dumps(recorded, sort_keys=True), encoding="utf-8")


def _git_files(project: Path) -> Iterator[str]:
    try:
        done = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=project, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise ConfigError(
            "is not in a Git repository, so tidemill cannot tell code from secrets",
            field="project",
            value=str(project),
            hint="run `git init` and commit the code",
        ) from None
    yield from sorted(filter(None, done.stdout.decode("utf-8", "surrogateescape").split("\0")))


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()
