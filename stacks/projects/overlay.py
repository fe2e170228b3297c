"""A temporary view of a project with some files changed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from .tree import ProjectFile, write_files


@contextmanager
def overlay(
    project: Path, files: Mapping[PurePosixPath, ProjectFile | None], copied: PurePosixPath | None = None
) -> Generator[Path]:
    """Yield a temporary folder that looks like `project` with `files` written; other files are links.

    Args:
        project: the folder of Pulumi.yaml.
        files: path -> new file; None removes it.
        copied: folder inside the project whose files are copied instead of linked.
    """
    real = {copied, *copied.parents} if copied is not None else {PurePosixPath()}
    for path in files:
        real.update(path.parents)
    with tempfile.TemporaryDirectory(prefix="tidemill-overlay-") as folder:
        root = Path(folder).resolve() / project.name

        def show(inside: PurePosixPath) -> None:
            (root / inside).mkdir()
            for found in (project / inside).iterdir():
                path = inside / found.name
                if path in files:
                    continue
                if path in real and found.is_dir() and not found.is_symlink():
                    show(path)
                elif inside == copied and found.is_file():
                    shutil.copyfile(found, root / path)
                else:
                    (root / path).symlink_to(found)

        show(PurePosixPath())
        write_files(root, {path: file for path, file in files.items() if file is not None})
        yield root
