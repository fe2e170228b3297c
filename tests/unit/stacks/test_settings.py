"""The stack config: what holds, and that what does not names file, line, path, value and hint."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from tidemill.components.settings import format_duration, parse_duration
from tidemill.runtime.common.errors import ConfigError, NotFoundError, UserError
from tidemill.stacks.loading import load_stack, stack_names
from tidemill.stacks.stack_config.json_schema import stack_schema_text

ROOT = Path(__file__).resolve().parents[3]
HEAD = "config:\n  tidemill:stack:\n    team: harbour\n    environment: dev\n"
MODEL = """\
    models:
      boats:
        owner: ops@example.org
        purpose: will it sink?
        code: code
        train: [python, train.py]
        data: harbour/main/boats
        target: sunk
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: quay\nruntime: python\nstackConfigDir: config\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "code").mkdir()
    for name, expectations in (("empty.json", []), ("suite.json", [{"type": "expect_column_to_exist"}])):
        suite = {"name": "x", "expectations": expectations, "meta": {"tidemill": {"path": "catches"}}}
        (tmp_path / name).write_text(json.dumps(suite))
    return tmp_path


def write(project: Path, text: str, stack: str = "harbour-dev") -> Path:
    path = project / "config" / f"Pulumi.{stack}.yaml"
    path.write_text(text)
    return path


def test_five_lines_are_a_platform_with_one_repository_and_no_model(project: Path) -> None:
    write(project, HEAD)
    config = load_stack(project, "harbour-dev").config
    assert (config.target, list(config.lake.repositories), config.models) == ("local", ["harbour"], {})
    assert config.lake.repositories["harbour"].protect == ["main"]


def test_a_config_that_the_engine_is_writing_is_read_when_it_is_complete(project: Path) -> None:
    file = write(project, "")
    writer = threading.Timer(0.1, file.write_text, [HEAD])
    writer.start()
    try:
        assert load_stack(project, "harbour-dev").config.team == "harbour"
    finally:
        writer.join()


def test_the_sample_team_holds_and_the_schema_file_is_in_step() -> None:
    for name in stack_names(ROOT):
        load_stack(ROOT, name)
    written = (ROOT / "stacks" / "stack.schema.json").read_text()
    assert written == stack_schema_text(), "run `tidemill schema > stacks/stack.schema.json`"
    stack = json.loads(written)["properties"]["config"]["properties"]["tidemill:stack"]
    assert "extends" in stack["properties"]


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        (HEAD + "    target: moon\n", 5, "target", ("'moon'", "local")),
        (HEAD + "    modles: {}\n", 5, "modles", ("unknown key", "models")),
        # A block of a target which is not in use is checked for its keys too.
        (HEAD + "    docker: {limits: {memory: 1}}\n", 5, "docker.limits.memory", ("unknown key", "memory_mb")),
        (HEAD + "    aws: {regoin: x}\n", 5, "aws.regoin", ("unknown key", "region")),
        (HEAD + "    aws:\n      network:\n        existing: {vpc: vpc-1, private_subnets: [a, b], "
         "public_subnets: [a, b]}\n        args: {zones: 3}\n", 6, "aws.network", ("existing and args", "keep one")),
        (HEAD + "    target: aws\n", 2, "aws.region", ("is missing", "eu-central-1")),
        (HEAD + "    target: docker\n    docker: {images: {lakefs: treeverse/lakefs}}\n", 6, "docker.images.lakefs",
         ("not pinned",)),
        (HEAD + "    target: docker\n    docker: {services: {lakef: {}}}\n", 6, "docker.services.lakef",
         ("no such service", "lakefs")),
        (HEAD + MODEL + "        promote:\n          metric: auc\n          at_leats: 1\n", 15,
         "models.boats.promote.at_leats", ("at_least",)),
        (HEAD + MODEL + "        promote: { at_least: high }\n", 13, "models.boats.promote.at_least", ("'high'",)),
        (HEAD + MODEL + "        promote: { at_least: .nan }\n", 13, "models.boats.promote.at_least", ("finite",)),
        (HEAD + MODEL + "        watch:\n          window: 30\n", 14, "models.boats.watch.window", ("30", "30d")),
        (HEAD + MODEL + "        watch: {window: 1:30}\n", 13, "models.boats.watch.window", ("'1:30'",)),
        (HEAD + MODEL + "        retrain: {triggers: [drft]}\n", 13, "models.boats.retrain.triggers.0", ("drift",)),
        (HEAD + MODEL.replace("harbour/main/boats", "harber/main/boats"), 11, "models.boats.data",
         ("'harber/main/boats'", "harbour?")),
        (HEAD + MODEL.replace("harbour/main/boats", "boats"), 11, "models.boats.data", ("REPOSITORY/BRANCH/PATH",)),
        (HEAD + MODEL.replace("code: code", "code: cod"), 9, "models.boats.code", ("no such folder", "'cod'")),
        (HEAD + MODEL.replace("        target: sunk\n", ""), 6, "models.boats.target", ("is missing",)),
        (HEAD + MODEL.replace("      boats:", "      Boats:"), 6, "models.Boats", ("name",)),
        (HEAD + "    lake: {repositories: {harbour: {gate: no.json}}}\n", 5, "lake.repositories.harbour.gate",
         ("no such file",)),
        (HEAD + "    lake: {repositories: {harbour: {gate: empty.json}}}\n", 5, "lake.repositories.harbour.gate",
         ("a suite without expectations", "'empty.json'")),
        (HEAD + MODEL + "    lake: {repositories: {harbour: {gate: suite.json}}}\n", 11, "models.boats.data",
         ("outside the folder catches", "meta.tidemill.path in suite.json")),
        (HEAD + "    lake: {verdict_keys: [1, 1]}\n", 5, "lake", ("verdict_keys", "twice")),
        (HEAD + "    lake: {verdict_keys: []}\n", 5, "lake.verdict_keys", ("at least 1",)),
        (HEAD + "    ports:\n      lakef: 8000\n", 6, "ports.lakef", ("lakefs",)),
        (HEAD + "    ports:\n      lakefs: 8000\n      mlflow: 8000\n", 7, "ports.mlflow", ("8000", "lakefs")),
        (HEAD + "    ports: {lakefs: 70000}\n", 5, "ports.lakefs", ("65535",)),
        (HEAD + "    on: 1\n", 5, "", ("boolean", "'on'")),
        (HEAD + "    team: other\n", 5, "", ("twice", "'team'")),
        (HEAD + "\tteam: x\n", 5, "", ("not YAML",)),
        (HEAD + "    lake: [\n", 6, "", ("not YAML",)),
        (HEAD.replace("harbour", "haven"), 3, "team", ("'haven-dev'", "harbour-dev")),
        (HEAD.replace("dev", "prod"), 4, "environment", ("'harbour-prod'",)),
        (HEAD + "    extends: base.yaml\n", 5, "extends", ("no such file",)),
        (HEAD + "    monitoring:\n      receivers:\n        - slack: {url: {secret: slackUrl}}\n", 7,
         "monitoring.receivers.0.slack.url.secret", ("pulumi config set --secret slackUrl",)),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(
    project: Path, text: str, line: int, path: str, words: tuple[str, ...]
) -> None:
    write(project, text)
    with pytest.raises(ConfigError) as caught:
        load_stack(project, "harbour-dev")
    said = str(caught.value)
    assert said.startswith(f"config/Pulumi.harbour-dev.yaml:{line}: {path}"), said
    for word in words:
        assert word in said
    assert "\n" not in said
    assert caught.value.exit_code == 2


