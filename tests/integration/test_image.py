"""Images which serve one model version, built and run by a real Docker daemon where one runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tidemill.runtime.serving.isolation.environment import find_uv

from tests.support.archives import source_archive
from tests.support.docker import Docker, base_image, docker_daemon
from tests.support.foreign import foreign_environment, log_pipeline
from tests.support.serving import small_pipeline

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BIN = Path(sys.prefix) / "bin"
# Whatever a tag of the registry holds gets into the image as it is, and no further.
COMMIT = 'c0ffee "$HOME" \\ and; RUN more'


def image(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(find_uv()[0]).parent), environ.pop("PATH", os.environ["PATH"])]
    return subprocess.run(
        [str(BIN / "tidemill"), "image", *arguments],
        env={**os.environ, **environ, "PATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )


def as_fetched(folder: Path, model: str) -> Path:
    """Let `folder`, which holds `model/`, say that it is version 3 out of a registry."""
    info = {
        "model": model,
        "version": "3",
        "alias": "champion",
        "source": "models:/3",
        "run_id": "run",
        "metrics": {},
        "tags": {"tidemill.git.commit": COMMIT, "tidemill.lake.commit": "decade"},
    }
    (folder / "version.json").write_text(json.dumps(info))
    return folder / "model"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model which asks for what this environment has."""
    import mlflow.sklearn
    from mlflow.models import infer_signature

    pipeline, frame = small_pipeline(1)
    names = ("scikit-learn", "numpy", "pandas", "skops")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            pipeline,
            tmp_path / "own" / "model",
            signature=infer_signature(frame, pipeline.predict_proba(frame)),
            serialization_format="skops",
            pip_requirements=[f"{name}=={version(name)}" for name in names],
        )
    return as_fetched(tmp_path / "own", "flights")


def test_what_goes_with_the_server_is_locked_with_it_and_left_where_no_daemon_is(own: Path, tmp_path: Path) -> None:
    # A docker command which reaches no daemon is as good as none.
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path / 'nowhere'}"}
    context = tmp_path / "context"
    secret = {"PIP_INDEX_URL": "https://user:hidden-from-it@example.org/simple"}
    done = image(str(own), "--name", "flights", "--context", str(context), "--no-compile", **nowhere, **secret)
    assert done.returncode == 3, done.stderr
    assert f"docker build --tag tidemill/flights:3 {context}" in done.stderr
    assert not (context / "model.lock").exists()
    locked = (context / "server.lock").read_text().replace("\\\n", "").splitlines()
    assert f"scikit-learn=={version('scikit-learn')}" in {line.split(" ")[0] for line in locked}
    assert all("--hash=sha256:" in line for line in locked)
    assert any(line.startswith("fastapi==") for line in locked)
    assert not any(line.startswith(("onnxruntime==", "tidemill", "mlflow==")) for line in locked)
    assert len(list(context.glob("tidemill-*.whl"))) == 1
    assert not any(b"hidden-from-it" in path.read_bytes() for path in context.rglob("*") if path.is_file())
    settings = json.loads((context / "settings.json").read_text())
    assert settings["listen"]["tls_key_file"] == "/run/secrets/tidemill-tls-key"
    assert json.loads((context / "version" / "version.json").read_text())["version"] == "3"


