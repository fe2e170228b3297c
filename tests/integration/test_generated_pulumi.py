"""The real `pulumi` command line in a generated project, without the command `tidemill`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tidemill.components.layout import StackRoot
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import render_project

from tests.support.plain_pulumi import PlainPulumi
from tests.support.platform import git, processes_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Names of standard modules: the program's folder comes first in `sys.path`.
ANSWERS = Answers.of({"team": "harbour", "environments": ["dev"], "models": ["json", "late-ships"]})
FIVE_LINES = "config:\n  tidemill:stack:\n    team: harbour\n    environment: small\n"
SPY = """
import json, os, sys
with open(os.environ["SPY"], "w") as file:
    json.dump({"cwd": os.getcwd(), "path": sys.path[0], "name": __name__, "package": __package__}, file)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "project"
    for path, file in render_project(ANSWERS).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.content)
        (folder / path).chmod(0o755 if file.executable else 0o644)
    git(folder.parent, "init", "--quiet", "--initial-branch=main", str(folder))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "As generated")
    return folder


@pytest.fixture
def small(project: Path, tmp_path: Path) -> Iterator[PlainPulumi]:
    """A five-line stack next to the generated ones."""
    (project / "stacks" / "config" / "Pulumi.harbour-small.yaml").write_text(FIVE_LINES)
    made = PlainPulumi(project, tmp_path, "harbour-small")
    made.check("stack", "init")
    root = StackRoot.of(project, "harbour-small")
    try:
        yield made
    finally:
        left = processes_of(root)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)


def test_preview_plans_the_platform_in_the_language_host(project: Path, tmp_path: Path) -> None:
    pulumi = PlainPulumi(project, tmp_path, "harbour-dev")
    pulumi.check("stack", "init")
    main = project / "stacks" / "__main__.py"
    text = main.read_text()
    main.write_text(SPY + text)
    try:
        planned = json.loads(pulumi.check("preview", "--json", SPY=str(tmp_path / "seen.json")))
    finally:
        main.write_text(text)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen == {"cwd": os.path.realpath(project / "stacks"), "path": ".", "name": "__main__", "package": ""}
    created = {step["urn"].rsplit("::", 1)[1] for step in planned["steps"] if step["op"] == "create"}
    assert {"lakefs", "mlflow", "serving-json", "serving-late-ships", "retraining", "prometheus"} <= created
    assert not (project / ".tidemill").exists()
    # No file in the first folder of `sys.path` hides a standard module.
    assert {path.name for path in (project / "stacks").iterdir()} <= {"__main__.py", "config", "__pycache__"}
    # Pulumi itself writes the salt of the passphrase into the stack config; nothing else is changed.
    changed = git(project, "status", "--porcelain", "--", ":!.venv").split()
    assert changed == ["M", "stacks/config/Pulumi.harbour-dev.yaml"]


def test_up_serves_and_destroy_leaves_nothing(small: PlainPulumi) -> None:
    small.check("up", "--yes")
    urls = small.outputs()["urls"]
    assert httpx.get(f"{urls['lakefs']}/_health", trust_env=False).status_code == 200
    assert httpx.get(f"{urls['mlflow']}/health", trust_env=False).status_code == 200
    small.check("preview", "--expect-no-changes")
    small.check("state", "unprotect", "--all", "--yes")
    small.check("destroy", "--yes", TIDEMILL_DELETE_DATA="harbour-small")
    assert not processes_of(StackRoot.of(small.project, "harbour-small"))
