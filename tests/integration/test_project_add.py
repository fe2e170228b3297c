"""`tidemill add` in projects of the real template, unchanged and edited by the team."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidemill.runtime.common.errors import ConfigError, NotFoundError, RefusedError, UserError
from tidemill.stacks.loading import load_stack, stack_names
from tidemill.stacks.projects import template_base
from tidemill.stacks.projects.adding import ModelOptions, add_environment, add_model, add_repository
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import TEMPLATE_VERSION, render_project
from tidemill.stacks.projects.updating import update
from tidemill.stacks.teams.checking import check_project

from tests.support.evolving import commit, contents, git, later_template, made_project

ANSWERS = Answers.of({"team": "harbour", "environments": ["dev", "prod"], "models": ["berths"]})
BASE = "stacks/config/base.yaml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return made_project(tmp_path / "project", ANSWERS)


def whole(answers: Answers) -> dict[str, tuple[bytes, bool]]:
    """Return the files of `tidemill init` for `answers`."""
    tree = render_project(answers)
    files = {**tree, **template_base.base_files(answers, TEMPLATE_VERSION, tree)}
    return {str(path): (file.content, file.executable) for path, file in files.items()}


def test_adding_to_an_untouched_project_equals_init_with_all_names(project: Path) -> None:
    add_model(project, "late-ships")
    assert contents(project) == whole(ANSWERS.with_(models=["berths", "late-ships"]))
    add_repository(project, "weather")
    add_environment(project, "staging")
    add_environment(project, "prod2")
    everything = {
        "models": ["berths", "late-ships"],
        "repositories": ["harbour", "weather"],
        "environments": ["dev", "prod", "staging", "prod2"],
    }
    assert contents(project) == whole(ANSWERS.with_(**everything))
    assert not check_project(project).findings
    assert not (project / ".tidemill").exists()
    commit(project)
    assert update(project).changes == []


def test_all_other_lines_stay_unchanged(project: Path) -> None:
    text = (project / BASE).read_text()
    text = text.replace("monitoring: { grafana: auto,", "\n\n# Ours:   who watches.\nmonitoring: {grafana:   auto , ")
    text = text.replace("    target: delayed\n", "    target:   'delayed'   # as it was\n")
    text = text.replace("models:\n", "models:   # all of them\n") + "\n# The end.\n\n"
    (project / BASE).write_text(text)
    commit(project)
    add_model(project, "late-ships")
    add_repository(project, "weather")
    lines = git(project, "diff", "--unified=0", BASE).splitlines()
    assert [line for line in lines if line.startswith("-")] == [f"--- a/{BASE}"]
    new = (project / BASE).read_text()
    assert new.index("late-ships:") < new.index("# Ours:   who watches.")
    config = load_stack(project, "harbour-prod").config
    assert list(config.models) == ["berths", "late-ships"]
    assert list(config.lake.repositories) == ["harbour", "weather"]
    assert config.models["late-ships"].retrain.promotion == "manual"


def test_options_are_written_to_the_config(project: Path) -> None:
    add_repository(project, "weather")
    options = ModelOptions(repository="weather", train=["python", "fit.py", "--fast"], owner="sea: 'us'", target="late")
    add_model(project, "late-ships", options)
    model = load_stack(project, "harbour-dev").config.models["late-ships"]
    assert (model.data, model.train, model.owner, model.target) == (
        "weather/main/departures",
        ["python", "fit.py", "--fast"],
        "sea: 'us'",
        "late",
    )
    assert model.purpose == load_stack(project, "harbour-dev").config.models["berths"].purpose
    commit(project)
    assert update(project).changes == []
    with pytest.raises(ConfigError, match="outside the folder departures that the gate judges"):
        add_model(project, "tides", ModelOptions(data="weather/v2/tides"))
    assert update(project).changes == []
    add_model(project, "tides", ModelOptions(data="weather/v2/departures/tides", purpose="how high?"))
    tides = load_stack(project, "harbour-dev").config.models["tides"]
    assert (tides.data, tides.purpose) == ("weather/v2/departures/tides", "how high?")


def test_a_later_template_updates_added_files(project: Path, tmp_path: Path) -> None:
    add_model(project, "late-ships", ModelOptions(owner="sea@example.org"))
    commit(project)
    later = later_template(tmp_path / "later", None, {f"{BASE}.j2": ("target: delayed", "target: very_late")})
    assert update(project, templates=later, version="2").conflicts == []
    models = load_stack(project, "harbour-dev").config.models
    assert {name: model.target for name, model in models.items()} == dict.fromkeys(models, "very_late")
    assert models["late-ships"].owner == "sea@example.org"


def test_configs_without_the_templates_base_are_edited_at_their_parent_keys(project: Path) -> None:
    (project / BASE).rename(project / "shared.yaml")
    for stack in stack_names(project):
        file = project / f"stacks/config/Pulumi.{stack}.yaml"
        file.write_text(file.read_text().replace(BASE, "shared.yaml"))
    commit(project)
    add_model(project, "late-ships")
    assert not (project / BASE).exists()
    assert "late-ships:" in (project / "shared.yaml").read_text()
    assert list(load_stack(project, "harbour-dev").config.models) == ["berths", "late-ships"]


def test_a_file_of_the_team_is_kept_and_reported(project: Path) -> None:
    (project / "models/late_ships").mkdir()
    (project / "models/late_ships/train.py").write_text("print('ours')\n")
    kept = {str(one.path): one.kind for one in add_model(project, "late-ships")}
    assert kept["models/late_ships/train.py"] == "kept"
    assert (project / "models/late_ships/train.py").read_text() == "print('ours')\n"


@pytest.mark.parametrize(
    ("add", "name", "error", "text"),
    [
        (add_model, "berths", UserError, "model: already exists, got 'berths'"),
        (add_model, "Late Ships", ConfigError, r"models.*does not match"),
        (add_model, "../x", ConfigError, r"models.*does not match"),
        (add_environment, "prod", UserError, "environment: already exists"),
        (add_environment, "pre-prod", ConfigError, r"environments.*does not match"),
        (add_repository, "harbour", UserError, "repository: already exists"),
        (add_repository, "a", ConfigError, r"repositories.*does not match"),
    ],
)
def test_taken_and_invalid_names_are_refused(
    project: Path, add: object, name: str, error: type[Exception], text: str
) -> None:
    before = contents(project)
    assert callable(add)
    with pytest.raises(error, match=text):
        add(project, name)
    assert contents(project) == before


def test_an_unknown_repository_is_refused_with_the_nearest(project: Path) -> None:
    before = contents(project)
    with pytest.raises(NotFoundError, match="did you mean harbour"):
        add_model(project, "late-ships", ModelOptions(repository="harbor"))
    with pytest.raises(NotFoundError, match="tidemill add repository zoo"):
        add_model(project, "late-ships", ModelOptions(data="zoo/main/tides"))
    assert contents(project) == before


def test_an_invalid_result_is_not_written(project: Path) -> None:
    file = project / "stacks/config/teams.yaml"
    file.write_text("quotas: { models: 1 }\n")
    before = contents(project)
    with pytest.raises(ConfigError, match="nothing was changed: harbour may have at most 1 models"):
        add_model(project, "late-ships")
    assert contents(project) == before
    file.unlink()
    (project / BASE).write_text((project / BASE).read_text().replace("capture: 1.0", "capture: 7.0"))
    before = contents(project)
    with pytest.raises(ConfigError, match=r"base\.yaml:\d+: models\.berths\.serve\.capture"):
        add_model(project, "late-ships")
    assert contents(project) == before


def test_a_project_of_another_version_is_updated_first(project: Path, tmp_path: Path) -> None:
    later = later_template(tmp_path / "later", None, {"notes.md.j2": "New.\n"})
    update(project, templates=later, version=TEMPLATE_VERSION)
    with pytest.raises(RefusedError, match="run `tidemill update` first"):
        add_model(project, "late-ships")
