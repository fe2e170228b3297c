"""Attacks of a model author: versions with pickles, path traversal, links and zip bombs, and foreign locations."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import socket
import stat
import tarfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.attacks.doors import accounts, secrets
from tests.support.drill import Drill
from tests.support.platform import RunningPlatform, wait_for
from tests.support.scenario import ask, ready

AREA = "model artifacts"
MODEL = "flights"
_API = "/api/2.0/mlflow"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_BOMB_MB = 1100

Files = dict[str, bytes]


class Author:
    """A model author with the training account, and the files of the serving version."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform
        # The account that trains. Releases before accounts of jobs had one that also promotes.
        user = "training" if "training" in accounts(platform) else "retraining"
        self.api = platform.client("mlflow", user=user, secret=f"mlflow-{user}")
        self.admin = platform.client("mlflow", user="admin", secret="mlflow-admin")
        self.champion = self._get("registered-models/alias", name=MODEL, alias="champion")["model_version"]["version"]
        self.made: list[str] = []
        experiment = self._get("experiments/get-by-name", experiment_name=MODEL)["experiment"]
        self.experiment: str = experiment["experiment_id"]
        self.files = self._download()

    def register(self, files: Mapping[str, bytes]) -> str:
        """Register a version with exactly `files`, by the plain interface; return its number."""
        run = self._post("runs/create", experiment_id=self.experiment)["run"]["info"]
        root = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        for path, content in files.items():
            self.api.put(f"{_PROXY}/{root}/model/{path}", content=content).raise_for_status()
        return (
            self.version(f"{run['artifact_uri']}/model", run["run_id"])
            .raise_for_status()
            .json()["model_version"]["version"]
        )

    def version(self, source: str, run: str | None = None) -> httpx.Response:
        body = {"name": MODEL, "source": source, **({"run_id": run} if run else {})}
        answer = self.api.post(f"{_API}/model-versions/create", json=body)
        if answer.is_success:
            self.made.append(answer.json()["model_version"]["version"])
        return answer

    def alias(self, version: str) -> None:
        body = {"name": MODEL, "alias": "champion", "version": version}
        self.admin.post(f"{_API}/registered-models/alias", json=body).raise_for_status()

    def close(self) -> None:
        """Put the champion back, and delete what was registered."""
        self.alias(self.champion)
        for version in self.made:
            self.admin.request("DELETE", f"{_API}/model-versions/delete", json={"name": MODEL, "version": version})
        wait_for("the champion to be loaded", lambda: not ready(self.platform).get("error"), 60, 0.2)
        self.api.close()
        self.admin.close()

    def _download(self) -> Files:
        found = self._get("model-versions/get-download-uri", name=MODEL, version=self.champion)["artifact_uri"]
        source = self._get("model-versions/get", name=MODEL, version=self.champion)["model_version"]["source"]
        root = found if found.startswith("mlflow-artifacts:") else self._logged(source)
        base = root.removeprefix("mlflow-artifacts:").lstrip("/")
        files: Files = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            listed = self.api.get(_PROXY, params={"path": f"{base}/{folder}".rstrip("/")}).raise_for_status().json()
            for item in listed["files"]:
                path = f"{folder}/{item['path']}".lstrip("/")
                if item["is_dir"]:
                    folders.append(path)
                else:
                    files[path] = self.api.get(f"{_PROXY}/{base}/{path}").raise_for_status().content
        assert {"MLmodel"} < set(files), files.keys()
        return files

    def _logged(self, source: str) -> str:
        return self._get(f"logged-models/{source.removeprefix('models:/')}")["model"]["info"]["artifact_uri"]

    def _get(self, route: str, **params: str) -> dict[str, Any]:
        return self.api.get(f"{_API}/{route}", params=params).raise_for_status().json()

    def _post(self, route: str, **body: Any) -> dict[str, Any]:
        return self.api.post(f"{_API}/{route}", json=body).raise_for_status().json()


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _mark, (str(self._marker),)


