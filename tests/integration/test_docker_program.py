"""The program on the target docker, run by the real engine against stand-ins: what is made, and what is not."""

from __future__ import annotations

import gc
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tidemill.components.targets.docker.settings import ContainerLimits, DockerSettings
from tidemill.components.tools.table import IMAGES
from tidemill.runtime.common.errors import RefusedError

from tests.support.graphs import CONTAINER, NATIVE, RULES, Declared, Docker
from tests.support.standin.engine import ROOT, SUITE, Entry, Run, StandinStack

# The SDK leaves the event loop of an inline program which failed to the garbage collector.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
]

MODEL = {
    "owner": "ops@example.org",
    "purpose": "will it sink?",
    "code": "code",
    "train": ["python", "train.py"],
    "data": "harbour/main/boats",
    "target": "sunk",
}
DEV: dict[str, Any] = {
    "lake": {"repositories": {"harbour": {"gate": "suite.json", "seed": ["python", "code/seed.py"]}}},
    "models": {"boats": MODEL},
}
PROD: dict[str, Any] = {
    **DEV,
    "environment": "prod",
    "models": {"boats": {**MODEL, "serve": {"workers": 4, "shadow": "challenger"}}, "tides": MODEL},
    "monitoring": {"retention": "90d"},
    "docker": {
        "host": "unix:///run/user/1000/docker.sock",
        "base_image": "python:3.11.14-slim-bookworm@sha256:" + "0" * 64,
        "images": {"lakefs": "mirror.example/treeverse/lakefs:1.86.0"},
        "limits": {"memory_mb": 4096, "cpus": 4, "processes": 2048},
        "services": {"serving-boats": {"memory_mb": 8192, "cpus": 8, "processes": 4096}},
        "logs": {"max_size_mb": 50, "max_files": 10},
    },
}
SERVICES = {
    "postgres", "lakefs", "validation", "mlflow", "serving-boats", "runner", "retraining", "monitor", "prometheus",
    "alertmanager", "grafana",
}  # fmt: skip
PUBLIC = {"lakefs", "mlflow", "serving-boats", "prometheus", "alertmanager", "grafana"}
# What was there before: an earlier plan needs no more than the ports and secrets of this machine.
HELD = {"Volume", "Secret", "Repository", "Experiment", "RegisteredModel"}


@dataclass
class Story:
    """What happened to one stack, run after run."""

    stack: StandinStack
    preview: Run
    up: Run
    again: Run

    @property
    def containers(self) -> dict[str, Entry]:
        return self.up.of(CONTAINER)

    @property
    def graph(self) -> list[Declared]:
        return [Declared(entry.type, entry.name, entry.inputs) for entry in self.up.entries if entry.action == "create"]


def begin(folder: Path, config: dict[str, Any]) -> Story:
    files = {
        "code/train.py": "",
        "code/seed.py": "",
        "suite.json": SUITE,
        ".gitignore": "*.pem\n",
        "key.pem": "private",
    }
    # The state is written once a run, and not after each resource.
    quick = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
    stack = StandinStack(folder, "docker", config, files=files, environment=quick)
    shutil.copy(ROOT / "uv.lock", stack.project / "uv.lock")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for args in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *args], cwd=stack.project, check=True)
    story = Story(stack, stack.run("preview"), stack.run("up"), stack.run("up"))
    gc.collect()
    return story


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    yield begin(tmp_path_factory.mktemp("dev"), DEV)
    gc.collect()


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    yield begin(tmp_path_factory.mktemp("prod"), PROD)
    gc.collect()


@pytest.fixture(params=["dev", "prod"])
def story(request: pytest.FixtureRequest) -> Story:
    return request.getfixturevalue(request.param)


def test_every_service_is_a_container_and_refers_to_nothing_which_is_not_there(story: Story) -> None:
    more = {"serving-tides"} if story.stack.stack.endswith("prod") else set()
    assert set(story.containers) == SERVICES | more
    assert set(story.up.of(f"{NATIVE}:docker:Job")) == {
        "database-lakefs", "database-mlflow", "database-mlflow-accounts", "seed-harbour",
    }  # fmt: skip
    assert RULES["docker"](story.graph) == []


