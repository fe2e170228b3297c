"""The list of packages is complete, and no file speaks of the machine it was written on."""

from __future__ import annotations

import re
import tomllib

from tests.support.tree import ROOT, TOP_PACKAGES, project_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_folder_is_listed_in_pyproject() -> None:
    folders = {
        path.parent for path in project_files() if path.parts[0] in TOP_PACKAGES and path.suffix in {".py", ".pyi"}
    }
    assert {".".join(["tidemill", *folder.parts]) for folder in folders} <= set(
        PROJECT["tool"]["setuptools"]["packages"]
    )
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").is_file()] == []


def test_every_listed_package_is_there() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    missing = [name for name in listed if not (ROOT.joinpath(*name.split(".")[1:]) / "__init__.py").is_file()]
    assert missing == []
    assert len(listed) == len(set(listed))


def test_the_extra_all_holds_every_other_extra() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    [everything] = extras["all"]
    assert set(re.findall(r"\w+", everything)) - {"tidemill"} == set(extras) - {"all"}


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    # Put together here, so that this file does not find itself.
    places = re.compile("|".join(["/" + "work" + "/", "/" + "root" + "/", r"/" + r"home/\w", r"/" + r"Users/\w"]))
    wrong: list[str] = []
    for path in project_files():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += [f"{path}: {found[0]}" for found in places.finditer(text)]
    assert wrong == []


def test_the_lock_names_only_the_public_registry() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    assert "index" not in PROJECT["tool"]["uv"]


def test_ci_runs_the_command_which_the_readme_gives() -> None:
    commands = [
        line for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines() if line.startswith("python3 ")
    ]
    assert len(commands) == 1
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert commands[0].removesuffix(' "$@"') in readme
