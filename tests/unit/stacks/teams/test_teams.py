"""Many teams in one project: all are checked, each problem has its place, and what two claim is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tidemill.runtime.common.errors import ConfigError, NotFoundError
from tidemill.stacks.cli import app
from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import program_of
from tidemill.stacks.stack_config.explanation import explain
from tidemill.stacks.stack_config.json_schema import stack_schema, teams_schema
from tidemill.stacks.teams.checking import check_project
from tidemill.stacks.teams.listing import list_stacks

from tests.benchmarks import teams as benchmark
from tests.support.teams import make_project
from tests.support.tree import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of three teams, as the working directory, where no setting of the user's reaches."""
    for name in ("TIDEMILL_STACK", "TIDEMILL_HOME", "PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    made = make_project(tmp_path / "project", 3)
    monkeypatch.chdir(made)
    return made


def change(project: Path, stack: str, before: str, after: str) -> None:
    path = project / "config" / f"Pulumi.{stack}.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def rules(project: Path, text: str) -> None:
    (project / "config" / "teams.yaml").write_text(text)


def told(project: Path) -> list[str]:
    return [str(one.error()) for one in check_project(project).findings]


def test_teams_which_keep_the_rules_hold(project: Path) -> None:
    report = check_project(project)
    assert [one.stack for one in report.stacks] == [f"team{n}-{e}" for n in range(3) for e in ("dev", "prod")]
    assert (report.findings, report.rules) == ([], True)


def test_every_problem_of_every_file_is_told_with_its_place(project: Path) -> None:
    change(project, "team0-dev", "metric: roc_auc", "metrc: roc_auc")
    change(project, "team0-dev", "target: docker", "target: moon")
    change(project, "team1-prod", "code: code", "code: cod")
    change(project, "team2-dev", "    team: team2", "\tteam: team2")
    found = told(project)
    assert [re.match(r"config/Pulumi\.(\S+)\.yaml:\d+", one)[1] for one in found] == [  # type: ignore[index]
        "team0-dev", "team0-dev", "team0-dev", "team1-prod", "team1-prod", "team2-dev"
    ]  # fmt: skip
    assert found[0].startswith("config/Pulumi.team0-dev.yaml:6: target: unknown value, got 'moon'; use local")
    assert "did you mean metric?" in found[1]
    assert "models.model-0.code: no such folder, got 'cod'; paths are relative to Pulumi.yaml" in found[3]
    assert "not YAML" in found[5]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names: { model: '[a-z]+' }", r"models\.model-0: does not match \[a-z\]\+, as teams\.yaml asks"),
        ("names: { repository: 'lake-.*' }", r"lake\.repositories\.team0: does not match"),
        ("names: { owner: '.+@harbour' }", r"models\.model-0\.owner: does not match"),
        ("names: { team: 'crew[0-9]' }", r": team: does not match crew"),
        ("quotas: { models: 1 }", r"models: team0 may have 1 models in dev, got 2; leave some out, or raise"),
        ("quotas: { workers: 3 }", r"team0 may have 3 workers in dev, got 4"),
        ("quotas: { repositories: 1 }", r"lake\.repositories: team0 may have 1 repositories in dev, got 2"),
        ("quotas: { stacks: 1 }", r"Pulumi\.team0-prod\.yaml:4: team: team0 may have 1 stacks, got 2"),
        ("environments: { dev: {}, test: {} }", r"environment: is not one which team0 may have, got 'prod'"),
        ("environments: { dev: { targets: [local] }, prod: {} }", r"target: dev may not run there, got 'docker'"),
        ("environments: { dev: { quotas: { models: 1 } }, prod: {} }", r"team0-dev\S+ models: team0 may have 1 models"),
        ("teams: { team0: {}, team1: {}, team22: {} }", r"team: is not a team of teams\.yaml, got 'team2'; did you"),
        ("teams: { team0: { environments: [dev] }, team1: {}, team2: {} }", r"which team0 may have, got 'prod'"),
        ("teams: { team0: { ports: { first: 1, last: 9 } }, team1: {}, team2: {} }", r"ports\.grafana: is not one of"),
        ("quotas: { modls: 1 }", r"teams\.yaml:1: quotas\.modls: unknown key, got 1; did you mean models"),
        ("names: { model: '[' }", r"teams\.yaml:1: names\.model: not a regular expression"),
        ("teams: { team0: { ports: { first: 9, last: 1 } } }", r"last comes before first, got .*; exchange them"),
        ("- 1", r"config/teams\.yaml:1"),
    ],
)  # fmt: skip
def test_the_rules_are_kept(project: Path, text: str, says: str) -> None:
    rules(project, text)
    found = told(project)
    assert any(re.search(says, one) for one in found), found