def test_a_container_is_kept_in_its_place(story: Story) -> None:
    for name, entry in story.containers.items():
        said = entry.inputs
        uid = "999:999" if name == "postgres" else "10001:10001"
        assert (said["user"], said["readOnly"], said["init"], said["privileged"]) == (uid, True, True, False), name
        assert said["capabilities"] == {"drops": ["ALL"]}
        assert said["securityOpts"] == ["no-new-privileges:true"]
        assert (said["restart"], said["logDriver"]) == ("unless-stopped", "json-file")
        assert said["memory"] == said["memorySwap"] > 0
        assert float(said["cpus"]) > 0
        assert said["healthcheck"]["tests"][0] in {"CMD", "CMD-SHELL"}
        assert said["wait"], "made means alive"
        assert said["name"] == f"tidemill-{story.stack.stack}-{name}"
        labels = {label["label"]: label["value"] for label in said["labels"]}
        assert (labels["managed-by"], labels["tidemill.team"]) == ("tidemill", "harbour")
        assert (labels["tidemill.stack"], labels["tidemill.service"]) == (story.stack.stack, name)
        unasked = {
            "devices",
            "networkMode",
            "pidMode",
            "ipcMode",
            "usernsMode",
            "groupAdds",
            "uploads",
            "publishAllPorts",
        }
        assert not unasked & set(said), name
        bound = story.up.of(f"{NATIVE}:docker:Bounds")[f"bounds-{name}"].inputs
        assert bound["processes"] > 0
        assert (bound["stack"], bound["name"]) == (story.stack.stack, name)


def test_limits_and_logs_are_those_of_the_config(dev: Story, prod: Story) -> None:
    def of(story: Story, name: str) -> tuple[int, str, int, dict[str, str]]:
        said = story.containers[name].inputs
        processes = story.up.of(f"{NATIVE}:docker:Bounds")[f"bounds-{name}"].inputs["processes"]
        return said["memory"], said["cpus"], processes, said["logOpts"]

    assert of(dev, "serving-boats") == (2048, "2", 1024, {"max-size": "10m", "max-file": "3"})
    assert of(prod, "serving-boats") == (8192, "8", 4096, {"max-size": "50m", "max-file": "10"})
    assert of(prod, "monitor") == (4096, "4", 2048, {"max-size": "50m", "max-file": "10"})


def test_every_container_can_be_given_limits_of_its_own(story: Story) -> None:
    settings = DockerSettings(services={name: ContainerLimits() for name in story.containers})
    assert list(settings.problems(story.stack.load().config.services)) == []


def test_ports_are_published_on_the_loopback_interface_alone_and_private_services_have_none(story: Story) -> None:
    for name, entry in story.containers.items():
        ports = entry.inputs.get("ports", [])
        assert {port["ip"] for port in ports} <= {"127.0.0.1"}
        networks = {network["name"].rsplit("-", 1)[1] for network in entry.inputs["networksAdvanced"]}
        if name in PUBLIC | {"serving-tides"}:
            assert len(ports) == 1
            assert networks == {"private", "edge"}
        else:
            assert ports == [], name
            # What trains may fetch; nothing else without a published port reaches beyond the stack.
            assert networks == ({"private", "edge"} if name == "runner" else {"private"}), name
    networks = story.up.of("docker:index/network:Network")
    assert {name: entry.inputs["internal"] for name, entry in networks.items()} == {
        "network-private": True, "network-edge": False,
    }  # fmt: skip


