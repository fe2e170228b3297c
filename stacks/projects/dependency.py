"""The source of tidemill in a project: the package index if it has this very file, else a wheel in the project."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from ...runtime.common.errors import TidemillError, UserError
from ..uv_command import run_uv
from ..wheels import DISTRIBUTION, install_origin, own_wheel

VENDOR = "vendor"
"""The folder of a project that contains the wheel."""

_ASK_SECONDS = 20.0
_LOCK_SECONDS = 600.0
_FROM_INDEX = "constraint-dependencies = "
_FROM_WHEEL = "[tool.uv.sources]\n"


def require(project: Path) -> str:
    """Add the source of this tidemill to `pyproject.toml` of `project`, and return the source as a sentence.

    The index is used only if it has exactly this file, or if this tidemill was installed from it: on another index the
    name may belong to somebody else.

    Raises:
        UserError: `pyproject.toml` already has a source of tidemill.
        PlatformError: the wheel cannot be built.
    """
    file = project / "pyproject.toml"
    text = file.read_text(encoding="utf-8")
    if re.search(rf"^{DISTRIBUTION} = ", text, flags=re.MULTILINE) or _FROM_INDEX in text:
        raise UserError("already has a source of tidemill", field=str(file))
    version = metadata.version(DISTRIBUTION)
    with tempfile.TemporaryDirectory() as work:
        wheel, how = own_wheel(Path(work))
        known = _hashes(version)
        if known and (install_origin().kind == "index" or hashlib.sha256(wheel.read_bytes()).hexdigest() in known):
            file.write_text(f'{text}{_FROM_INDEX}["{DISTRIBUTION}=={version}"]\n', encoding="utf-8")
            return f"tidemill {version} comes from the package index"
        folder = project / VENDOR
        folder.mkdir()
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        source = f'{DISTRIBUTION} = {{ path = "{VENDOR}/{wheel.name}" }}'
        file.write_text(f"{text}\n{_FROM_WHEEL}{source}\n", encoding="utf-8")
        return f"tidemill {version} is in {VENDOR}/, {how}: the package index does not have this file"


def lock(project: Path) -> str | None:
    """Write `uv.lock` of `project`; return why that failed, or None."""
    reason = ""
    # Without a network, uv's cache may be enough.
    for more in ([], ["--offline"]):
        try:
            done = run_uv(["lock", "--python", sys.executable, *more], project, seconds=_LOCK_SECONDS)
        except TidemillError as error:
            return str(error)
        if done.returncode == 0:
            return None
        reason = reason or _reason(done.stderr)
    return reason


def _hashes(version: str) -> set[str]:
    """Return the SHA-256 of each file of `version` in the index; none if the index cannot be reached."""
    with tempfile.TemporaryDirectory() as work:
        asked = Path(work) / "requirements.in"
        asked.write_text(f"{DISTRIBUTION}=={version}\n", encoding="utf-8")
        words = ["pip", "compile", "--quiet", "--no-deps", "--no-header", "--no-annotate", "--generate-hashes"]
        # Do not wait long for an index that does not answer.
        patience = {"UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
        try:
            done = run_uv([*words, str(asked)], Path(work), seconds=_ASK_SECONDS, variables=patience)
        except TidemillError:
            return set()
    return set(re.findall(r"sha256:([0-9a-f]{64})", done.stdout)) if done.returncode == 0 else set()


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return " ".join(lines[-6:])[:600] or "uv printed no reason"
