"""A platform of a few lines: lakeFS, MLflow, Prometheus, Alertmanager, one repository, no model; up in seconds."""

from __future__ import annotations

from pathlib import Path

from tests.support.platform import RunningPlatform, copy_project

CONFIG = """\
config:
  tidemill:stack:
    team: harbour
    environment: dev
    monitoring: {grafana: "off"}
"""
STACK = "harbour-dev"


def small_project(folder: Path, config: str = CONFIG) -> RunningPlatform:
    """Return a platform, not yet up, in a copy of the project below `folder`."""
    project = copy_project(folder / "project")
    (project / f"stacks/config/Pulumi.{STACK}.yaml").write_text(config)
    return RunningPlatform(project, STACK)
