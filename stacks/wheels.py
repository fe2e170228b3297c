"""The wheel of this very tidemill, for where it is installed without an index which has it."""

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

__all__ = ["OWN", "Origin", "build_wheel", "origin", "own_wheel"]

OWN = "tidemill"

_SECONDS = 900.0
_TREE = ("pyproject.toml", "README.md", "LICENSE", "components", "runtime", "stacks", "templates")
_TIME = (2020, 1, 1, 0, 0, 0)  # wheels of the same files are the same bytes
# What the installer added.
_INSTALLED = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"})


@dataclass(frozen=True)
class Origin:
    """Where this tidemill was installed from.

    Attributes:
        kind: `index`; `files`, a wheel or a folder whose files were copied; or `tree`, a folder with the sources.
        path: that wheel or folder, which may be gone; None where it was none of this machine.
    """

    kind: Literal["index", "files", "tree"]
    path: Path | None = None


def origin() -> Origin:
    """Return where this tidemill was installed from, as its installer wrote it down."""
    raw = _installed().read_text("direct_url.json")
    if not raw:
        return Origin("index")
    told: dict[str, Any] = json.loads(raw)
    url = urlsplit(str(told.get("url", "")))
    path = Path(unquote(url.path)) if url.scheme == "file" else None
    return Origin("tree" if told.get("dir_info", {}).get("editable") else "files", path)


def _installed() -> metadata.Distribution:
    """Return what was installed; a folder of sources on the path may look like it, and knows no files."""
    found = list(metadata.distributions(name=OWN))
    return next((one for one in found if one.read_text("RECORD") is not None), found[0])


def own_wheel(folder: Path) -> tuple[Path, str]:
    """Put the wheel of this tidemill into `folder`, and return it with how it was had, in words.

    Raises:
        PlatformError: it cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    came = origin()
    if came.kind == "tree" and came.path is not None and came.path.is_dir():
        return build_wheel(came.path, folder), "built from the sources which it is installed from"
    name = f"{OWN}-{_installed().version}-py3-none-any.whl"
    if came.path is not None and came.path.is_file() and came.path.name == name:
        return Path(shutil.copyfile(came.path, folder / name)), "the file which it was installed from"
    return _repacked(folder / name), "made again of the installed files"


def build_wheel(tree: Path, folder: Path) -> Path:
    """Build the wheel of the sources in `tree` into `folder`, in a copy: a build leaves things behind.

    Raises:
        PlatformError: it cannot be built.
    """
    from ..runtime.serving.isolation.environment import failure_reason

    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / "tree"
        copy.mkdir()
        for name in _TREE:
            if (tree / name).is_dir():
                shutil.copytree(tree / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(tree / name, copy / name)
        words = ["build", "--quiet", "--wheel", "--out-dir", str(folder), str(copy)]
        done = run_uv(words, Path(work), seconds=_SECONDS)
    (folder / ".gitignore").unlink(missing_ok=True)
    built = sorted(folder.glob(f"{OWN}-*.whl"))
    if done.returncode or len(built) != 1:
        raise PlatformError(f"the wheel of tidemill cannot be built: {failure_reason(done.stderr)}", field=str(tree))
    return built[0]


def _repacked(wheel: Path) -> Path:
    """Write `wheel` from the installed files; scripts and what the installer added are left to the next installer."""
    found = _installed()
    lines: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        record = ""
        for file in sorted(found.files or (), key=str):
            inside = file.parts[0].endswith(".dist-info")
            if file.parts[0] == ".." or file.suffix == ".pyc" or (inside and file.name in _INSTALLED):
                record = str(file) if inside and file.name == "RECORD" else record
                continue
            content = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append((str(file), f"sha256={digest}", str(len(content))))
            archive.writestr(_entry(str(file)), content)
        if not record:
            raise PlatformError(
                "it is not known which files are installed", field=OWN, hint="install it from its wheel"
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*lines, (record, "", "")])
        archive.writestr(_entry(record), text.getvalue())
    return wheel


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    return entry
