"""The wheel of the last release, built once from its commit and kept in the cache of the tests."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.support.docker import cache_folder
from tests.support.tree import ROOT, run_uv

LAST_RELEASE = "8e7b694db26006018acb7dcca53c38cf9200dd5b"
"""The commit whose stacks must keep running. Move it to the newest landed commit before a change of what is on disk."""


def unpack_last_release(folder: Path) -> Path:
    """Put the files of the last release into `folder`, as a checkout of it has them; return `folder`."""
    done = subprocess.run(["git", "archive", "--format=tar", LAST_RELEASE], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, (
        f"the commit of the last release is not in this clone ({done.stderr.decode().strip()}); "
        "fetch the whole history: git fetch --unshallow"
    )
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