def test_a_block_of_another_target_may_wait_for_its_day(project: Path) -> None:
    blocks = "    docker: {images: {lakefs: treeverse/lakefs}}\n    aws: {size: large}\n"
    write(project, HEAD + blocks)
    assert load_stack(project, "harbour-dev").config.aws.size == "large"
    for target, there in (("docker", "docker.images.lakefs"), ("aws", "aws.region")):
        write(project, HEAD + f"    target: {target}\n" + blocks)
        with pytest.raises(ConfigError, match=there):
            load_stack(project, "harbour-dev")


def test_words_stay_words_as_the_engine_reads_them(project: Path) -> None:
    write(project, HEAD + "    monitoring: { grafana: off }\n")
    assert load_stack(project, "harbour-dev").config.monitoring.grafana == "off"


def test_a_receivers_secret_is_never_repeated(project: Path) -> None:
    write(project, HEAD + "    monitoring: { receivers: [{ slack: { url: https://hooks.example/T0/secret } }] }\n")
    with pytest.raises(ConfigError) as caught:
        load_stack(project, "harbour-dev")
    assert "hooks.example" not in str(caught.value)


def test_a_secret_of_the_config_is_found_and_a_plain_one_refused(project: Path) -> None:
    receivers = "    monitoring: { receivers: [{ webhook: { url: { secret: hook } } }] }\n"
    write(project, HEAD + receivers + "  quay:hook:\n    secure: abc\n")
    assert load_stack(project, "harbour-dev").secrets == {"hook"}
    write(project, HEAD + receivers + "  quay:hook: https://plain\n")
    with pytest.raises(ConfigError, match="not encrypted"):
        load_stack(project, "harbour-dev")


def test_a_base_is_extended_and_every_value_knows_its_file(project: Path) -> None:
    (project / "base.yaml").write_text("environment: dev\nextends: root.yaml\nmonitoring:\n  retention: 3d\n")
    (project / "root.yaml").write_text("monitoring:\n  retention: 9d\n  scrape_interval: 1s\nteam: nobody\n")
    write(project, "config:\n  tidemill:stack:\n    extends: base.yaml\n    team: harbour\n")
    loaded = load_stack(project, "harbour-dev")
    monitoring = loaded.config.monitoring
    assert (monitoring.retention, monitoring.scrape_interval) == (timedelta(days=3), timedelta(seconds=1))
    assert loaded.origin("monitoring.retention") == "base.yaml:4"
    assert loaded.origin("monitoring.scrape_interval") == "root.yaml:3"
    assert loaded.origin("team") == "config/Pulumi.harbour-dev.yaml:4"
    (project / "root.yaml").write_text("monitoring:\n  retention: soon\n")
    (project / "base.yaml").write_text("environment: dev\nextends: root.yaml\n")
    with pytest.raises(ConfigError, match=r"^root.yaml:2: monitoring.retention"):
        load_stack(project, "harbour-dev")
    (project / "root.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(ConfigError, match="extend each other in a cycle"):
        load_stack(project, "harbour-dev")


def test_an_unknown_stack_suggests_the_nearest(project: Path) -> None:
    write(project, HEAD)
    with pytest.raises(NotFoundError, match=r"did you mean harbour-dev\?"):
        load_stack(project, "harbor-dev")


@pytest.mark.parametrize("text", ["0s", "250ms", "15s", "90m", "36h", "30d"])
def test_durations_go_round(text: str) -> None:
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "-1s", "1.5h", "5 s", "1y", "99999999999999999d", 5, None, True])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_user_errors_are_the_users(project: Path) -> None:
    write(project, "[]")
    with pytest.raises(UserError, match="tidemill:stack"):
        load_stack(project, "harbour-dev")