def test_images_are_pinned_and_ours_are_built_from_what_goes_into_them_alone(story: Story) -> None:
    images = {entry.inputs["image"] for entry in story.containers.values()}
    for image in images:
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        assert tag, image
        assert tag != "latest", image
    builds = story.up.of("docker-build:index:Image")
    assert set(builds) == {"image-mlflow", "image-serving", "image-runtime", "image-training"}
    for name, entry in builds.items():
        said = entry.inputs
        assert (said["load"], said["push"], said["buildOnPreview"]) == (True, False, False)
        assert said["tags"][0] in images | {story.up.of(f"{NATIVE}:docker:Job")["seed-harbour"].inputs["image"]}
        folder = Path(said["context"]["location"])
        assert {path.name for path in folder.iterdir()} == {"Dockerfile", "requirements.txt", "lib"} | (
            {"project"} if name == "image-training" else set()
        )
        base = said["buildArgs"]["BASE"]
        assert base.startswith("python:3.11.14-slim-bookworm")
        assert "--hash=sha256:" in (folder / "requirements.txt").read_text()
    pulled = {entry.inputs["name"] for entry in story.up.of("docker:index/remoteImage:RemoteImage").values()}
    own = (
        {"mirror.example/treeverse/lakefs:1.86.0"}
        if story.stack.stack.endswith("prod")
        else {"treeverse/lakefs:1.86.0"}
    )
    assert pulled == {IMAGES[name].reference for name in IMAGES if name != "lakefs"} | own


def test_the_code_in_the_image_is_what_git_knows_and_says_which_commit_it_is(dev: Story) -> None:
    folder = Path(dev.up.of("docker-build:index:Image")["image-training"].inputs["context"]["location"]) / "project"
    assert (folder / "code" / "train.py").is_file()
    assert not (folder / "key.pem").exists(), "Git ignores it"
    assert not (folder / ".tidemill").exists()
    assert not list(folder.rglob("Pulumi*.yaml")), "another setting would be another image"
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=dev.stack.project, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert json.loads((folder / ".tidemill-code.json").read_text()) == {"commit": head, "dirty": False, "patch": ""}


def test_no_secret_is_in_the_program_the_containers_or_the_plain_state(story: Story) -> None:
    secrets = story.stack.secrets()
    assert len(secrets) > 20
    told = json.dumps([entry.inputs for entry in story.up.entries])
    state = story.stack.state()
    for name, value in secrets.items():
        assert value not in told, f"{name} passes through the program"
        assert value not in state, f"{name} stands in the state in plain text"
    for name, entry in story.containers.items():
        text = json.dumps(entry.inputs)
        assert "@{" not in text, name
        assert "docker.sock" not in text, f"{name} has the daemon's socket"
        files = [mount for mount in entry.inputs["mounts"] if mount["target"] == "/run/tidemill"]
        assert [mount["readOnly"] for mount in files] == [True], name
        assert {mount["type"] for mount in entry.inputs["mounts"]} == {"volume"}, f"{name} mounts a folder of the host"


def test_who_has_which_secret(story: Story) -> None:
    graph = Docker(story.graph)

    def held(name: str) -> set[str]:
        files = graph.files_of(graph.containers[name]).inputs
        named = re.findall(r"@\{(?:secret|bcrypt):([^}]+)\}", json.dumps(files.get("files", {})))
        return set(files.get("secrets") or ()) | set(named)

    assert held("serving-boats") == {"serving-boats-key", "mlflow-serving"}, "the lake's key never reaches serving"
    assert held("runner") == {"runner-token", "lakefs-key-id", "lakefs-secret", "mlflow-training"}
    assert held("postgres") == {"postgres-admin"}
    owners = [name for name in graph.containers if "postgres-admin" in held(name)]
    assert owners == ["postgres"], "services have a role of their own each"
    assert held("lakefs") & {"database-lakefs", "database-mlflow"} == {"database-lakefs"}


def test_secrets_which_a_program_takes_from_its_environment_are_read_from_files(dev: Story) -> None:
    said = dev.containers["lakefs"].inputs
    shell, flags, script, _ = said["entrypoints"]
    assert (shell, flags) == ("/bin/sh", "-ceu")
    assert 'LAKEFS_AUTH_ENCRYPT_SECRET_KEY="$(cat /run/tidemill/secrets/lakefs-encrypt)"' in script
    assert script.endswith('exec "$@"')
    assert not [pair for pair in said["envs"] if "SECRET" in pair.partition("=")[0]]
    assert "entrypoints" not in dev.containers["monitor"].inputs


