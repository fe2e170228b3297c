"""Projects for target x environments x models: their checkers, their own tests, and the preview of `up`.

The quick checkers run on every project; types, tests and the engine run only where they can find something new.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tidemill.stacks.loading import project_settings
from tidemill.stacks.projects import template_base
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import render_project, write_files

from tests.support.generated import AWS, Clean
from tests.support.graphs import NATIVE
from tests.support.platform import git
from tests.support.standin.backend import shared_state
from tests.support.standin.engine import PACKAGES, Run, StandinStack, plugins_of

# The SDK leaves the event loop of a failed inline program to the garbage collector.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
]

TARGETS = ("local", "docker", "aws")
# One and several names, including names with a special meaning in some format.
ENVIRONMENTS = (["dev"], ["dev", "staging", "prod"], ["on", "y", "prod2"])
MODELS = (["late-flights"], ["late-flights", "class"], ["a", "null", "model-3"])
BIN = Path(sys.prefix) / "bin"


def answers(target: str, environments: list[str], models: list[str]) -> Answers:
    block = {"region": "eu-central-1", "domain": "ml.example.org", "zone": "Z123"}
    return Answers.of(
        {
            "team": "harbour",
            "environments": environments,
            "target": target,
            "models": models,
            "repositories": ["harbour", "2013-ships"][: len(environments)],
            "owner": 'Ada "the {{ team }}" #1: ${{ github.token }} <ada@example.org>',
            **({"aws": block} if target == "aws" else {}),
        }
    )


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    return Clean(tmp_path_factory.mktemp("clean"))


def write(project: Path, chosen: Answers) -> Path:
    tree = render_project(chosen)
    write_files(project, {**tree, **template_base.base_files(chosen, "1", tree)})
    return project


def judge(project: Path, *argv: str) -> str:
    done = subprocess.run(
        [str(BIN / argv[0]), *argv[1:]], cwd=project, capture_output=True, text=True, check=False, timeout=300
    )
    return "" if done.returncode == 0 else f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("models", MODELS, ids="+".join)
@pytest.mark.parametrize("environments", ENVIRONMENTS, ids="+".join)
@pytest.mark.parametrize("target", TARGETS)
def test_every_file_passes_its_checker(tmp_path: Path, target: str, environments: list[str], models: list[str]) -> None:
    chosen = answers(target, environments, models)
    project = write(tmp_path / "project", chosen)
    problems = [
        judge(project, "ruff", "check", "--no-cache"),
        judge(project, "ruff", "format", "--check", "--no-cache"),
        judge(project, "yamllint", "--strict", "."),
        judge(project, "tidemill", "validate"),
    ]
    workflow = ".github/workflows/ci.yml"
    problems.append(judge(project, "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow))
    assert [problem for problem in problems if problem] == []
    stack = yaml.safe_load((project / "stacks/config/base.yaml").read_text(encoding="utf-8"))
    assert {entry["owner"] for entry in stack["models"].values()} == {chosen.owner}
    notebook = json.loads((project / "notebooks/explore.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], len({cell["id"] for cell in notebook["cells"]})) == (4, len(notebook["cells"]))


@pytest.fixture(scope="module")
def several(clean: Clean, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two models and two repositories, in an environment with the wheel."""
    chosen = answers("local", ["dev", "prod"], ["late-flights", "class"])
    project = write(tmp_path_factory.mktemp("several") / "project", chosen)
    (project / ".venv").symlink_to(clean.path, target_is_directory=True)
    return project


def test_its_types_are_correct(several: Path) -> None:
    assert judge(several, "basedpyright") == ""


def test_its_own_tests_pass(clean: Clean, several: Path) -> None:
    said = clean.check("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=several)
    assert "failed" not in said


def test_no_python_depends_on_target_or_environment() -> None:
    def python(target: str, environments: list[str]) -> dict[str, bytes]:
        tree = render_project(answers(target, environments, ["late-flights"]))
        return {str(path): file.content for path, file in tree.items() if path.suffix == ".py"}

    assert python("local", ["dev"]) == python("docker", ["dev"]) == python("aws", ["dev"]) != {}
    assert python("local", ["dev"]) == python("local", ["dev", "prod"])


def test_preview_of_a_local_project(clean: Clean, tmp_path: Path) -> None:
    words = ("init", "harbour", "--team", "harbour", "--env", "dev", "--env", "prod", "--model", "a", "--model", "b")
    clean.check("tidemill", *words, cwd=tmp_path)
    project = tmp_path / "harbour"
    (project / ".venv").symlink_to(clean.path, target_is_directory=True)
    said = clean.check("tidemill", "preview", "--stack", "harbour-prod", "--policy", cwd=project)
    assert "to create service serving-a" in said
    assert "to create service serving-b" in said
    assert git(project, "status", "--porcelain") in ("", "M stacks/config/Pulumi.harbour-prod.yaml")


class Generated(StandinStack):
    """A stack of a project of `tidemill init`, with stand-ins for the providers."""

    def __init__(self, project: Path, stack: str, target: str, environment: dict[str, str]) -> None:
        self.project, self.stack, self.target = project, stack, target
        self.record, self.gone = project.parent / "record.jsonl", project.parent / "gone"
        self.environment, self.policy, self.program = environment, True, None
        file = project / "Pulumi.yaml"
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        settings["plugins"] = {"providers": plugins_of(project.parent / "bin", *PACKAGES)}
        file.write_text(yaml.safe_dump(settings))
        project_settings.cache_clear()


@pytest.fixture
def state(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    if request.getfixturevalue("target") != "aws":
        yield {}
        return
    with shared_state() as environment:
        yield environment


@pytest.mark.parametrize("target", ["docker", "aws"])
def test_preview_of_a_docker_or_aws_project(clean: Clean, tmp_path: Path, target: str, state: dict[str, str]) -> None:
    words = ("init", "harbour", "--team", "harbour", "--target", target, "--env", "dev", "--env", "prod")
    clean.check("tidemill", *words, *(AWS if target == "aws" else ()), cwd=tmp_path)
    stack = Generated(tmp_path / "harbour", "harbour-prod", target, state)
    made = stack.run("preview")
    gc.collect()
    assert made.outcome.changes["create"] > 40
    assert services(made, target) >= {"serving-late-flights", "lakefs", "mlflow", "retraining"}
    # The images install the project's own lock, without tidemill itself.
    images = [entry for entry in made.entries if entry.type == "docker-build:index:Image"]
    assert {entry.name.removeprefix("image-") for entry in images} >= {"training", "serving"}
    shutil.rmtree(stack.project)


def services(run: Run, target: str) -> set[str]:
    kind = {"docker": "docker:index/container:Container", "aws": "aws:ecs/service:Service"}[target]
    found = {entry.name for entry in run.entries if entry.type == kind}
    assert found
    assert any(entry.type.startswith(NATIVE) for entry in run.entries)
    return found
