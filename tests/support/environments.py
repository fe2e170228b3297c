"""Virtual environments of other packages: pinned, made with uv, kept in the user's cache.

    <cache>/<folder>/<name>-<hash of the requirements and of Python's version>/

An environment appears by one rename, so an interrupted one is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from tidemill.components.tools import cache_folder

from tests.support.tree import ROOT


def find_uv() -> str:
    """Return uv: this tree's own (see README), or the one on PATH."""
    own = ROOT / ".tidemill" / "uv" / "bin" / "uv"
    if own.exists():
        return str(own)
    if found := shutil.which("uv"):
        return found
    raise FileNotFoundError("uv is needed: python3 -m pip install -qq --target .tidemill/uv uv")


def environment_of(name: str, requirements: Sequence[str], *, folder: str) -> Path:
    """Return the folder with the programs of the environment `name`; create the environment if it does not exist."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256("\n".join((python, *requirements)).encode()).hexdigest()[:12]
    base = cache_folder() / folder
    environment = base / f"{name}-{key}"
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / f"{name}.lock"):
        if not environment.exists():
            uv = find_uv()
            print(f"making the environment of {name} ({', '.join(requirements)}) ...", flush=True)
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=base))
            try:
                staged = work / "venv"
                # Relocatable: it is moved to its place when it is complete.
                subprocess.run([uv, "venv", "-q", "--relocatable", "--python", sys.executable, staged], check=True)
                env = {**os.environ, "VIRTUAL_ENV": str(staged)}
                subprocess.run([uv, "pip", "install", "-q", *requirements], env=env, check=True)
                staged.rename(environment)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return environment / "bin"


def run_in(programs: Path, script: Path, given: Mapping[str, Any]) -> Any:
    """Run `script` with the Python in `programs`; return the JSON value that it prints.

    Args:
        programs: of an environment.
        script: reads a JSON object from standard input.
        given: that object.
    """
    done = subprocess.run(
        [programs / "python", "-I", script],
        input=json.dumps(given),
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)