def test_databases_are_in_postgres_and_their_passwords_in_files(dev: Story) -> None:
    env = dict(pair.split("=", 1) for pair in dev.containers["lakefs"].inputs["envs"])
    assert env["LAKEFS_DATABASE_TYPE"] == "postgres"
    url = "postgresql://lakefs@postgres:5432/lakefs?passfile=/run/tidemill/config/pgpass-lakefs"
    assert env["LAKEFS_DATABASE_POSTGRES_CONNECTION_STRING"] == url
    files = Docker(dev.graph).files_of(Docker(dev.graph).containers["mlflow"]).inputs["files"]
    assert files["config/pgpass-mlflow-accounts"] == "*:*:*:*:@{secret:database-mlflow-accounts}\n"
    assert "database_uri = postgresql://mlflow_accounts@postgres:5432/" in files["config/basic_auth.ini"]
    script = dev.up.of(f"{NATIVE}:docker:Files")["files-database-mlflow-accounts"].inputs["files"]["config/make.sql"]
    assert "\\set password `cat /run/tidemill/secrets/database-mlflow-accounts`" in script
    assert 'CREATE DATABASE "mlflow_accounts"' in script


def test_trainings_run_in_the_runner_which_may_run_these_and_no_other(dev: Story) -> None:
    graph = Docker(dev.graph)
    settings = json.loads(graph.files_of(graph.containers["runner"]).inputs["files"]["config/settings.json"])
    assert settings["trainings"] == [{"model": "boats", "command": ["python", "train.py"], "code": "/project/code"}]
    asks = json.loads(graph.files_of(graph.containers["retraining"]).inputs["files"]["config/settings.json"])
    assert asks["launcher"] == {
        "kind": "runner",
        "url": "http://runner:8080",
        "token_file": "/run/tidemill/secrets/runner-token",
    }
    assert asks["models"][0]["code"] == "/project/code"
    assert "training" in dev.containers["runner"].inputs["image"]
    assert "runtime" in dev.containers["retraining"].inputs["image"]


def test_settings_fit_the_models_of_their_services(dev: Story) -> None:
    from tidemill.runtime.common.settings import RuntimeSettings
    from tidemill.runtime.monitor.settings import MonitorSettings
    from tidemill.runtime.retraining.runner.settings import RunnerSettings
    from tidemill.runtime.retraining.settings import RetrainingSettings
    from tidemill.runtime.serving.settings import ServingSettings
    from tidemill.runtime.validation.settings import ValidationSettings

    graph = Docker(dev.graph)
    for name, model in {
        "monitor": MonitorSettings,
        "retraining": RetrainingSettings,
        "runner": RunnerSettings,
        "serving-boats": ServingSettings,
        "validation": ValidationSettings,
    }.items():
        files = graph.files_of(graph.containers[name]).inputs["files"]
        settings = model.model_validate_json(files["config/settings.json"])
        assert (settings.listen.host, settings.listen.port) == ("0.0.0.0", 8080)  # noqa: S104 - in the container
        assert settings.listen.plain_http
        assert settings.listen.hosts == [name], "the name under which the other containers reach it"
    runtime = graph.files_of(graph.containers["runner"]).inputs["files"]["config/runtime.json"]
    assert RuntimeSettings.model_validate_json(runtime).lake.endpoint == "http://lakefs:8080"


def test_what_holds_data_and_what_opens_it_is_protected(story: Story) -> None:
    for resource in story.stack.resources():
        kind = resource["type"].rsplit(":", 1)[-1]
        assert bool(resource.get("protect")) == (kind in HELD), resource["urn"]
    volumes = set(story.up.of(f"{NATIVE}:docker:Volume"))
    assert {"postgres", "lakefs-objects", "mlflow-artifacts", "capture-boats", "prometheus"} <= volumes


