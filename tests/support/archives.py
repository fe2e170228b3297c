"""A source archive whose build runs code."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def source_archive(folder: Path) -> tuple[Path, Path]:
    """Write `tidemill-tests-odd` 1.0, whose build writes a file; return the archive and that file."""
    ran = folder / "the-build-ran"
    backend = (
        f"open({str(ran)!r}, 'w').close()\n"
        "def build_wheel(*_, **__): raise RuntimeError('this archive builds nothing')\n"
    )
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: tidemill-tests-odd\nVersion: 1.0\n",
        "pyproject.toml": (
            "[project]\nname = 'tidemill-tests-odd'\ndynamic = ['version']\n"
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        ),
        "backend.py": backend,
        "setup.py": backend,
    }
    place = folder / "archives"
    place.mkdir()
    archive = place / "tidemill_tests_odd-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"tidemill_tests_odd-1.0/{name}")
            entry.size = len(text)
            file.addfile(entry, io.BytesIO(text.encode()))
    return archive, ran