def poisoned_versions(platform: RunningPlatform, drill: Drill, tmp_path: Path) -> None:
    """Make versions with harmful artifacts champion: none is loaded, none runs code, and the old version serves."""
    _poison(platform, drill, tmp_path, _hidden)


def plainly_poisoned_versions(platform: RunningPlatform, drill: Drill, tmp_path: Path) -> None:
    """Do the same with versions whose `MLmodel` file is harmful."""
    _poison(platform, drill, tmp_path, _plain)


def _poison(
    platform: RunningPlatform,
    drill: Drill,
    folder: Path,
    poisons: Callable[[Files, Path], Iterator[tuple[str, Files]]],
) -> None:
    marker = folder / "executed"
    with _author(platform) as author:
        serving, answer = ready(platform)["version"], ask(platform)["predictions"]
        process = platform.running()["serving-flights"]
        for what, files in poisons(author.files, marker):
            marker.unlink(missing_ok=True)
            with drill(AREA, what) as attack:
                version = author.register(files)
                author.alias(version)
                state = wait_for(
                    f"{what} to be refused or loaded", lambda n=version: _tried(platform, n, serving), 120, 0.1
                )
                attack.tried("not loaded", state["version"] == serving, state)
                attack.tried("no code was run", not marker.exists())
                now = ask(platform)
                attack.tried("the old version answers", now["predictions"] == answer, now)
                told = json.dumps(state)
                attack.tried("no secret in the reason", not [v for v in secrets(platform).values() if v in told])
                attack.tried("the same process", platform.running()["serving-flights"] == process)


def places_of_artifacts(platform: RunningPlatform, drill: Drill) -> None:
    """Write and read artifacts outside the store, and register versions from elsewhere."""
    name = f"forged-{uuid.uuid4().hex[:8]}"
    with _author(platform) as author:
        root = author.experiment
        with drill(AREA, "uploads outside the store") as attack:
            for path in _escapes(name):
                for method in ("PUT", "GET", "DELETE"):
                    answer = author.api.request(method, f"{_PROXY}/{path}", content=b"forged")
                    attack.tried(f"{method} {path}", answer.status_code >= 400, answer.status_code)
            for path in (root, f"{root}/..", "..", "/", ""):
                listed = author.api.get(_PROXY, params={"path": f"{path}/../../../secrets"})
                attack.tried(f"list {path}", b"mlflow-admin" not in listed.content, listed.content)
            attack.tried("no file", not list(platform.project.rglob(f"*{name}*")))
        with drill(AREA, "versions and experiments with other places") as attack:
            folder = platform.root.secrets
            for place in (f"file://{folder}", str(folder), f"{folder}/../secrets", "file:///etc", f"dbfs:/{folder}",
                          "mlflow-artifacts:/../secrets", "mlflow-artifacts:/%2e%2e/secrets", f"models:/../{MODEL}/1",
                          "http://127.0.0.1:1/x", f"runs:/../../{folder}"):  # fmt: skip
                answer = author.version(place)
                attack.tried(f"a version of {place}", answer.status_code >= 400, answer.text)
                for user, secret in accounts(platform).items():
                    with platform.client("mlflow", user=user, secret=secret) as client:
                        created = client.post(
                            f"{_API}/experiments/create",
                            json={"name": f"{name}-{uuid.uuid4().hex}", "artifact_location": place},
                        )
                    if created.is_success:
                        author.admin.post(f"{_API}/experiments/delete", json=created.json())
                    attack.tried(f"an experiment of {user} at {place}", created.status_code >= 400, created.text)


def _escapes(name: str) -> list[str]:
    parents = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..%5c", "..%c0%af", "....//", "%2e%2e%5c")
    found = [f"{parent * depth}{name}" for parent in parents for depth in (1, 6)]
    return [*found, f"/{name}/../../{name}", f"%2ftmp%2f{name}", f"file:%2f%2f%2ftmp%2f{name}", f"x%00/../{name}"]


