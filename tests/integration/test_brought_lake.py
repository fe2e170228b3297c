"""A lakeFS server which was there before: repositories are made in it, and go with the stack; the server stays."""

from __future__ import annotations

from pathlib import Path

import httpx
import pulumi
import pytest
from tidemill.components.targets.local.target import LocalTarget

from tests.support.servers import lakefs_server
from tests.support.toys import STACK, Engine

pytestmark = pytest.mark.integration


def test_repositories_are_made_in_it_and_go_with_the_stack(tmp_path: Path) -> None:
    from tidemill.components import ExistingLake, Lake, LakeArgs, RepositoryConfig

    engine = Engine(tmp_path / "toys")
    with lakefs_server(tmp_path / "lakefs") as server:

        def program() -> None:
            lake = ExistingLake(
                url=server.url,
                key_id=pulumi.Output.secret(server.auth[0]),
                secret=pulumi.Output.secret(server.auth[1]),
                namespace="local://",
            )
            target = LocalTarget(STACK, engine.root.path, engine.project)
            repositories = {"tides": RepositoryConfig()}
            Lake("lake", LakeArgs(target, repositories, project=engine.project, existing=lake))

        with httpx.Client(base_url=f"{server.url}/api/v1", auth=server.auth, trust_env=False) as client:
            engine.up(program)
            assert client.get("/repositories/tides").raise_for_status().json()["storage_namespace"] == "local://tides"
            assert not (engine.root.path / "services").exists(), "nothing is started"
            assert server.auth[1] not in engine.state_text()
            stack = engine.stack(program, TIDEMILL_DELETE_DATA=STACK)
            engine.command.run(
                ["state", "unprotect", "--all", "--yes", "--stack", STACK], str(engine.project), dict(engine.env)
            )
            stack.destroy()
            assert client.get("/healthcheck").status_code == 204
            gone = client.get("/repositories")
            assert "tides" not in {found["id"] for found in gone.raise_for_status().json()["results"]}
