"""A folder is what it holds now: no version that it held before is ever served."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill.runtime.batch_scoring.model_uri import ModelUri
from tidemill.runtime.common.errors import NotFoundError
from tidemill.runtime.common.settings import ListenSettings
from tidemill.runtime.serving.engines.errors import UnfitError
from tidemill.runtime.serving.settings import ServingSettings
from tidemill.runtime.serving.versions.source import FolderSource


def write(folder: Path, files: dict[str, str]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        os.utime(file, (1, 1))  # as a copy that keeps times does
    return folder


def source(folder: Path) -> FolderSource:
    return FolderSource(
        ServingSettings(
            listen=ListenSettings(port=1, token_file=Path("key")),
            model="m",
            path=folder,
            cache=folder.with_name("cache"),
        )
    )


def served(folder: Path) -> FolderSource:
    """Return a source whose version has been fetched and recorded as serving."""
    found = source(folder)
    info = found.resolve()
    assert info is not None
    found.fetch(info)
    found.record_served(info)
    return found


@given(
    names=st.lists(st.sampled_from(["model.bin", "data/a", "data/b", "code/x.py"]), min_size=1, unique=True),
    at=st.integers(0, 3),
)
def test_other_content_of_the_same_size_and_time_is_another_version(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], at: int
) -> None:
    folder = tmp_path_factory.mktemp("folder") / "model"
    files = {"MLmodel": "flavors: {}", **dict.fromkeys(names, "one")}
    before = served(write(folder, files)).resolve()
    assert source(write(folder, files)).resolve() == before, "the same content is the same version"
    files[names[at % len(names)]] = "two"
    after = source(write(folder, files))
    info = after.resolve()
    assert info is not None
    assert before is not None
    assert info.identity != before.identity
    assert after.cached(info) is None
    assert after.last_served() is None
    for name, text in files.items():
        assert (after.fetch(info) / "model" / name).read_text() == text


def test_a_folder_without_its_model_serves_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"MLmodel": "flavors: {}"})
    served(folder)
    (folder / "MLmodel").unlink()
    after = source(folder)
    assert (after.resolve(), after.last_served(), after.had_version()) == (None, None, False)


def test_a_folder_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"MLmodel": "flavors: {}"})
    found = source(folder)
    info = found.resolve()
    assert info is not None
    (folder / "MLmodel").write_text("flavors: {a: b}")
    with pytest.raises(UnfitError, match="changed"):
        found.fetch(info)


def test_the_folder_of_an_image_is_what_it_holds_now(tmp_path: Path) -> None:
    folder = write(tmp_path / "version" / "model", {"MLmodel": "flavors: {}"})
    stored = {"model": "m", "version": "3", "alias": "", "source": "s", "run_id": "", "tags": {}, "metrics": {}}
    (folder.parent / "version.json").write_text(json.dumps(stored))
    before = served(folder).resolve()
    write(folder, {"MLmodel": "flavors: {b: a}"})
    after = source(folder)
    info = after.resolve()
    assert info is not None
    assert before is not None
    assert (before.version, info.version) == ("3", "3")
    assert info.identity != before.identity
    assert after.cached(info) is None
    assert after.last_served() is None
    assert (after.fetch(info) / "model" / "MLmodel").read_text() == "flavors: {b: a}"


def test_a_path_that_is_no_model_is_named_for_what_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "runs", {"1/model/MLmodel": "flavors: {}", "1/model/model.skops": "", "notes": ""})
    cases = {
        "1/model/MLmodel": f"it is a file.*give its folder, {folder / '1' / 'model'}",
        "1/model/model.skops": f"it is a file.*give its folder, {folder / '1' / 'model'}",
        "notes": "it is a file, not the folder of a model",
        "absent": "the folder does not exist",
        ".": f"no MLmodel file.*give {folder / '1' / 'model'}",
    }
    for name, expected in cases.items():
        with pytest.raises(NotFoundError) as found:
            ModelUri.parse(str(folder / name))
        assert re.search(expected, str(found.value))
    shutil.rmtree(folder / "1")
    with pytest.raises(NotFoundError, match="the folder that contains MLmodel"):
        ModelUri.parse(str(folder))