def test_no_source_archive_runs_while_requirements_are_locked(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, ran = source_archive(tmp_path)
    kept = (own / "requirements.txt").read_text()
    context = tmp_path / "context"
    monkeypatch.setenv("UV_FIND_LINKS", str(archive.parent))  # the platform's index has it, but no wheel of it
    for line in (archive.as_posix(), f"--find-links {archive.parent}", "tidemill-tests-odd==1.0"):
        (own / "requirements.txt").write_text(f"{kept}\n{line}\n")
        done = image(str(own), "--name", "flights", "--context", str(context), "--no-compile", "--no-build")
        assert done.returncode == 3, line
        assert "tidemill-tests-odd" in done.stderr or str(archive.parent) in done.stderr
        assert not ran.exists(), line
        assert list(context.iterdir()) == []


def test_what_cannot_be_locked_is_said_and_leaves_nothing(own: Path, tmp_path: Path) -> None:
    (own / "requirements.txt").write_text("numpy==1.99999\n")
    done = image(str(own), "--name", "flights", "--context", str(tmp_path / "context"), "--no-build")
    assert done.returncode == 3
    assert "numpy==1.99999" in done.stderr
    assert list((tmp_path / "context").iterdir()) == []


@pytest.mark.timeout(1800)
def test_an_image_serves_its_version_without_a_network(tmp_path: Path) -> None:
    with docker_daemon() as docker:
        foreign = foreign_environment(tmp_path / "seed")
        (tmp_path / "3").mkdir()
        known = log_pipeline(foreign, tmp_path / "3" / "model")
        model = as_fetched(tmp_path / "3", "flights")
        base = base_image(docker)
        done = image(
            *(str(model), "--name", "flights", "--tag", "tidemill-tests-flights:3", "--plain-http"),
            *(["--base", base, "--build-option=--network=host"] if base else []),
            **dict(docker.environ),
        )
        assert done.returncode == 0, done.stderr[-6000:]
        assert "its own environment" in done.stderr
        try:
            _look_at(docker)
            _serve(docker, tmp_path, known)
        finally:
            docker.run("image", "rm", "--force", "tidemill-tests-flights:3", check=False)


def _look_at(docker: Docker) -> None:
    [found] = json.loads(docker.run("image", "inspect", "tidemill-tests-flights:3"))
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["tidemill.git.commit"] == COMMIT == config["Labels"]["org.opencontainers.image.revision"]
    assert config["Labels"]["tidemill.lake.commit"] == "decade"
    assert (config["Labels"]["tidemill.model"], config["Labels"]["tidemill.version"]) == ("flights", "3")
    assert config["Healthcheck"]["Test"][0] == "CMD"
    # What let the build reach the indexes is in no layer.
    history = docker.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", "tidemill-tests-flights:3")
    assert "src=" not in history
    inside = ["--rm", "--entrypoint", "/bin/sh", "--network", "none", "tidemill-tests-flights:3", "-c"]
    assert docker.run("run", *inside, "ls -A /run/secrets 2>/dev/null; id -u") == "10001"


_ASK = """
import json, sys, time, urllib.error, urllib.request
key = open("/run/secrets/tidemill-key").read().strip()
def call(path, body=None):
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    request = urllib.request.Request("http://127.0.0.1:8080" + path, body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
rows = json.loads(sys.argv[1])
end = time.monotonic() + 300
while True:
    try:
        ready = call("/readyz")
        break
    except OSError:
        assert time.monotonic() < end
        time.sleep(0.5)
body = json.dumps({"dataframe_split": {"columns": ["distance", "carrier"], "data": rows}}).encode()
print(json.dumps([ready, call("/invocations", body)]))
"""


def _serve(docker: Docker, folder: Path, known: dict[str, Any]) -> None:
    key = folder / "key"
    key.write_text("key-of-the-test-" + "0" * 32)
    key.chmod(0o444)  # the user of the container reads it
    container = docker.run(
        *("run", "--detach", "--network", "none", "--read-only", "--cap-drop", "ALL"),
        *("--tmpfs", "/tmp", "--tmpfs", "/var/lib/tidemill:uid=10001,gid=10001"),  # noqa: S108 - the container's own
        *("--volume", f"{key}:/run/secrets/tidemill-key:ro", "tidemill-tests-flights:3"),
    )
    try:
        python = "/opt/tidemill/server/bin/python"
        said = docker.run("exec", container, python, "-c", _ASK, json.dumps(known["rows"]))
        ready, answer = json.loads(said)
        assert (ready["version"], ready["git_commit"], ready["lake_commit"]) == ("3", COMMIT, "decade")
        assert [late for _, late in answer["predictions"]] == known["scores"]
        assert answer["version"] == "3"
        end = time.monotonic() + 120
        while (health := docker.run("inspect", "--format", "{{.State.Health.Status}}", container)) != "healthy":
            assert time.monotonic() < end, health
            time.sleep(1)
        docker.run("stop", "--time", "30", container)
        assert docker.run("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    except AssertionError as error:
        raise AssertionError(f"{error}\n{docker.run('logs', container, check=False)[-4000:]}") from error
    finally:
        docker.run("rm", "--force", container, check=False)
