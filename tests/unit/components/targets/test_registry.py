"""A new target is one folder in `components/targets` and one line in the registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tree import ROOT, TOP_PACKAGES

SETTINGS = '''
from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ..block import TargetBlock
from ..checks import Problem


class ToySettings(TargetBlock):
    """The block of the target toy."""

    shelf: str | None = Field(default=None, description="Shelf on which it stands.")

    def problems(self, services: list[str]) -> Iterator[Problem]:
        if self.shelf is None:
            yield Problem(("toy", "shelf"), "is missing", None, "name a shelf")
'''
SPEC = """
from __future__ import annotations

from pathlib import Path

from ..operations import Operations
from ..spec import TargetContext, TargetSpec
from .settings import ToySettings


def _target(context: TargetContext):
    from .target import ToyTarget

    return ToyTarget(context.stack, context.root.path, context.project, context.block_as(ToySettings).shelf)


def _operations(context: TargetContext) -> Operations:
    raise NotImplementedError


SPEC = TargetSpec(
    name="toy", extra="toy", modules=("pulumi",), block=ToySettings, target=_target, operations=_operations
)
"""
TARGET = '''
from __future__ import annotations

from pathlib import Path

from ..local.target import LocalTarget


class ToyTarget(LocalTarget):
    """Everything as on this machine, on a shelf."""

    name = "toy"

    def __init__(self, stack: str, root: Path, project: Path, shelf: str | None) -> None:
        super().__init__(stack, root / str(shelf), project)
'''
CONFIG = "config: {{ 'tidemill:stack': {{ team: quay, environment: dev, target: toy, toy: {block} }} }}\n"
COMPOSE = """
import functools, json, sys
from pathlib import Path
from tidemill.components.targets.registry import TARGETS
from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import compose
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.stack_config.json_schema import stack_schema, teams_schema
from tests.support.recorded import record

recorded = record(functools.partial(compose, load_stack(Path.cwd(), "quay-dev")))
stack = stack_schema()["properties"]["config"]["properties"]["tidemill:stack"]["properties"]
print(json.dumps({
    "file": sys.modules["tidemill.components.targets.toy.target"].__file__,
    "targets": list(TARGETS),
    "roots": sorted({inputs["root"] for inputs in recorded.of("Service").values()}),
    "services": sorted(recorded.of("Service")),
    "schema": [stack["target"]["enum"], "toy" in stack],
    "teams": teams_schema()["$defs"]["EnvironmentRules"]["properties"]["targets"]["anyOf"][0]["items"]["enum"],
    "answer": Answers.of({"team": "quay", "environments": ["dev"], "models": ["a"], "target": "local"}).target,
}))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with one more target."""
    top = tmp_path_factory.mktemp("tree")
    (top / "tidemill").mkdir()
    for name in TOP_PACKAGES:
        shutil.copytree(ROOT / name, top / "tidemill" / name, ignore=shutil.ignore_patterns("__pycache__"))
    targets = top / "tidemill" / "components" / "targets"
    for name, text in {"__init__": "", "settings": SETTINGS, "spec": SPEC, "target": TARGET}.items():
        (targets / "toy").mkdir(exist_ok=True)
        (targets / "toy" / f"{name}.py").write_text(text)
    registry = targets / "registry.py"
    before = registry.read_text().splitlines(keepends=True)
    after = [line.replace('    "aws",\n', '    "aws",\n    "toy",\n') for line in before]
    assert "".join(after).count("\n") == len(before) + 1, "it is registered by one line"
    registry.write_text("".join(after))
    return top


def run(tree: Path, code: str, block: str) -> subprocess.CompletedProcess[str]:
    """Run `code` on the copied sources, in a project whose stack runs on the new target."""
    project = tree / "project"
    project.mkdir(exist_ok=True)
    (project / "Pulumi.yaml").write_text("name: quay\nruntime: python\n")
    (project / "Pulumi.quay-dev.yaml").write_text(CONFIG.format(block=block))
    # The finder of an editable install would come before the copy.
    begin = (
        "import sys; sys.meta_path = [one for one in sys.meta_path if 'editable' not in repr(one).lower()]; "
        f"sys.path[:0] = [{str(tree)!r}, {str(ROOT)!r}]\n"
    )
    return subprocess.run(
        [sys.executable, "-c", begin + code], cwd=project, capture_output=True, text=True, check=False
    )


VALIDATE = "from tidemill.stacks.cli.app import run\nsys.exit(run(['validate']))\n"


def test_validate_checks_the_block_of_a_new_target(tree: Path) -> None:
    done = run(tree, VALIDATE, "{ shelf: upper }")
    assert (done.returncode, done.stdout) == (0, "Pulumi.quay-dev.yaml: valid\n"), done.stderr
    missing = run(tree, VALIDATE, "{}")
    assert missing.returncode == 2
    assert "toy.shelf: is missing; name a shelf" in missing.stderr
    unknown = run(tree, VALIDATE, "{ shelv: upper }")
    assert unknown.returncode == 2
    assert "did you mean shelf?" in unknown.stderr


def test_a_stack_is_composed_on_a_new_target(tree: Path) -> None:
    done = run(tree, COMPOSE, "{ shelf: upper }")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"].startswith(str(tree))
    assert found["targets"] == ["local", "docker", "aws", "toy"]
    assert {"lakefs", "mlflow", "prometheus", "alertmanager", "grafana"} <= set(found["services"])
    assert found["roots"] == [str(tree / "project" / ".tidemill" / "stacks" / "quay-dev" / "upper")]
    assert found["schema"] == [["local", "docker", "aws", "toy"], True]
    assert found["teams"] == ["local", "docker", "aws", "toy"]
    assert found["answer"] == "local"
