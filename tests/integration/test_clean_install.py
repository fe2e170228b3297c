"""The wheel holds all of the tree, and the runtime works alone in a clean environment."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.support.tree import ROOT, TOP_PACKAGES, build_wheel, project_files, run_uv

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the runtime alone, at the locked versions; its bin folder."""
    folder = tmp_path_factory.mktemp("clean")
    run_uv("venv", "--quiet", str(folder / "venv"), cwd=folder)
    python = str(folder / "venv" / "bin" / "python")
    locked = run_uv(
        "export", "--frozen", "--quiet", "--no-default-groups", "--no-emit-project", "--project", str(ROOT), cwd=folder
    )
    (folder / "locked.txt").write_text(locked)
    run_uv("pip", "install", "--quiet", "--python", python, "--no-deps", "-r", "locked.txt", cwd=folder)
    run_uv("pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel), cwd=folder)
    run_uv("pip", "check", "--quiet", "--python", python, cwd=folder)
    return folder / "venv" / "bin"


def run(clean: Path, *argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TIDEMILL_", "PYTHON"))}
    return subprocess.run(
        [str(clean / argv[0]), *argv[1:]],
        cwd=cwd,
        env={**environment, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == {f"tidemill/{path.as_posix()}" for path in project_files() if path.parts[0] in TOP_PACKAGES}


def test_the_runtime_works_alone(clean: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, tidemill.runtime\n"
        "from tidemill.runtime import data, registry, training\n"
        "absent = ['pulumi', 'great_expectations', 'supervisor', 'sklearn']\n"
        "print([name for name in absent if importlib.util.find_spec(name)])"
    )
    done = run(clean, "python", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_command_works_and_says_which_extra_is_missing(clean: Path, tmp_path: Path) -> None:
    assert run(clean, "tidemill", "--help", cwd=tmp_path).returncode == 0
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    config = tmp_path / "stacks" / "config" / "Pulumi.flights-dev.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("config:\n  tidemill:stack:\n    team: flights\n    environment: dev\n")
    for light in (
        "validate",
        "status",
        "stacks",
        "config",
        "schema",
        "policies",
        "doctor",
        "up --help",
        "serve --help",
    ):
        done = run(clean, "tidemill", *light.split(), cwd=tmp_path)
        assert done.returncode in ((0, 1) if light == "doctor" else (0,)), f"{light}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
    done = run(clean, "tidemill", "up", "--yes", "--stack", "flights-dev", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'pip install "tidemill[platform]"' in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".tidemill").exists()
    for words in (["serve", "models:/flights@champion"], ["score", "models:/flights@champion", "in.csv", "out.csv"]):
        done = run(clean, "tidemill", *words, cwd=tmp_path)
        assert (done.returncode, 'pip install "tidemill[serve]"' in done.stderr) == (2, True), done.stderr
    assert run(clean, "tidemill", "keys", "add", "dashboard", "--file", "keys.json", cwd=tmp_path).returncode == 0
