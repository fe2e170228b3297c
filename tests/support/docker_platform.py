"""A real platform in containers: the command line and the real engine; a stand-in for the vendor's plugins alone."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.models.containers import Container

from tests.support import docker_graph
from tests.support.docker import Docker
from tests.support.docker_images import stack_images
from tests.support.platform import RunningPlatform, copy_project, git
from tests.support.standin.engine import Entry, plugins_of

_EXTRAS = ["flights"]


class DockerPlatform(RunningPlatform):
    """The flights team on `target: docker`; its containers are made from exactly what the engine recorded.

    Attributes:
        docker: the daemon.
        sdk: its client.
    """

    def __init__(self, folder: Path, daemon: Docker) -> None:
        self.docker = daemon
        self._record = folder / "record.jsonl"
        project = copy_project(folder / "project")
        _edit(project / "Pulumi.yaml", lambda it: it["plugins"]["providers"].extend(
            plugins_of(folder / "bin", "docker", "docker-build", module="running")
        ))  # fmt: skip
        host = daemon.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        own = {"host": host, "training_extras": _EXTRAS, **stack_images(daemon, _EXTRAS)}
        _edit(project / "stacks/config/Pulumi.flights-dev.yaml", lambda it: it["config"]["tidemill:stack"].update(
            target="docker", docker=own
        ))  # fmt: skip
        git(project, "commit", "--quiet", "--all", "--message", "Another target")
        super().__init__(project, "flights-dev")
        self.extra = {key: value for key, value in daemon.environ.items() if key.startswith("DOCKER_")}
        self.extra |= {"STANDIN_RECORD": str(self._record), "PATH": daemon.environ["PATH"]}
        if daemon.own:
            self.extra[docker_graph.BUILD_OPTIONS] = "--network none"
        self.sdk = docker.DockerClient(base_url=host, timeout=120)

    def configure(self, **settings: Any) -> None:
        """Change the block `docker` of the stack's config; a commit of it would be one of the code, too."""
        file = self.project / "stacks/config/Pulumi.flights-dev.yaml"
        _edit(file, lambda it: it["config"]["tidemill:stack"]["docker"].update(settings))

    def up(self) -> None:
        """Bring the platform up. What its containers reach is bounded by their networks, and is not watched."""
        self.up_output = self.check("up", "--yes", "--stack", self.stack, timeout=1800)

    def close(self) -> None:
        """Delete the stack."""
        self.check("destroy", "--delete-data", "--yes", "--stack", self.stack)

    def assert_gone(self) -> None:
        assert not self.root.path.exists()
        label = {"label": f"tidemill.stack={self.stack}"}
        assert not self.containers()
        assert not self.sdk.volumes.list(filters=label)
        assert not self.sdk.networks.list(filters=label)

    def containers(self) -> dict[str, Container]:
        """Return service -> container."""
        found: list[Container] = self.sdk.containers.list(
            all=True, filters={"label": [f"tidemill.stack={self.stack}", "tidemill.service"]}
        )
        return {container.labels["tidemill.service"]: container for container in found}

    def pid(self, service: str) -> int:
        return int(self.containers()[service].attrs["State"]["Pid"])

    def services(self) -> list[str]:
        return sorted(self.containers())

    def running(self) -> dict[str, tuple[str | None, str]]:
        """Return service -> what tells this run of its program from another one."""
        return {
            name: (container.id, container.attrs["State"]["StartedAt"]) for name, container in self.containers().items()
        }

    def inside(self, service: str, *argv: str, user: str = "") -> str:
        """Run `argv` in the container of `service`; it must succeed."""
        done = self.containers()[service].exec_run(list(argv), user=user)
        output: Any = done.output
        assert done.exit_code == 0, output.decode(errors="replace")
        return output.decode()

    def copy_out(self, service: str, path: str, to: Path) -> None:
        """Copy the folder `path` of a container into `to`."""
        chunks, _ = self.containers()[service].get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            tar.extractall(to, filter="data")

    def recorded(self) -> dict[str, dict[str, Any]]:
        """Return service -> the inputs of its container, as the engine gave them last."""
        entries = [Entry(**json.loads(line)) for line in self._record.read_text().splitlines()]
        return {
            entry.name: entry.inputs
            for entry in entries
            if entry.type == docker_graph.CONTAINER and entry.action in {"create", "update"} and not entry.preview
        }


def _edit(path: Path, change: Any) -> None:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