def test_a_stack_which_breaks_the_rules_is_not_composed(project: Path) -> None:
    compose = program_of(load_stack(project, "team1-dev"))
    rules(project, "quotas: { workers: 0 }\nteams: { team0: {}, team2: {} }")
    with pytest.raises(
        ConfigError, match=r"Pulumi\.team1-dev\.yaml:\d+: team: is not a team of teams\.yaml, got 'team1'"
    ):
        compose()


def test_a_teams_own_quota_goes_before_the_environments_and_that_before_all(project: Path) -> None:
    rules(project, "quotas: { models: 0 }\nenvironments: { dev: { quotas: { models: 1 } }, prod: {} }\n"
                   "teams: { team0: { quotas: { models: 9 } }, team1: {}, team2: {} }\n")  # fmt: skip
    assert [re.search(r"team\d may have \d models in \w+", one)[0] for one in told(project)] == [  # type: ignore[index]
        "team1 may have 1 models in dev", "team1 may have 0 models in prod",
        "team2 may have 1 models in dev", "team2 may have 0 models in prod",
    ]  # fmt: skip


def test_a_port_is_there_once_on_one_host(project: Path) -> None:
    change(project, "team1-dev", "grafana: 2020", "grafana: 2000")
    (found,) = told(project)
    assert found == (
        "config/Pulumi.team1-dev.yaml:8: ports.grafana: is the fixed port of team0-dev "
        "(config/Pulumi.team0-dev.yaml) too, got 2000; give each its own, or leave it out: a free one is found and kept"
    )
    rules(project, "one_host: false\n")
    assert told(project) == []


AWS = (
    "target: aws\n    aws: {{ region: {0}, domain: {1}.example.org, zone: Z1, "
    "ingress: {{ allow: [192.0.2.0/24] }}, {2} }}"
)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (("eu-west-1", "a", "bucket: { existing: lake-x }"), ("eu-west-1", "b", "bucket: { existing: lake-x }"),
         "aws.bucket.existing: is the bucket of team0-dev"),
        (("eu-west-1", "a", "size: small"), ("us-east-1", "a", "size: small"), "aws.domain: is the domain of"),
        (("eu-west-1", "a", "size: small"), ("eu-west-1", "b", "size: small"), None),
    ],
)  # fmt: skip
def test_what_two_stacks_bring_is_told(
    project: Path, first: tuple[str, ...], second: tuple[str, ...], says: str | None
) -> None:
    rules(project, "{}")
    change(project, "team0-dev", "target: docker", AWS.format(*first))
    change(project, "team1-dev", "target: docker", AWS.format(*second))
    found = told(project)
    assert (says is None and not found) or (says is not None and len(found) == 1 and says in found[0]), found


def test_names_which_two_teams_would_give_to_two_things_are_told(project: Path) -> None:
    rules(project, "{}")
    for team, model in (("quay", "x-dev-lakefs"), ("quay-dev-serving-x", "berths")):
        text = (project / "config/Pulumi.team0-dev.yaml").read_text().replace("team0", team)
        text = re.sub(r"    ports: .*\n", "", text.replace("model-0", model))
        (project / f"config/Pulumi.{team}-dev.yaml").write_text(text)
    found = told(project)
    assert len(found) == 1
    assert "its service lakefs would have the name of one of quay-dev" in found[0]
    assert "tidemill-quay-dev-serving-x-dev-lakefs" in found[0]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = app.run(words)
    output = capsys.readouterr()
    return code, output.out, output.err