def _hidden(good: Files, marker: Path) -> Iterator[tuple[str, Files]]:
    stored = str(yaml.safe_load(good["MLmodel"])["flavors"]["sklearn"]["pickled_model"])
    yield "a pickle under the name of another format", {**good, stored: pickle.dumps(Payload(marker))}
    yield "links and paths in the archive", {**good, stored: _archive(marker)}
    yield "a zip bomb", {**good, stored: _bomb()}


def _plain(good: Files, marker: Path) -> Iterator[tuple[str, Files]]:
    mlmodel: dict[str, Any] = yaml.safe_load(good["MLmodel"])
    flavor, function = mlmodel["flavors"]["sklearn"], mlmodel["flavors"]["python_function"]

    def described(sklearn: dict[str, Any], python: dict[str, Any], **files: bytes) -> Files:
        made = {**mlmodel, "flavors": {"sklearn": {**flavor, **sklearn}, "python_function": {**function, **python}}}
        return {**good, "MLmodel": yaml.safe_dump(made).encode(), **files}

    yield (
        "a pickle",
        described(
            {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"},
            {"model_path": "model.pkl"},
            **{"model.pkl": pickle.dumps(Payload(marker))},
        ),
    )
    yield (
        "an object in YAML",
        {
            **good,
            "MLmodel": good["MLmodel"] + f"\nx: !!python/object/apply:os.system ['touch {marker}']\n".encode(),
        },
    )
    yield "a path outside", described({"pickled_model": f"../../../../{marker}"}, {"model_path": f"../../{marker}"})
    yield "trust in everything", described({"skops_trusted_types": ["os.system", "builtins.eval"]}, {})
    yield "a loader of its own", described({}, {"loader_module": "os", "data": "model.skops"})
    yield (
        "a source archive in its requirements",
        {
            **good,
            "requirements.txt": good["requirements.txt"] + b"\n./forged-1.0.tar.gz\n",
            "forged-1.0.tar.gz": _source_archive(marker),
        },
    )
    with _index(marker) as url:
        line = f"\n--extra-index-url {url}\nforged==1.0\n"
        yield "an index in its requirements", {**good, "requirements.txt": good["requirements.txt"] + line.encode()}


@contextmanager
def _index(marker: Path) -> Generator[str]:
    """Listen as an index of packages, and write a file when someone asks."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.close()
                marker.write_text("asked")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def _archive(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps({"__class__": "system", "__module__": "os", "__loader__": "x"}))
        archive.writestr(f"../../../../../..{marker}", "forged")
        link = zipfile.ZipInfo("schema")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def _bomb() -> bytes:
    buffer = io.BytesIO()
    block = b" " * 2**20
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("schema.json", "w") as stream,
    ):
        for _ in range(_BOMB_MB):
            stream.write(block)
    return buffer.getvalue()


def _source_archive(marker: Path) -> bytes:
    """Return a source distribution without build requirements, whose build writes a file."""
    backend = f"from pathlib import Path\nPath({str(marker)!r}).write_text('executed')\n"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "forged"\nbackend-path = ["."]\n',
        "forged.py": backend,
        "setup.py": backend,
        "PKG-INFO": "Metadata-Version: 2.1\nName: forged\nVersion: 1.0\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"forged-1.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _mark(path: str) -> None:
    Path(path).write_text("executed")


def _tried(platform: RunningPlatform, version: str, serving: str) -> dict[str, Any] | None:
    """Return the model server's state once it has refused or loaded `version`."""
    state = ready(platform)
    refused = f"version {version} " in state.get("error", "")
    return state if refused or state.get("version") != serving else None


@contextmanager
def _author(platform: RunningPlatform) -> Generator[Author]:
    author = Author(platform)
    try:
        yield author
    finally:
        author.close()
