"""The project's files, and its wheel, as a clean clone would give them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP_PACKAGES = ("components", "runtime", "stacks", "templates")


def project_files() -> list[Path]:
    """Return what Git tracks or would add, relative to the root; no links, no ignored files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = sorted(set(filter(None, listed.split("\0"))))
    return [Path(name) for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def uv() -> str:
    """Return the uv which runs us (`uv run` names itself in UV), or the one on PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "uv is not found; run the tests with `uv run pytest`"
    return found


def run_uv(*args: str, cwd: Path) -> str:
    """Run uv, which must succeed, outside of the environment the tests run in."""
    environment = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "UV_FROZEN"}}
    done = subprocess.run([uv(), *args], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"uv {' '.join(args)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(folder: Path, *, version: str | None = None) -> Path:
    """Build the wheel from a copy of the tree, so that nothing an earlier build left gets into it.

    Args:
        folder: for the copy and the wheel.
        version: of the wheel, instead of the tree's.
    """
    tree = folder / "tree"
    for name in project_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    if version is not None:
        project = tree / "pyproject.toml"
        text, changed = re.subn(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1)
        assert changed
        project.write_text(text)
    run_uv("build", "--wheel", "--out-dir", str(folder / "dist"), str(tree), cwd=folder)
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel
