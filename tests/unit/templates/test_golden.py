"""Rendered files equal the golden files, so that a template change shows in the diff of tests/golden."""

from __future__ import annotations

from pathlib import Path

from tests.support.golden import GOLDEN, files


def test_rendered_files_equal_the_golden_files(tmp_path: Path) -> None:
    found = files(tmp_path)
    kept = {
        path.relative_to(GOLDEN).as_posix(): path.read_text(encoding="utf-8")
        for path in GOLDEN.rglob("*")
        if path.is_file()
    }
    changed = sorted(name for name in found.keys() | kept.keys() if found.get(name) != kept.get(name))
    assert not changed, "run `python -m tests.support.golden`, review the diff and commit it"
