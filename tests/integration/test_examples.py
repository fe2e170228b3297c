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

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = ROOT / "docs" / "examples"


def copy(name: str, folder: Path) -> Path:
    """Copy an example, and give it this environment."""
    shutil.copytree(EXAMPLES / name, folder / "project")
    (folder / "project" / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    return folder / "project"


@contextmanager
def ended(root: StackRoot) -> Iterator[None]:
    """End at the end, by their ids, the processes of a stack which are left."""
    try:
        yield
    finally:
        left = processes_of(root)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)


def test_a_program_composes_a_lake_and_a_service_of_its_own(tmp_path: Path) -> None:
    harbour = RunningPlatform(copy("composed", tmp_path), "harbour-dev")
    with ended(harbour.root):
        said = harbour.check("up", "--yes")
        assert "harbour-dev is up" in said
        assert harbour.services() == ["catalogue", "lakefs"], "what the program composes, and no more"
        with harbour.client("catalogue") as client:
            assert client.get("/heads").status_code == 401
        with harbour.client("catalogue", secret="catalogue-token") as client:
            heads = client.get("/heads").raise_for_status().json()
        assert set(heads) == {"tides", "ships"}
        assert all(len(commit) == 64 for commit in heads.values())
        assert set(harbour.alive()) == {"catalogue", "lakefs"}
        exported = dict(re.findall(r"^export (PULUMI_\w+)=(.*)$", harbour.check("env"), flags=re.MULTILINE))
        pulumi = PlainPulumi(harbour.project, tmp_path / "scratch", "harbour-dev")
        pulumi.environment.pop("PULUMI_CONFIG_PASSPHRASE")
        pulumi.environment |= exported
        pulumi.check("preview", "--expect-no-changes")
        harbour.check("destroy", "--delete-data", "--yes")
        harbour.assert_gone()


def test_a_program_brings_an_mlflow_server_which_outlives_it(tmp_path: Path) -> None:
    fares = PlainPulumi(copy("own-mlflow", tmp_path), tmp_path / "scratch", "dev")
    root = StackRoot(fares.project / ".tidemill" / "stacks" / "fares-dev")
    with mlflow_server(tmp_path / "mlflow") as server, ended(root):
        fares.check("stack", "init")
        given = ["--plaintext", f"mlflow={server.url}", "--secret", f"password={server.auth[1]}"]
        fares.check("config", "set-all", *given)
        fares.check("up", "--yes")
        assert {path.name for path in (root.path / "services").iterdir()} == {"serving-fares"}
        registry = Registry(server, "fares")
        pipeline, frame = small_pipeline(1)
        registry.alias(registry.register(pipeline, frame))
        key = {"Authorization": f"Bearer {(root.secrets / 'serving-fares-key').read_text()}"}
        with httpx.Client(base_url=fares.outputs()["fares"], headers=key, trust_env=False, timeout=60) as client:
            wait_for("the model to serve", lambda: client.get("/readyz").status_code == 200, 120)
            rows = {"dataframe_records": frame.head(2).to_dict("records")}
            answer = client.post("/invocations", json=rows).raise_for_status().json()
        assert len(answer["predictions"]) == 2
        with httpx.Client(base_url=server.url, auth=server.auth, trust_env=False) as mlflow:
            user = {"username": "fares-dev-serving"}
            assert mlflow.get("/api/2.0/mlflow/users/get", params=user).status_code == 200
            # As docs/components.md says.
            fares.check("state", "unprotect", "--all", "--yes")
            fares.check("destroy", "--yes", TIDEMILL_DELETE_DATA="fares-dev")
            assert not processes_of(root)
            assert not list((root.path / "data").iterdir())
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
