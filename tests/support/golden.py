"""Renders every kind of file from fixed inputs, for comparison with tests/golden.

`python -m tests.support.golden` rewrites tests/golden; the diff shows the effect of a template change.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import compose
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import render_project
from tidemill.templates import render

from tests.support.recorded import record

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
STACK = "harbour-dev"
CONFIG = """\
config:
  quay:slackUrl: { secure: v1:abc }
  quay:hook: { secure: v1:abc }
  tidemill:stack:
    team: harbour
    environment: dev
    models:
      berths: &model
        owner: ops@example.org
        purpose: will the ship berth late?
        code: .
        train: [python, train.py]
        data: harbour/main/berths
        target: late
      tug-boats: { <<: *model, retrain: { triggers: [] }, watch: { drift_share: 0.25 } }
    monitoring:
      receivers:
        - slack: { url: { secret: slackUrl }, channel: "#harbour" }
        - webhook: { url: { secret: hook } }
    ports: { lakefs: 21001, mlflow: 21002, validation: 21003, monitor: 21004, retraining: 21005, prometheus: 21006,
             alertmanager: 21007, grafana: 21008, serving-berths: 21009, serving-tug-boats: 21010 }
"""
ANSWERS: Mapping[str, Answers] = {
    "local": Answers.of({"team": "harbour", "environments": ["dev", "prod"], "models": ["berths", "tug-boats"]}),
    "aws": Answers.of(
        {
            "team": "harbour",
            "environments": ["dev", "prod"],
            "target": "aws",
            "models": ["berths"],
            "aws": {"region": "eu-central-1", "domain": "ml.example.org", "zone": "Z0123456789ABC",
                    "ingress": {"allow": ["192.0.2.0/24"]}},
        }
    ),
}  # fmt: skip
SERVING: Mapping[str, object] = {
    "base": "python:3.11-slim-bookworm",
    "apt": ["libgomp1"],
    "wheel": "tidemill-1-py3-none-any.whl",
    "port": 8080,
    "labels": {"tidemill.model": "berths", "tidemill.git.commit": "0123abc"},
}
"""Values of the Dockerfile of one model version, common to its variants."""

# The rest of a generated project is code, which its own tests check.
_OF_PROJECTS = ("Dockerfile", ".github/workflows/ci.yml", "Pulumi.yaml", "stacks/config/base.yaml")


def monitoring(folder: Path, config: str = CONFIG) -> dict[str, str]:
    """Return SERVICE/FILE -> text of the config of Prometheus and Alertmanager, for a project in `folder`."""
    (folder / "Pulumi.yaml").write_text("name: quay\nruntime: python\n", encoding="utf-8")
    (folder / f"Pulumi.{STACK}.yaml").write_text(config, encoding="utf-8")
    loaded = load_stack(folder, STACK)
    services = record(functools.partial(compose, loaded), dict.fromkeys(loaded.secrets, "x")).of("Service")
    return {
        f"{name}/{file}": text
        for name in ("prometheus", "alertmanager")
        for file, text in services[name]["configFiles"].items()
    }


def grafana() -> dict[str, str]:
    """Return the files of Grafana."""
    user = {"user": "admin", "secret": "grafana-admin"}
    return {
        "grafana/grafana.ini": render("monitoring/grafana.ini.j2", **user, store="grafana"),
        "grafana/datasource.yml": render("monitoring/grafana-datasource.yml.j2", url="http://127.0.0.1:21006", **user),
        "grafana/dashboards.yml": render("monitoring/grafana-dashboards.yml.j2"),
        "grafana/dashboard.json": render("monitoring/dashboard.json.j2", stack=STACK),
    }


def dockerfiles() -> dict[str, str]:
    """Return the Dockerfiles of our own images."""
    base = "python:3.11-slim-bookworm"
    own = {f"Dockerfile{'-training' * trains}": trains for trains in (False, True)}
    return {
        **{
            f"images/services/{name}": render("images/services/Dockerfile.j2", base=base, trains=trains)
            for name, trains in own.items()
        },
        "images/model/Dockerfile": render("images/model/Dockerfile.j2", **SERVING, isolated=False, files=False),
        "images/model/Dockerfile-isolated": render("images/model/Dockerfile.j2", **SERVING, isolated=True, files=True),
    }


def projects() -> dict[str, str]:
    """Return the non-Python config files of a generated project, for each kind of target."""
    found: dict[str, str] = {}
    for target, answers in ANSWERS.items():
        for path, file in render_project(answers).items():
            if str(path) in _OF_PROJECTS or path.match("stacks/config/Pulumi.*.yaml"):
                found[f"project-{target}/{path}"] = file.content.decode()
    return found


def files(folder: Path) -> dict[str, str]:
    """Return path below tests/golden -> text of every rendered file; `folder` is empty."""
    return {**monitoring(folder), **grafana(), **dockerfiles(), **projects()}


def write() -> None:
    """Rewrite the golden files."""
    with tempfile.TemporaryDirectory() as folder:
        found = files(Path(folder))
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, text in found.items():
        path = GOLDEN / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
