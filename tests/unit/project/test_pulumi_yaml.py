"""Every Pulumi.yaml of ours fits the schema which Pulumi publishes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml
from tidemill.components.tools.table import PACKAGES
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import render_project

from tests.support.tree import ROOT

SCHEMA = ROOT / "tests" / "data" / "pulumi-project.schema.json"


def checked(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.prefix) / "bin" / "check-jsonschema"), "--schemafile", str(SCHEMA), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )


def generated(target: str) -> str:
    aws = {"aws": {"region": "eu-west-1", "domain": "harbour.example.org", "zone": "Z1"}} if target == "aws" else {}
    answers = {"team": "harbour", "environments": ["dev", "prod"], "models": ["berths"], "target": target, **aws}
    return render_project(Answers.of(answers))[PurePosixPath("Pulumi.yaml")].content.decode()


def test_all_of_them_fit(tmp_path: Path) -> None:
    files = [ROOT / "Pulumi.yaml", *sorted((ROOT / "docs" / "examples").glob("*/Pulumi.yaml"))]
    assert len(files) >= 3
    for target in ("local", "docker", "aws"):
        files.append(tmp_path / f"{target}.yaml")
        files[-1].write_text(generated(target))
    done = checked(*files)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "broken", [{"options": {"refresh": "sometimes"}}, {"plugins": {"providers": [{"path": 1}]}}, {"name": ""}]
)
def test_the_schema_refuses_what_the_engine_does_not_know(tmp_path: Path, broken: dict[str, object]) -> None:
    (tmp_path / "Pulumi.yaml").write_text(yaml.safe_dump({**yaml.safe_load(generated("local")), **broken}))
    assert checked(tmp_path / "Pulumi.yaml").returncode == 1


def test_the_schema_is_that_of_the_engine_which_is_pinned() -> None:
    origin = (SCHEMA.parent / "README.md").read_text()
    (pulumi,) = [tool for tool in PACKAGES if tool.name == "pulumi"]
    assert f"at v{pulumi.version}, unchanged" in origin
