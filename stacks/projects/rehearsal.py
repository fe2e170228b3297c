"""Shows what a project would be with some files written, without writing them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from .tree import Rendered

__all__ = ["rehearsed"]


@contextmanager
def rehearsed(
    project: Path, files: Mapping[PurePosixPath, Rendered | None], copied: PurePosixPath | None = None
) -> Generator[Path]:
    """Give a folder which looks like `project` with `files` written; what they do not touch are links.

    Args:
        project: the folder of Pulumi.yaml.
        files: path -> what it would hold; None for a file which would go away.
        copied: a folder within it whose files are copied, so that nothing leads from them to the real ones.
    """
    real = {copied, *copied.parents} if copied is not None else {PurePosixPath()}
    for path in files:
        real.update(path.parents)
    with tempfile.TemporaryDirectory(prefix="tidemill-rehearsal-") as folder:
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
        for path, file in files.items():
            if file is not None:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(file.content)
        yield root
