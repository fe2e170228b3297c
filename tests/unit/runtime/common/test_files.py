"""Files are replaced as a whole, with the permissions asked for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tidemill.runtime.common.files import replacement, write_private


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("durable", [True, False])
def test_a_private_file_and_its_folder_are_private(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "folder" / "secret"
    write_private(path, "first", durable=durable)
    write_private(path, b"second", durable=durable)
    assert path.read_text() == "second"
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_replacement_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="interrupted"), replacement(path) as file:
        file.write(b"half")
        raise RuntimeError("interrupted")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replacement_has_the_mode_asked_for_whatever_the_old_one_had(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("old")
    path.chmod(0o600)
    with replacement(path, mode=0o755) as file:
        file.write(b"new")
    assert (path.read_text(), mode_of(path)) == ("new", 0o755)
