"""The wheel of the last release, built once from its commit and kept in the cache of the tests."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.support.docker import cache_folder
from tests.support.tree import ROOT, run_uv

LAST_RELEASE = "56a316668c8c7573ca39fdb1bddc959b1e498cca"
"""The commit whose stacks must keep running. Move it to the newest landed commit before a change of what is on disk."""


def unpack_last_release(folder: Path) -> Path:
    """Put the files of the last release into `folder`, as a checkout of it has them; return `folder`."""
    done = subprocess.run(["git", "archive", "--format=tar", LAST_RELEASE], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        shallow = subprocess.run(
            ["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        if shallow.stdout.strip() == "true":
            pytest.skip(f"this clone does not hold {LAST_RELEASE[:12]}; fetch the whole history: git fetch --unshallow")
        raise AssertionError(done.stderr.decode())
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def last_wheel() -> Path:
    """Return the wheel of the last release."""
    kept = cache_folder() / f"release-{LAST_RELEASE[:12]}"
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as text:
            tree = unpack_last_release(Path(text) / "tree")
            run_uv("build", "--wheel", "--out-dir", str(Path(text) / "dist"), str(tree), cwd=Path(text))
            (Path(text) / "dist" / ".gitignore").unlink(missing_ok=True)
            try:
                (Path(text) / "dist").rename(kept)
            except OSError:  # another run was faster
                assert kept.is_dir()
    (wheel,) = kept.glob("*.whl")
    return wheel
