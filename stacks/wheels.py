"""Provides the wheel of the running tidemill, to install it where no index has it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from ..runtime.common.errors import PlatformError
from .uv_command import run_uv

DISTRIBUTION = "tidemill"

_SECONDS = 900.0
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "components", "runtime", "stacks", "templates")
_FILE_TIME = (2020, 1, 1, 0, 0, 0)  # fixed, so that wheels of the same files are identical
# Files that installers add.
_INSTALLER_FILES = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"})


@dataclass(frozen=True)
class Origin:
    """Where this tidemill was installed from.

    Attributes:
        kind: `index`; `files`, a wheel, or a folder whose files were copied; or `tree`, an editable folder of sources.
        path: the wheel or folder, which may no longer exist; None if it was not on this machine.
    """

    kind: Literal["index", "files", "tree"]
    path: Path | None = None


def install_origin() -> Origin:
    """Return where this tidemill was installed from, according to its installer."""
    raw = _installed().read_text("direct_url.json")
    if not raw:
        return Origin("index")
    record: dict[str, Any] = json.loads(raw)
    url = urlsplit(str(record.get("url", "")))
    path = Path(unquote(url.path)) if url.scheme == "file" else None
    return Origin("tree" if record.get("dir_info", {}).get("editable") else "files", path)


def _installed() -> metadata.Distribution:
    """Return the installed distribution. A source folder on the path looks like one, but has no RECORD."""
    found = list(metadata.distributions(name=DISTRIBUTION))
    return next((each for each in found if each.read_text("RECORD") is not None), found[0])


def own_wheel(folder: Path) -> tuple[Path, str]:
    """Put the wheel of this tidemill into `folder`; return its path and how the wheel was obtained.

    Raises:
        PlatformError: the build failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    origin = install_origin()
    if origin.kind == "tree" and origin.path is not None and origin.path.is_dir():
        return build_wheel(origin.path, folder), "built from its source folder"
    name = f"{DISTRIBUTION}-{_installed().version}-py3-none-any.whl"
    if origin.path is not None and origin.path.is_file() and origin.path.name == name:
        return Path(shutil.copyfile(origin.path, folder / name)), "the file that it was installed from"
    return _repacked(folder / name), "packed from the installed files"


def build_wheel(tree: Path, folder: Path) -> Path:
    """Build the wheel of the sources in `tree` into `folder`, from a copy, since a build leaves files behind.

    Raises:
        PlatformError: the build failed.
    """
    from ..runtime.serving.isolation.environment import failure_reason

    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / "tree"
        copy.mkdir()
        for name in _SOURCES:
            if (tree / name).is_dir():
                shutil.copytree(tree / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(tree / name, copy / name)
        arguments = ["build", "--quiet", "--wheel", "--out-dir", str(folder), str(copy)]
        done = run_uv(arguments, Path(work), seconds=_SECONDS)
    (folder / ".gitignore").unlink(missing_ok=True)
    built = sorted(folder.glob(f"{DISTRIBUTION}-*.whl"))
    if done.returncode or len(built) != 1:
        raise PlatformError(f"cannot build the wheel of tidemill: {failure_reason(done.stderr)}", field=str(tree))
    return built[0]


def _repacked(wheel: Path) -> Path:
    """Write `wheel` from the installed files, without scripts and files that installers add."""
    found = _installed()
    lines: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        record = ""
        for file in sorted(found.files or (), key=str):
            inside = file.parts[0].endswith(".dist-info")
            if file.parts[0] == ".." or file.suffix == ".pyc" or (inside and file.name in _INSTALLER_FILES):
                record = str(file) if inside and file.name == "RECORD" else record
                continue
            content = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append((str(file), f"sha256={digest}", str(len(content))))
            archive.writestr(_entry(str(file)), content)
        if not record:
            raise PlatformError(
                "the installation has no list of its files", field=DISTRIBUTION, hint="install it from its wheel"
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*lines, (record, "", "")])
        archive.writestr(_entry(record), text.getvalue())
    return wheel


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _FILE_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    return entry
