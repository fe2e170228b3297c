"""Hostile names of teams, models and columns are refused in one sentence, or stay data in every rendered file."""

from __future__ import annotations

import ast
import json
import tomllib
from io import StringIO
from pathlib import Path
from typing import Any

import dockerfile
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tidemill.runtime.common.errors import ConfigError
from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import compose
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import render_project
from tidemill.templates import render

from tests.support import golden
from tests.support.hostile_text import HOSTILE, whole
from tests.support.recorded import record

names = st.lists(st.sampled_from((*HOSTILE[:-1], "a", "b-c", "9")), min_size=1, max_size=4).map("".join)
FREE = ("owner", "purpose", "argument", "column", "channel")
slow = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shape(value: Any) -> Any:
    """Return the structure of `value`, without texts and names; a break-out would change it."""
    if isinstance(value, dict):
        return [shape(one) for one in value.values()]
    return [shape(one) for one in value] if isinstance(value, list) else type(value).__name__


def write(project: Path, **changes: Any) -> None:
    """Write a stack config with hostile values."""
    model = {
        "owner": changes.get("owner", "ops@example.org"),
        "purpose": changes.get("purpose", "is it late?"),
        "code": ".",
        "train": ["python", changes.get("argument", "train.py")],
        "data": "harbour/main/berths",
        "target": changes.get("column", "late"),
        "serve": {"capture": {"leave_out": [changes.get("column", "name")]}},
    }
    stack = {
        "team": changes.get("team", "harbour"),
        "environment": changes.get("environment", "dev"),
        "models": {changes.get("model", "berths"): model},
        "lake": {"repositories": {"harbour": {"seed": ["python", changes.get("argument", "seed.py")]}}},
        "monitoring": {"receivers": [{"slack": {"url": {"secret": "url"}, "channel": changes.get("channel", "#x")}}]},
    }
    config = {"tidemill:stack": stack, "quay:url": {"secure": "v1:abc"}}
    (project / "Pulumi.yaml").write_text("name: quay\nruntime: python\n")
    # Escaped, because PyYAML does not read back every character that it writes as it is, such as U+0085.
    text = yaml.safe_dump({"config": config}, allow_unicode=False)
    (project / "Pulumi.harbour-dev.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("place", ["team", "environment", "model"])
@given(name=names)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_names_are_refused(tmp_path: Path, place: str, name: str) -> None:
    write(tmp_path, **{place: name})
    try:
        loaded = load_stack(tmp_path, "harbour-dev")
    except ConfigError as error:
        said = str(error)
        assert said.isprintable(), "one printable line"
        assert said.startswith("Pulumi.harbour-dev.yaml:")
        assert error.hint
        return
    assert (loaded.config.team, loaded.config.environment) == ("harbour", "dev")
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in loaded.config.models)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The files of services with harmless names."""
    project = tmp_path_factory.mktemp("usual")
    write(project)
    return given_to_services(project)


@slow
@given(text=whole)
@example(text='a\n- b: "{{ 1 }}" ${{ x }} $(id) \'; #')
@example(text="@{secret:mlflow-admin}")
def test_free_text_stays_data_in_all_files_of_services(
    tmp_path: Path, usual: dict[str, dict[str, Any]], text: str
) -> None:
    write(tmp_path, **dict.fromkeys(FREE, text))
    try:
        found = given_to_services(tmp_path)
    except ConfigError as error:
        assert str(error).isprintable()
        assert not text or "@{" in text or not text.isprintable()
        return
    assert {name: shape(files) for name, files in found.items()} == {
        name: shape(files) for name, files in usual.items()
    }
    assert text in found["monitor"]["settings.json"]["models"][0].values() or text in str(found["serving-berths"])
    slack = found["alertmanager"]["alertmanager.yml"]["receivers"][-1]["slack_configs"][0]
    assert slack["channel"].replace('{{ "{{" }}', "{{") == text


def given_to_services(project: Path) -> dict[str, dict[str, Any]]:
    """Return service -> file -> its parsed content."""
    loaded = load_stack(project, "harbour-dev")
    services = record(lambda: compose(loaded), {"url": "x"}).of("Service")
    readers = {".json": json.loads, ".yml": yaml.safe_load, ".yaml": yaml.safe_load}
    return {
        name: {
            file: readers[Path(file).suffix](text)
            for file, text in (inputs.get("configFiles") or {}).items()
            if Path(file).suffix in readers
        }
        for name, inputs in services.items()
        if name != "grafana"
    }


@given(name=whole)
@settings(max_examples=40, deadline=None)
def test_an_unchecked_name_would_still_be_data(name: str) -> None:
    values = {"triggers": ["no-champion", "drift"], "drift_share": 0.5, "drift_for": "0s"}

    def rules(model: str) -> Any:
        return yaml.safe_load(render("monitoring/rules.yml.j2", models=[{"name": model, **values}]))

    found = rules(name)
    assert shape(found) == shape(rules("berths"))
    assert found["groups"][-1]["name"] == f"tidemill-model-{name}"
    dashboard = render("monitoring/dashboard.json.j2", stack=name)
    assert json.loads(dashboard)["title"] == f"tidemill {name}"
    job = {"name": name, "path": name, "user": name, "secret": "x", "address": name}
    jobs = render(
        "monitoring/prometheus.yml.j2", scrape_interval="5s", scrape_timeout="4s", stack=name, alertmanager=job,
        jobs=[job],
    )  # fmt: skip
    assert yaml.safe_load(jobs)["scrape_configs"][0]["job_name"] == name


@slow
@given(owner=whole, name=names)
@example(owner="\"] \\ ' # ${{ secrets.X }} `id` <b>", name="berths")
def test_a_generated_project_reads_its_answers_back(owner: str, name: str) -> None:
    try:
        answers = Answers.of({"team": "harbour", "environments": ["dev"], "models": [name], "owner": owner})
    except ConfigError as error:
        assert str(error).isprintable()
        return
    for path, file in render_project(answers).items():
        text = file.content.decode()
        if path.suffix in {".yaml", ".yml"}:
            assert yaml.safe_load(text) is not None
            found = YAML(typ="safe", pure=True).load(StringIO(text))
            if path.name == "base.yaml":
                assert found["models"][name]["owner"] == owner
        elif path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix in {".json", ".ipynb"}:
            json.loads(text)
        elif path.suffix == ".py":
            ast.parse(text)
        elif path.name == "Dockerfile":
            usual = dockerfile.parse_string(golden.projects()["project-local/Dockerfile"])
            assert [one.cmd for one in dockerfile.parse_string(text)] == [one.cmd for one in usual]