def test_content_is_applied_through_the_published_port(dev: Story) -> None:
    port = dev.containers["lakefs"].inputs["ports"][0]["external"]
    assert dev.up.of(f"{NATIVE}:lakefs:Repository")["harbour"].inputs["url"] == f"http://127.0.0.1:{port}"
    gate = dev.up.of(f"{NATIVE}:lakefs:Action")["gate-harbour"].inputs["content"]
    assert "http://validation:8080/hooks/lakefs" in gate, "lakeFS asks within the network"
    env = dict(pair.split("=", 1) for pair in dev.containers["mlflow"].inputs["envs"])
    mlflow = dev.containers["mlflow"].inputs["ports"][0]["external"]
    through_tunnels = "localhost,localhost:*,127.0.0.1,127.0.0.1:*"
    assert env["MLFLOW_SERVER_ALLOWED_HOSTS"] == f"mlflow:8080,127.0.0.1:{mlflow},{through_tunnels}"


def test_a_preview_knows_names_and_not_yet_ports_and_digests(story: Story) -> None:
    assert story.preview.outcome.changes == story.up.outcome.changes
    unknown = story.preview.unknowns()
    assert "lakefs.ports[0].external" in unknown
    assert any(path.startswith("lakefs.labels") for path in unknown), "the digest of its files"
    assert "harbour.url" in unknown
    assert not [path for path in unknown if path.endswith((".image", ".name", ".memory", ".user"))]
    assert story.up.unknowns() == set()


def test_a_second_up_does_nothing(story: Story) -> None:
    assert story.again.outcome.changed == 0
    assert story.again.names("create", "update", "delete") == set()


def test_the_daemon_of_the_config_is_the_one_that_is_asked(prod: Story) -> None:
    asked = {entry.inputs.get("host") for entry in prod.up.entries if entry.package == "docker" and entry.inputs}
    assert "unix:///run/user/1000/docker.sock" in asked
    for token in (
        f"{NATIVE}:docker:Volume",
        f"{NATIVE}:docker:Files",
        f"{NATIVE}:docker:Job",
        f"{NATIVE}:docker:Bounds",
    ):
        hosts = {entry.inputs["host"] for entry in prod.up.of(token).values()}
        assert hosts == {"unix:///run/user/1000/docker.sock"}, token


def test_one_setting_changes_one_thing(dev: Story) -> None:
    stack = dev.stack
    changes = {
        # The vendor's provider changes memory in place.
        "limits": ({"docker": {"services": {"monitor": {"memory_mb": 512}}}}, {f"{CONTAINER} monitor"}, set[str]()),
        # A changed config is a new volume, which replaces the container.
        "capture": (
            {"models": {"boats": {**MODEL, "serve": {"capture": 0.5}}}},
            {f"{NATIVE}:docker:Files files-serving-boats", f"{CONTAINER} serving-boats"},
            {f"{NATIVE}:docker:Files files-serving-boats", f"{CONTAINER} serving-boats"},
        ),
    }
    # One change upon the other: the run which makes a change also tells that the one before it came to rest.
    config = DEV
    for more, touched, deleted in changes.values():
        config = {**config, **more}
        stack.write(config)
        done = stack.run("up")
        # The bound on processes goes with the container.
        also = {f"{NATIVE}:docker:Bounds bounds-serving-boats"} if deleted else set[str]()
        assert done.names("create", "update") - also == touched
        assert done.names("delete") - also == deleted
        assert done.outcome.changed == len(touched | also & done.names("create", "update"))


def test_a_secret_which_changed_reaches_the_containers_which_have_it_and_no_other(dev: Story) -> None:
    stack = dev.stack
    secret = stack.root.secrets / "monitor-token"
    before = secret.read_text()
    secret.unlink()
    fixed = stack.run("up")
    assert secret.read_text() == before, "it is kept as long as what it opens"
    assert not [name for name in fixed.names("create", "delete") if CONTAINER in name]


def test_destroy_refuses_while_there_is_data_and_deletes_everything_when_told(dev: Story) -> None:
    with pytest.raises(RefusedError, match="holds data"):
        dev.stack.run("destroy")
    gone = dev.stack.run("delete")
    assert {name for name in gone.names("delete") if CONTAINER in name} == {f"{CONTAINER} {name}" for name in SERVICES}
    assert f"{NATIVE}:docker:Volume postgres" in gone.names("delete")
    assert not dev.stack.root.path.exists()
