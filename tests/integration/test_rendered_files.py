"""Each rendered file, checked by the tool that reads it, or by the published schema of its format.

tests/integration/test_monitoring_config.py has more of promtool and amtool.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dockerfile
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from tidemill.components import tools
from tidemill.templates import render

from tests.support.docker import cache_folder
from tests.support.golden import files
from tests.support.hostile_text import HOSTILE

pytestmark = pytest.mark.integration

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
# Style rules that generated files need not follow.
YAMLLINT = "{extends: default, rules: {document-start: disable, line-length: disable}}"
PROJECT_YAMLLINT = Path(__file__).resolve().parents[2] / "templates/project/dot-yamllint.yaml.j2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All rendered files, with existing files as secrets."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "secret").write_text("a-secret")
    for name, text in files(tmp_path_factory.mktemp("project")).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found = re.sub(r"@\{secret-file:[^}]*\}", str(folder / "secret"), text)
        path.write_text(found.replace("@{config}", str(path.parent)), encoding="utf-8")
    return folder


def check(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_and_amtool(folder: Path) -> None:
    promtool = str(tools.find("promtool"))
    assert "SUCCESS: 15 rules found" in check(promtool, "check", "config", str(folder / "prometheus/prometheus.yml"))
    said = check(str(tools.find("amtool")), "check-config", str(folder / "alertmanager/alertmanager.yml"))
    assert "3 receivers" in said


def test_prometheus_reads_hostile_names_as_data(tmp_path: Path) -> None:
    """The rules fire for a series with such a name, and the alert has that name."""
    promtool = str(tools.find("promtool"))
    # Labels that a promtool test can express.
    hostile = "".join(one for one in HOSTILE if one.isprintable() and one.isascii())
    values = {"triggers": ["drift"], "drift_share": 0.5, "drift_for": "0s"}
    (tmp_path / "rules.yml").write_text(render("monitoring/rules.yml.j2", models=[{"name": hostile, **values}]))
    check(promtool, "check", "rules", str(tmp_path / "rules.yml"))
    literal = json.dumps(hostile)
    labels = {"model": hostile, "reason": "drift", "severity": "ticket", "version": "1"}
    group = yaml.safe_load((tmp_path / "rules.yml").read_text())["groups"][-1]
    group["rules"][0].pop("annotations")
    (tmp_path / "bare.yml").write_text(yaml.safe_dump({"groups": [group]}))
    test = {
        "interval": "5s",
        "input_series": [{"series": f'tidemill_drift_share{{model={literal},version="1"}}', "values": "1 1"}],
        "alert_rule_test": [
            {"eval_time": "5s", "alertname": "TidemillDrift", "exp_alerts": [{"exp_labels": labels}]},
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["bare.yml"], "tests": [test]}))
    check(promtool, "test", "rules", str(tmp_path / "test.yml"))


def test_alertmanager_reads_a_hostile_channel_as_data(tmp_path: Path) -> None:
    # A command argument cannot contain NUL, and its output is read with universal newlines.
    hostile = "".join(one for one in HOSTILE if "@{" not in one and one not in ("\ud800", "\0", "\r\n"))
    text = render(
        "monitoring/alertmanager.yml.j2",
        group_wait="1s", group_interval="5s", repeat_interval="1m", webhook=None,
        receivers=[{"kind": "slack", "secret": "receiver-x", "channel": hostile}],
    )  # fmt: skip
    (tmp_path / "alertmanager.yml").write_text(text, encoding="utf-8")
    assert "2 receivers" in check(str(tools.find("amtool")), "check-config", str(tmp_path / "alertmanager.yml"))
    channel = yaml.safe_load(text)["receivers"][1]["slack_configs"][0]["channel"]
    template = ["template", "render", "--template.glob", str(tmp_path / "*.tmpl"), "--template.text", channel]
    (tmp_path / "none.tmpl").write_text('{{ define "none" }}{{ end }}')
    printed = check(str(tools.find("amtool")), *template)
    assert printed.rstrip("\n") == hostile.rstrip("\n"), "the text that Alertmanager expands"


def test_the_dashboard_matches_grafanas_own_types(folder: Path) -> None:
    """Check it with the SDK that Grafana generates from its schemas."""
    register_default_plugins()
    ours = json.loads((folder / "grafana/dashboard.json").read_text())
    theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))

    def lost(mine: object, found: object, path: str = "") -> list[str]:
        if isinstance(mine, dict):
            known = found if isinstance(found, dict) else {}
            return [one for key, value in mine.items() for one in lost(value, known.get(key), f"{path}.{key}")]
        if isinstance(mine, list) and isinstance(found, list) and len(mine) == len(found):
            return [one for index, value in enumerate(mine) for one in lost(value, found[index], f"{path}[{index}]")]
        return [] if mine == found else [path]

    assert lost(ours, theirs) == []
    assert lost({"panels": [], "titel": "x"}, theirs) == [".panels", ".titel"], "unknown fields are detected"


def test_prometheus_parses_every_query_of_the_dashboard(folder: Path, tmp_path: Path) -> None:
    panels = json.loads((folder / "grafana/dashboard.json").read_text())["panels"]
    rules = [
        {"record": f"panel:{panel['id']}", "expr": target["expr"]} for panel in panels for target in panel["targets"]
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    said = check(str(tools.find("promtool")), "check", "rules", str(tmp_path / "panels.yml"))
    assert f"{len(panels)} rules found" in said


def test_dockers_parser_finds_the_instructions(folder: Path) -> None:
    found = sorted(folder.rglob("Dockerfile*"))
    assert len(found) == 6
    for path in found:
        commands = [command.cmd for command in dockerfile.parse_file(str(path))]
        assert "FROM" in commands[:2], path
        assert "USER" in commands, f"{path} would run as root"
        assert set(commands) <= {
            "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL",
            "USER", "WORKDIR",
        }, path  # fmt: skip


def workflows(folder: Path) -> list[str]:
    found = [str(path) for path in sorted(folder.rglob(".github/workflows/*.yml"))]
    assert len(found) == 2
    return found


def test_workflows_match_githubs_schema(folder: Path) -> None:
    check(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows(folder))


def test_actionlint_accepts_the_workflows(folder: Path) -> None:
    check(str(actionlint()), "-no-color", *workflows(folder))


def actionlint() -> Path:
    """Return the program, built once with Go and kept in the tools' cache; skip the test without Go."""
    version = ACTIONLINT.rpartition("@")[2]
    kept = cache_folder() / f"actionlint-{version}" / "actionlint"
    if kept.is_file():
        return kept
    if not shutil.which("go"):
        pytest.skip("actionlint is built with Go, which is not here; GitHub's schema was asked all the same")
    made = kept.parent.with_name(f"{kept.parent.name}.{os.getpid()}")
    environ = {**os.environ, "GOBIN": str(made), "GOFLAGS": "-mod=mod"}
    done = subprocess.run(["go", "install", ACTIONLINT], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"actionlint cannot be built: {done.stderr.strip().splitlines()[-1]}")
    kept.parent.mkdir(exist_ok=True)
    (made / "actionlint").replace(kept)
    shutil.rmtree(made)
    return kept


def test_yamllint_accepts_all_files(folder: Path) -> None:
    """Check config files with relaxed rules, and generated projects with their own rules."""
    found = {path for path in folder.rglob("*") if path.suffix in {".yml", ".yaml"}}
    of_projects = {path for path in found if path.relative_to(folder).parts[0].startswith("project-")}
    lint = [sys.executable, "-m", "yamllint", "--strict"]
    check(*lint, "-d", YAMLLINT, *map(str, sorted(found - of_projects)))
    check(*lint, "-c", str(PROJECT_YAMLLINT), *map(str, sorted(of_projects)))
