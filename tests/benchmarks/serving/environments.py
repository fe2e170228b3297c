"""The peers' own virtual environments: pinned, made with uv, kept in the user's cache.

    <cache>/benchmarks/<name>-<hash of the requirements and of Python's version>/

An environment comes into being by one rename, so that one which was cut short is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock
from tidemill.components.tools import cache_folder

from tests.support.tree import ROOT

# All of them read the one model: what writes it and what it computes with has the same version everywhere.
_MODEL = ("scikit-learn==1.9.1", "numpy==2.4.6", "joblib==1.6.0", "psutil")

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "mlflow": ("mlflow==3.17.2", "skops==0.16.0", "pandas==3.1.1", *_MODEL),
    # It dies on start with uvloop 0.23.
    "mlserver": ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22", "pandas<3.1", *_MODEL),
    "bentoml": ("bentoml==1.4.40", "pandas==3.1.1", *_MODEL),
    "litserve": ("litserve==0.2.19", "pandas==3.1.1", *_MODEL),
}


def find_uv() -> str:
    """Return uv: this tree's own (see README), or the one on PATH."""
    own = ROOT / ".tidemill" / "uv" / "bin" / "uv"
    if own.exists():
        return str(own)
    if found := shutil.which("uv"):
        return found
    raise SystemExit("uv is needed: python3 -m pip install -qq --target .tidemill/uv uv")


def environment(name: str) -> Path:
    """Return the folder with the programs of the environment `name`, made first where it is not there yet."""
    requirements = REQUIREMENTS[name]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256("\n".join((python, *requirements)).encode()).hexdigest()[:12]
    base = cache_folder() / "benchmarks"
    folder = base / f"{name}-{key}"
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            uv = find_uv()
            print(f"making the environment of {name} ({', '.join(requirements)}) ...", flush=True)
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=base))
            try:
                staged = work / "venv"
                # Relocatable: it is moved to its place when it is whole.
                subprocess.run([uv, "venv", "-q", "--relocatable", "--python", sys.executable, staged], check=True)
                env = {**os.environ, "VIRTUAL_ENV": str(staged)}
                subprocess.run([uv, "pip", "install", "-q", *requirements], env=env, check=True)
                staged.rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return folder / "bin"
