"""The programs of docs/examples, brought up, asked and taken down by the real `pulumi` command line."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from tidemill.components.layout import StackRoot

from tests.support.plain_pulumi import PlainPulumi
from tests.support.platform import RunningPlatform, processes_of, wait_for
from tests.support.servers import mlflow_server
from tests.support.serving import Registry, small_pipeline
from tests.support.tree import ROOT

pytestmark = pytest.mark.integration

EXAMPLES = ROOT / "docs" / "examples"


class Example(PlainPulumi):
    """A copy of one of the examples."""

    def __init__(self, name: str, folder: Path, team: str) -> None:
        shutil.copytree(EXAMPLES / name, folder / "project")
        super().__init__(folder / "project", folder / "scratch", "dev")
        self.root = StackRoot(self.project / ".tidemill" / "stacks" / f"{team}-dev")

    def secret(self, name: str) -> str:
        return (self.root.secrets / name).read_text()


@contextmanager
def example(name: str, folder: Path, team: str) -> Iterator[Example]:
    """Give an example whose stack is there and not yet up; end, by their ids, processes which it left."""
    made = Example(name, folder, team)
    made.check("stack", "init")
    try:
        yield made
    finally:
        left = processes_of(made.root)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)


def take_down(example: Example) -> None:
    """Take an example down as docs/components.md says."""
    example.check("state", "unprotect", "--all", "--yes")
    example.check("destroy", "--yes", TIDEMILL_DELETE_DATA=example.root.path.name)
    assert not processes_of(example.root)
    assert not list((example.root.path / "data").iterdir())


def test_a_program_composes_a_lake_and_a_service_of_its_own(tmp_path: Path) -> None:
    with example("composed", tmp_path, "harbour") as harbour:
        harbour.check("up", "--yes")
        url = harbour.outputs()["catalogue"]
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.get("/heads").status_code == 401
            token = harbour.secret("catalogue-token")
            heads = client.get("/heads", headers={"Authorization": f"Bearer {token}"}).raise_for_status().json()
        assert set(heads) == {"tides", "ships"}
        assert all(len(commit) == 64 for commit in heads.values())
        protected = harbour.run("destroy", "--yes")
        assert protected.returncode != 0
        assert "protect" in protected.stdout + protected.stderr
        take_down(harbour)


def test_a_program_brings_an_mlflow_server_which_outlives_it(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "mlflow") as server, example("own-mlflow", tmp_path, "fares") as fares:
        fares.check("config", "set", "mlflow", server.url)
        fares.check("config", "set", "--secret", "password", server.auth[1])
        fares.check("up", "--yes")
        assert {path.name for path in (fares.root.path / "services").iterdir()} == {"serving-fares"}
        registry = Registry(server, "fares")
        pipeline, frame = small_pipeline(1)
        registry.alias(registry.register(pipeline, frame))
        key = {"Authorization": f"Bearer {fares.secret('serving-fares-key')}"}
        with httpx.Client(base_url=fares.outputs()["fares"], headers=key, trust_env=False, timeout=60) as client:
            wait_for("the model to serve", lambda: client.get("/readyz").status_code == 200, 120)
            rows = {"dataframe_records": frame.head(2).to_dict("records")}
            answer = client.post("/invocations", json=rows).raise_for_status().json()
        assert len(answer["predictions"]) == 2
        with httpx.Client(base_url=server.url, auth=server.auth, trust_env=False) as mlflow:
            user = {"username": "fares-dev-serving"}
            assert mlflow.get("/api/2.0/mlflow/users/get", params=user).status_code == 200
            take_down(fares)
            assert mlflow.get("/health").status_code == 200
            assert mlflow.get("/api/2.0/mlflow/users/get", params=user).status_code == 404
            model = mlflow.get("/api/2.0/mlflow/registered-models/get", params={"name": "fares"})
            assert model.status_code == 404, "what the stack made in the server goes with it"


def test_five_lines_preview(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(config:\n.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(text.splitlines()) <= 5
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "stacks" / "config").mkdir(parents=True)
    (tmp_path / "stacks" / "config" / "Pulumi.harbour-dev.yaml").write_text(text)
    (tmp_path / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    lines = RunningPlatform(tmp_path, "harbour-dev").check("preview", "--json").splitlines()
    planned = {event["name"] for event in map(json.loads, lines) if event.get("operation") == "create"}
    assert {"lakefs", "mlflow", "prometheus", "alertmanager", "harbour"} <= planned