def test_validate_for_people_and_programs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "validate")
    assert (code, err) == (0, "")
    assert out.count(": holds\n") == 6
    assert "the rules of teams.yaml are kept" in out
    change(project, "team0-dev", "code: code", "code: cod")
    code, out, err = said(capsys, "validate")
    assert (code, out.count(": holds\n"), err.count("no such folder")) == (2, 5, 2)
    assert "2 problems in 1 file; nothing was started" in err
    assert said(capsys, "validate", "--stack", "team1-dev")[0] == 0
    code, out, err = said(capsys, "validate", "--json")
    answer = json.loads(out)
    assert (code, err, answer["holds"], len(answer["stacks"])) == (2, "", False, 6)
    assert answer["problems"][0] == {
        "file": "config/Pulumi.team0-dev.yaml", "line": 13, "path": "models.model-0.code", "message": "no such folder",
        "value": "cod", "hint": "paths are relative to Pulumi.yaml", "stack": "team0-dev",
    }  # fmt: skip
    assert said(capsys, "validate", "-s", "team0-dve")[2].startswith("tidemill: stack: no such stack")
    assert not (project / ".tidemill").exists(), "something was made"


def test_stacks_are_listed_with_their_state(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = project / ".tidemill/state/.pulumi"
    (state / "stacks/quay").mkdir(parents=True)
    urn = "urn:pulumi:team0-dev::quay::tidemill-native:local:Service::lakefs"
    resource = {"urn": urn, "type": "tidemill-native:local:Service"}
    for stack, latest in {
        "team0-dev": {"resources": [resource]},
        "team0-prod": {"resources": []},
        "team1-dev": {"resources": [resource], "pending_operations": [{"resource": resource, "type": "creating"}]},
        "team1-prod": {"resources": [resource]},
        "team2-prod": {"resources": [resource]},
    }.items():
        (state / f"stacks/quay/{stack}.json").write_text(json.dumps({"checkpoint": {"latest": latest}}))
    (state / "stacks/quay/team2-prod.json").write_text("{")
    lock = state / "locks/organization/quay/team1-prod/1.json"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"pid": 7, "username": "ann", "hostname": "elsewhere", "timestamp": "2026-01-02T03:04"}))
    rules(project, "{}")
    change(project, "team2-dev", "target: docker", "target: local")
    change(project, "team2-dev", "code: code", "code: cod")
    (state / "stacks/quay/team2-dev.json").write_text((state / "stacks/quay/team0-dev.json").read_text())
    found = {one.name: (one.state, one.resources, one.problems) for one in list_stacks(project, {})}
    assert found == {
        "team0-dev": ("up", 1, 0), "team0-prod": ("not up", 0, 0), "team1-dev": ("interrupted", 1, 0),
        "team1-prod": ("changing", 1, 0), "team2-dev": ("stopped", 1, 2), "team2-prod": ("unknown", None, 0),
    }  # fmt: skip
    code, out, err = said(capsys, "stacks")
    assert (code, err) == (0, "")
    assert "changing: by ann@elsewhere, process 7" in out
    assert "`tidemill validate` tells" in out
    code, out, _ = said(capsys, "stacks", "--json")
    assert json.loads(out)[0] == {
        "name": "team0-dev", "team": "team0", "environment": "dev", "target": "docker",
        "models": ["model-0", "model-1"], "state": "up", "resources": 1, "detail": "", "problems": 0,
    }  # fmt: skip


