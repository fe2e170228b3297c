"""The rendered config of Prometheus and Alertmanager, checked by their own tools."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest
import yaml
from tidemill.components import tools
from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import compose
from tidemill.templates import render

from tests.support.platform import ROOT
from tests.support.recorded import record

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the config files of both services like the provider, with dummy secrets."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "secret").write_text("a-secret")
    services = record(functools.partial(compose, load_stack(ROOT, "flights-dev"))).of("Service")
    for service in ("prometheus", "alertmanager"):
        for name, text in services[service]["configFiles"].items():
            for part in text.split("@{secret-file:")[1:]:
                text = text.replace(f"@{{secret-file:{part.split('}')[0]}}}", str(folder / "secret"))
            (folder / name).write_text(text.replace("@{config}", str(folder)))
    return folder


def check(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_config_and_the_rules(rendered: Path) -> None:
    said = check(str(tools.find("promtool")), "check", "config", str(rendered / "prometheus.yml"))
    assert "14 rules found" in said


def test_amtool_accepts_the_config_and_routes_a_drift_alert(rendered: Path) -> None:
    amtool = str(tools.find("amtool"))
    check(amtool, "check-config", str(rendered / "alertmanager.yml"))
    config = f"--config.file={rendered / 'alertmanager.yml'}"
    routed = check(
        amtool, "config", "routes", "test", config, "alertname=TidemillDrift", "reason=drift", "model=flights"
    )
    assert routed.strip() == "retraining"
    for alert in ("TidemillServiceDown", "TidemillLabelRelationChanged"):
        labels = (f"alertname={alert}", "severity=warning", "model=flights")
        assert check(amtool, "config", "routes", "test", config, *labels).strip() == "nobody"


def test_rules_fire_on_time(rendered: Path) -> None:
    """Unit tests of rules with promtool."""
    labels = {"model": "flights", "reason": "drift", "severity": "ticket", "version": "3"}
    summary = "features in live traffic have drifted from the reference of version 3"
    hint = "tidemill status; the retraining service trains on the newest validated data"
    drift = {"exp_labels": labels, "exp_annotations": {"summary": summary, "hint": hint}}
    tests = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "5s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [
                    {"series": 'tidemill_drift_share{model="flights",version="3"}', "values": "0.49x3 0.5x3 _ _x99"},
                    {"series": 'tidemill_drift_share{model="other",version="1"}', "values": "1x9"},
                ],
                "alert_rule_test": [
                    {"eval_time": "15s", "alertname": "TidemillDrift", "exp_alerts": []},
                    {"eval_time": "30s", "alertname": "TidemillDrift", "exp_alerts": [drift]},
                    {"eval_time": "8m", "alertname": "TidemillDrift", "exp_alerts": []},
                ],
            }
        ],
    }
    (rendered / "test.yml").write_text(yaml.safe_dump(tests))
    check(str(tools.find("promtool")), "test", "rules", str(rendered / "test.yml"))


def test_rules_of_the_model_server(rendered: Path) -> None:
    """Each alert on the server's own metrics, and on those of the capture and its labels."""
    of = 'model="flights"'
    series = {
        f'tidemill_lost_segments_total{{{of},kind="capture"}}': "0x10 3x990",
        f"tidemill_capture_folder_removed_total{{{of}}}": "0x1000",
        'tidemill_lost_segments_total{model="other",kind="capture"}': "0x1000",
        'tidemill_capture_folder_removed_total{model="other"}': "0x20 1x980",
        f'tidemill_unreadable_segments{{{of},kind="labels"}}': "0x10 2x40 0x950",
        f'tidemill_unreadable_segments{{{of},kind="capture"}}': "0x1000",
        f'tidemill_label_relation_changed{{{of},version="7"}}': "_x5 0x5 1x40 0x950",
        f'tidemill_publish_waiting_rows{{{of},reason="above_share"}}': "0x10 900x200 0x790",
        f'tidemill_publish_waiting_rows{{{of},reason="disputed"}}': "0x160 900x150 0x690",
        'tidemill_unvalidated_commits{repository="flights",branch="main"}': "0x10 2x60 0x900",
        f'tidemill_model_load_failed{{{of},version="8"}}': "_x3 1x40 _x200",
        f'tidemill_requests_total{{{of},version="7",code="200"}}': "0+90x400",
        f'tidemill_requests_total{{{of},version="7",code="429"}}': "0x120 1+10x280",
        f'tidemill_requests_total{{{of},version="7",code="500"}}': "_x20 1x380",
        f"tidemill_registry_reachable{{{of}}}": "1x10 0x390",
        f"tidemill_alias_missing{{{of}}}": "0x120 1x120 0x160",
        # The server reports one or the other.
        f"tidemill_champion_missing{{{of}}}": "0x400",
    }

    def expected(alert: str, at: str, **labels: str) -> dict[str, object]:
        return {"eval_time": at, "alertname": alert, "exp_alerts": [{"exp_labels": labels}] if labels else []}

    ticket = {"model": "flights", "severity": "ticket"}
    alerts = [
        expected("TidemillCaptureLost", "40s"),
        {
            "eval_time": "4m",
            "alertname": "TidemillCaptureLost",
            "exp_alerts": [{"exp_labels": {"severity": "ticket", "model": model}} for model in ("flights", "other")],
        },
        expected("TidemillCaptureLost", "70m"),
        expected("TidemillSegmentsUnreadable", "40s"),
        expected("TidemillSegmentsUnreadable", "2m", kind="labels", **ticket),
        expected("TidemillSegmentsUnreadable", "5m"),
        expected("TidemillLabelRelationChanged", "45s"),
        # No `reason`: nothing starts a training.
        expected("TidemillLabelRelationChanged", "2m", version="7", model="flights", severity="warning"),
        expected("TidemillLabelRelationChanged", "5m"),
        expected("TidemillLabelsWait", "8m"),
        expected("TidemillLabelsWait", "15m", model="flights", severity="warning"),
        expected("TidemillLabelsWait", "30m"),
        expected("TidemillUnvalidatedData", "2m"),
        expected("TidemillUnvalidatedData", "4m", repository="flights", branch="main", severity="ticket"),
        expected("TidemillUnvalidatedData", "8m"),
        expected("TidemillVersionCannotServe", "10s"),
        expected("TidemillVersionCannotServe", "30s", version="8", **ticket),
        expected("TidemillVersionCannotServe", "12m"),
        expected("TidemillTurnsAway", "10m"),
        expected("TidemillTurnsAway", "20m", model="flights", severity="page"),
        expected("TidemillModelFails", "90s"),
        expected("TidemillModelFails", "3m", version="7", **ticket),
        expected("TidemillModelFails", "10m"),
        expected("TidemillRegistryUnreachable", "4m"),
        expected("TidemillRegistryUnreachable", "7m", **ticket),
        expected("TidemillAliasMissing", "9m"),
        expected("TidemillAliasMissing", "12m", model="flights", severity="page"),
        expected("TidemillNoChampion", "12m"),
        expected("TidemillAliasMissing", "30m"),
    ]
    rules = yaml.safe_load((rendered / "rules.yml").read_text())
    annotations = {rule["alert"]: rule.pop("annotations") for group in rules["groups"] for rule in group["rules"]}
    assert all(set(said) == {"summary", "hint"} for said in annotations.values())
    # Annotations are not compared: promtool compares either all of an alert or only its time.
    (rendered / "bare.yml").write_text(yaml.safe_dump(rules))
    tests = {
        "rule_files": ["bare.yml"],
        "evaluation_interval": "5s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": alerts,
            }
        ],
    }
    (rendered / "test_serving.yml").write_text(yaml.safe_dump(tests))
    check(str(tools.find("promtool")), "test", "rules", str(rendered / "test_serving.yml"))


def test_hostile_names_stay_data() -> None:
    hostile = 'a"}) or vector(1) #\n- x: {{ 1 }}'
    text = render(
        "monitoring/rules.yml.j2",
        models=[{"name": hostile, "triggers": ["drift"], "drift_share": 0.5, "drift_for": "0s"}],
    )
    group = yaml.safe_load(text)["groups"][1]
    assert group["name"] == f"tidemill-model-{hostile}"
    assert group["rules"][0]["labels"]["model"] == hostile.replace("{{", '{{ "{{" }}')
