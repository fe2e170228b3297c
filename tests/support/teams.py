"""Projects of many teams, made for tests and the benchmark."""

from __future__ import annotations

from pathlib import Path

BASE = """\
lake:
  repositories:
    shared: { protect: [main] }
monitoring: { retention: 30d, scrape_interval: 15s }
"""
MODEL = """\
        owner: {team}@example.org
        purpose: is it late?
        code: code
        train: [python, train.py]
        data: {team}/main/rows
        target: late
        promote: {{ metric: roc_auc, at_least: 0.65 }}
        serve: {{ workers: 2, capture: 0.5 }}
        watch: {{ window: 30d, drift_share: 0.4 }}
"""
RULES = """\
names: { team: "[a-z]+[0-9]*", owner: '.+@example\\.org' }
quotas: { models: 3, workers: 16, stacks: 2 }
environments:
  dev: { targets: [local, docker] }
  prod: { targets: [docker] }
"""


def make_project(folder: Path, teams: int, models: int = 2) -> Path:
    """Make a project whose `teams` have a stack for dev and one for prod each, over one base, and keep its rules."""
    (folder / "config").mkdir(parents=True)
    (folder / "code").mkdir()
    (folder / "Pulumi.yaml").write_text("name: quay\nruntime: python\nstackConfigDir: config\n")
    (folder / "base.yaml").write_text(BASE)
    (folder / "config" / "teams.yaml").write_text(RULES)
    for number in range(teams):
        team = f"team{number}"
        for place, environment in enumerate(("dev", "prod")):
            port = 2000 + 20 * number + 10 * place
            text = (
                "config:\n  tidemill:stack:\n    extends: base.yaml\n"
                f"    team: {team}\n    environment: {environment}\n    target: docker\n"
                f"    lake: {{ repositories: {{ {team}: {{ protect: [main] }} }} }}\n"
                f"    ports: {{ grafana: {port}, mlflow: {port + 1} }}\n    models:\n"
            )
            text += "".join(f"      model-{index}:\n" + MODEL.format(team=team) for index in range(models))
            (folder / "config" / f"Pulumi.{team}-{environment}.yaml").write_text(text)
    return folder
