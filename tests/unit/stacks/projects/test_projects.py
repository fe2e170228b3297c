"""Answers, the rendered tree, and the stored template base."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill.runtime.common.errors import ConfigError, NotFoundError, TidemillError
from tidemill.stacks import wheels
from tidemill.stacks.projects import template_base
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import TEMPLATE_VERSION, render_project, template_folder, write_files
from tidemill.stacks.settings import StackConfig

LEAST: dict[str, Any] = {"team": "harbour", "environments": ["dev"], "models": ["berths"]}


def test_project_and_repository_default_to_the_team() -> None:
    made = Answers.of(LEAST)
    assert (made.project, made.repositories, made.owner, made.target) == (
        "harbour", ["harbour"], "harbour@example.org", "local",
    )  # fmt: skip
    assert Answers.of(made.to_mapping()) == made


def test_names_follow_the_patterns_of_the_stack_config() -> None:
    ours = Answers.model_json_schema()["properties"]
    theirs = StackConfig.model_json_schema()
    whole = theirs["properties"]
    for key in ("pattern", "minLength", "maxLength"):
        assert ours["team"].get(key) == whole["team"].get(key)
        assert ours["environments"]["items"].get(key) == whole["environment"].get(key)
    (models,) = whole["models"]["patternProperties"]
    assert ours["models"]["items"]["pattern"] == models
    (repositories,) = theirs["$defs"]["LakeConfig"]["properties"]["repositories"]["patternProperties"]
    assert ours["repositories"]["items"]["pattern"] == repositories
    assert set(ours["target"]["enum"]) == set(whole["target"]["enum"])


@given(st.text(max_size=40), st.sampled_from(["team", "project", "environments", "models", "repositories"]))
def test_a_name_is_rejected_or_plain_in_yaml(name: str, key: str) -> None:
    value: Any = name if key in ("team", "project") else [name]
    try:
        tree = render_project(Answers.of({**LEAST, key: value}))
    except ConfigError as error:
        assert (error.field or "").startswith(key)
        assert error.hint or "character" in error.message
    else:
        assert all(set(str(path)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_./PDREADMEockerfile") for path in tree)


def test_the_same_answers_give_the_same_bytes() -> None:
    code = (
        "import hashlib, sys\n"
        "from tidemill.stacks.projects.answers import Answers\n"
        "from tidemill.stacks.projects.tree import render_project\n"
        f"tree = render_project(Answers.of({LEAST!r}))\n"
        "print(hashlib.sha256(repr([(str(p), f) for p, f in tree.items()]).encode()).hexdigest())"
    )
    found = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "TZ": zone}, cwd="/",
                       capture_output=True, text=True, check=True).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }  # fmt: skip
    assert len(found) == 1


def test_one_file_for_each_environment_model_and_repository() -> None:
    tree = render_project(Answers.of({**LEAST, "environments": ["dev", "prod"], "models": ["a-1", "import"]}))
    names = {str(path) for path in tree}
    assert {"stacks/config/Pulumi.harbour-dev.yaml", "stacks/config/Pulumi.harbour-prod.yaml"} <= names
    assert {"models/a_1/train.py", "models/import_/train.py", "data/expectations/harbour.json"} <= names
    assert {".github/workflows/ci.yml", ".gitignore", "README.md", "Dockerfile", "stacks/__main__.py"} <= names
    assert not [name for name in names if "__" in name.replace("__init__", "").replace("__main__", "")]


def test_an_undefined_value_is_an_error_that_names_the_template(tmp_path: Path) -> None:
    (tmp_path / "notes.txt.j2").write_text("{{ teem }}")
    with pytest.raises(TidemillError, match=r"'teem' is undefined.*notes\.txt\.j2"):
        render_project(Answers.of(LEAST), tmp_path)


def test_a_template_that_renders_to_nothing_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt.j2").write_text('{% if target == "aws" %}\nthere\n{% endif %}\n')
    (tmp_path / "dot-run.j2").write_text("#!/bin/sh\n")
    tree = render_project(Answers.of(LEAST), tmp_path)
    assert {str(path): file.executable for path, file in tree.items()} == {".run": True}


def test_the_stored_template_base_equals_the_rendered_files(tmp_path: Path) -> None:
    chosen = Answers.of({**LEAST, "environments": ["on", "y"], "owner": "Ada: 'x' #1", "python": "3.12"})
    tree = render_project(chosen)
    write_files(tmp_path, {**tree, **template_base.base_files(chosen, TEMPLATE_VERSION, tree)})
    found = template_base.read(tmp_path)
    assert (found.answers, found.version, found.tree) == (chosen, TEMPLATE_VERSION, tree)
    (tmp_path / template_base.ANSWERS).write_text("template: '1'\nanswers:\n  team: harbour\n")
    with pytest.raises(ConfigError, match="environments: is missing"):
        template_base.read(tmp_path)
    with pytest.raises(NotFoundError, match="not created by `tidemill init`"):
        template_base.read(tmp_path / "elsewhere")


def test_every_template_is_package_data() -> None:
    odd = [path for path in template_folder().rglob("*") if path.is_file() and path.suffix != ".j2"]
    hidden = list(template_folder().rglob(".*"))
    assert (odd, hidden) == ([], [])


def test_a_wheel_built_from_installed_files_equals_the_installed_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses another package: tidemill itself is an editable install here."""
    monkeypatch.setattr(wheels, "DISTRIBUTION", "typer")
    wheel, how = wheels.own_wheel(tmp_path)
    assert how == "packed from the installed files"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        record = archive.read(next(name for name in names if name.endswith("/RECORD"))).decode().splitlines()
    assert [line.split(",")[0] for line in record] == names
    installed = {str(file): file.hash for file in metadata.files("typer") or () if file.hash}
    kept = {line.split(",")[0]: line.split(",")[1] for line in record}
    same = {name: f"sha256={found.value}" for name, found in installed.items() if name in kept}
    assert {name: kept[name] for name in same} == same
    assert {PurePosixPath(name).name for name in set(installed) - set(kept)} <= {
        "typer", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json",
    }  # fmt: skip