def test_where_each_value_came_from(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "base.yaml").write_text("extends: root.yaml\nmonitoring: { retention: 30d }\n")
    (project / "root.yaml").write_text("monitoring:\n  retention: 9d\n  grafana: off\nports: { mlflow: 9 }\n")
    loaded = load_stack(project, "team0-dev")

    def origin(path: str) -> tuple[Any, str]:
        (one,) = explain(loaded, path)
        return one.value, one.origin

    own = "config/Pulumi.team0-dev.yaml"
    assert origin("monitoring.retention") == ("30d", "base.yaml:2")
    assert explain(loaded, "monitoring.retention")[0].given_way == [("root.yaml:2", "9d")]
    assert origin("monitoring.grafana") == ("off", "root.yaml:3")
    assert origin("monitoring.scrape_interval") == ("5s", "default")
    assert origin("ports.mlflow") == (2001, f"{own}:8")
    assert origin("models.model-0.serve.capture.fraction") == (0.5, f"{own}:18"), "a number stands for the fraction"
    assert origin("models.model-0.serve.capture.hash") == ([], "default"), "and for nothing else of it"
    assert {one.path for one in explain(loaded, "ports")} == {"ports.grafana", "ports.mlflow"}
    with pytest.raises(NotFoundError, match=r"did you mean monitoring\.retention\?"):
        explain(loaded, "monitoring.retenton")
    code, out, _ = said(capsys, "config", "-s", "team0-dev", "--explain", "monitoring.retention")
    assert (code, out.splitlines()) == (0, [
        'monitoring.retention: "30d"', "  from base.yaml:2", '  over root.yaml:2: "9d"',
        "  Time for which metrics are kept.",
    ])  # fmt: skip
    code, out, _ = said(capsys, "config", "-s", "team0-dev", "--json")
    assert (code, json.loads(out)["monitoring"]["grafana"]) == (0, "off")
    code, out, _ = said(capsys, "config", "-s", "team0-dev")
    assert re.search(r"(?m)^  grafana: \"off\" +# root\.yaml:3$", out)


def test_what_a_config_above_writes_in_full_replaces_a_short_form(project: Path) -> None:
    change(project, "team0-dev", "capture: 0.5", "capture: { segment_rows: 9 }")
    change(project, "team0-dev", "extends: base.yaml", "extends: short.yaml")
    (project / "short.yaml").write_text("models: { model-0: { serve: { capture: 0.25 } } }\n")
    (one,) = explain(load_stack(project, "team0-dev"), "models.model-0.serve.capture.fraction")
    assert (one.value, one.origin) == (1.0, "default")


def of_each(schema: dict[str, Any], ask: Callable[[str, dict[str, Any]], None]) -> None:
    """Ask of every property in `schema`, whatever defines it."""
    definitions = schema["$defs"]

    def walk(node: dict[str, Any], path: str) -> None:
        for name, one in node.get("properties", {}).items():
            references = [entry.get("$ref") for entry in (one, *one.get("anyOf", ()))]
            target = next((definitions[ref.rsplit("/", 1)[1]] for ref in references if ref), {})
            ask(f"{path}{name}", {**target, **one})
            walk(one, f"{path}{name}.")

    walk(schema, "")
    for name, node in definitions.items():
        walk(node, f"{name}.")


@pytest.mark.parametrize("schema", [stack_schema(), teams_schema()], ids=["stack", "teams"])
def test_editors_find_a_description_of_everything_and_examples_which_hold(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    asked: list[str] = []

    def ask(path: str, one: dict[str, Any]) -> None:
        asked.append(path)
        assert len(one.get("description", "")) > 3, f"{path} has no description"
        shaped = [one, *one.get("anyOf", ())]
        if any("pattern" in entry for entry in shaped):
            assert any(entry.get("examples") for entry in shaped), f"{path} has a pattern, and no example of it"
        for example in one.get("examples", ()):
            Draft202012Validator({**one, "$defs": schema["$defs"]}).validate(example)

    of_each(schema, ask)
    assert len(asked) > 20


def test_editors_accept_what_validate_does(project: Path) -> None:
    import yaml

    whole = Draft202012Validator(stack_schema())
    for path in [*project.glob("config/Pulumi.*.yaml"), *ROOT.glob("stacks/config/Pulumi.*.yaml")]:
        whole.validate(yaml.safe_load(path.read_text()))
    Draft202012Validator(teams_schema()).validate(yaml.safe_load((project / "config/teams.yaml").read_text()))


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["2", "4"], ["4", "8"], ["8", "16"]]
    assert "2.0 times the teams" in lines[2]


def test_a_file_is_read_once_however_many_stacks_share_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.stacks.stack_config import sources

    read: list[str] = []
    real = sources.read_yaml

    def counting(file: Path, of: Path) -> Any:
        read.append(file.name)
        return real(file, of)

    monkeypatch.setattr(sources, "read_yaml", counting)
    check_project(project)
    assert sorted(read) == sorted(set(read))
    assert len(read) == 8, "six stacks, their base, and the rules: it grows with the stacks, and with nothing else"
