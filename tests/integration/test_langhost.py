"""The test-only language host lets the real `pulumi` command line run a program as the vendor's does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tidemill.components import tools

from tests.support.langhost import install

pytestmark = pytest.mark.integration

PROGRAM = """
import os, sys
import pulumi

config = pulumi.Config()


class Thing(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("test:index:Thing", name)
        self.register_outputs({})


if config.get_bool("broken"):
    raise ValueError("the program is broken")
Thing("thing")
pulumi.export("cwd", os.getcwd())
pulumi.export("path", sys.path[0])
pulumi.export("prefix", sys.prefix)
pulumi.export("greeting", config.require("greeting"))
pulumi.export("secret", config.require_secret("secret"))
pulumi.export("root", pulumi.get_root_directory())
"""


class Project:
    """A small project of the shape ours has: the program in a folder, the environment at the root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        (self.folder / "program").mkdir(parents=True)
        (self.folder / "program" / "__main__.py").write_text(PROGRAM)
        (self.folder / "Pulumi.yaml").write_text(
            "name: small\nmain: program\nruntime:\n  name: python\n"
            "  options: {toolchain: uv, virtualenv: .venv}\noptions: {refresh: always}\n"
        )
        (self.folder / ".venv").symlink_to(sys.prefix, target_is_directory=True)
        state = folder / "state"
        state.mkdir()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")},
            "PATH": f"{install(folder / 'host')}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

    def pulumi(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tools.ensure("pulumi")), *args, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def check(self, *args: str) -> str:
        done = self.pulumi(*args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_program_lives_from_up_to_destroy_as_under_the_vendors_host(project: Project) -> None:
    project.check("stack", "init", "dev")
    project.check("config", "set", "greeting", "hello")
    project.check("config", "set", "--secret", "secret", "hidden")
    preview = project.pulumi("preview")
    assert "thing" in preview.stdout
    assert "Traceback" not in preview.stdout + preview.stderr
    project.check("up", "--yes")
    outputs = json.loads(project.check("stack", "output", "--json"))
    assert outputs == {
        "cwd": str((project.folder / "program").resolve()),
        "path": ".",
        "prefix": str(project.folder / ".venv"),
        "greeting": "hello",
        "secret": "[secret]",
        "root": str(project.folder),
    }
    assert "unchanged" in project.check("up", "--yes")
    project.check("refresh", "--yes")

    project.check("config", "set", "broken", "true")
    broken = project.pulumi("up", "--yes")
    assert broken.returncode != 0
    assert "ValueError: the program is broken" in broken.stdout + broken.stderr

    project.check("config", "set", "broken", "false")
    project.check("destroy", "--yes")
    project.check("stack", "rm", "--yes")
