"""From an empty folder to an answer: the project which `tidemill init` makes, as it is, from the wheel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tidemill.components.layout import StackRoot

from tests.support.generated import Clean
from tests.support.platform import git, processes_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400), pytest.mark.slow]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """The wheel with what `init` needs, and no more: the project's own environment holds the rest."""
    return Clean(tmp_path_factory.mktemp("clean"), extras=("platform",))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = processes_of(StackRoot(tmp_path / "harbour/.tidemill/stacks/harbour-dev"))
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)


def test_a_new_project_serves_a_model_as_it_is(clean: Clean, folder: Path) -> None:
    said = clean.check("tidemill", "init", "harbour", "--team", "harbour", cwd=folder)
    assert "next: cd harbour && uv run tidemill up" in said
    assert [path.name for path in folder.iterdir()] == ["harbour"]
    project = folder / "harbour"
    assert git(project, "status", "--porcelain") == ""
    commit = git(project, "rev-parse", "HEAD")

    up = clean.check("uv", "run", "tidemill", "up", "--yes", cwd=project, timeout=1800)
    served = re.search(r"late-flights: serving version 1 \(data (\w+), code (\w+)\)", up)
    assert served, up
    assert commit.startswith(served[2])
    assert git(project, "status", "--porcelain") == ""

    readme = (project / "README.md").read_text(encoding="utf-8")
    (request,) = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
    answer = json.loads(clean.check("bash", "-euo", "pipefail", "-c", request, cwd=project))
    ((_, late),) = answer["predictions"]
    assert 0 < late < 1
    assert (answer["model"], answer["version"]) == ("late-flights", "1")

    assert re.search(r"\d+ passed", clean.check("uv", "run", "pytest", cwd=project))

    assert clean.run("uv", "run", "tidemill", "destroy", "--yes", cwd=project).returncode == 1
    clean.check("uv", "run", "tidemill", "destroy", "--delete-data", "--yes", cwd=project)
    root = StackRoot(project / ".tidemill/stacks/harbour-dev")
    assert not processes_of(root)
    assert not root.path.exists()
