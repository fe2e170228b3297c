"""A training run from the gated lake into a real registry, with the permissions which the platform gives to jobs."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from tidemill.runtime import data, registry, training
from tidemill.runtime.common.errors import ConfigError, NotFoundError, PlatformError, UnreachableError
from tidemill.runtime.common.settings import PromoteSettings, RegistrySettings, RuntimeSettings
from tidemill.runtime.drift.profile import Profile
from tidemill.runtime.monitor.references import References
from tidemill.runtime.serving.settings import ServingSettings
from tidemill.runtime.serving.versions.model import VersionInfo
from tidemill.runtime.serving.versions.source import source_of
from tidemill.stacks.flights import departures

from tests.support.accounts import Accounts, create_accounts
from tests.support.gate import PROJECT, GatedLake, gated_lake
from tests.support.servers import mlflow_server

pytestmark = [
    pytest.mark.integration,
    # MLflow says so of its own classes when they are imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

MODEL = "flights"


@dataclass
class Platform:
    lake: GatedLake
    accounts: Accounts
    settings: RuntimeSettings
    file: Path

    def train(self, job: str) -> subprocess.CompletedProcess[str]:
        """Run the sample team's training script as a job does."""
        return subprocess.run(
            [sys.executable, "train.py"],
            cwd=PROJECT / "stacks/flights",
            env={**os.environ, "TIDEMILL_RUNTIME": str(self.file), "TIDEMILL_JOB_ID": job},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def registry(self) -> RegistrySettings:
        """The registry with the account of jobs."""
        return self.settings.registry

    @property
    def promoter(self) -> RegistrySettings:
        """The registry with the account of the retraining service."""
        return self.accounts.settings("retraining")


@pytest.fixture(scope="module")
def platform_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("training")
    with gated_lake(folder / "lake") as lake, mlflow_server(folder / "mlflow") as mlflow:
        accounts = create_accounts(mlflow, folder / "secrets", MODEL)
        settings = RuntimeSettings.model_validate(
            {
                "stack": "flights-test",
                "lake": lake.settings.model_dump(),
                "registry": accounts.settings("training").model_dump(mode="json"),
                "models": {MODEL: {"data": "flights/main/departures", "target": departures.TARGET}},
            }
        )
        file = folder / "runtime.json"
        file.write_text(settings.model_dump_json())
        data.add(
            departures.month_frame(1).head(9000),
            "flights/main/departures/2013-01.parquet",
            message="January",
            lake=lake.settings,
        )
        yield Platform(lake, accounts, settings, file)


@pytest.fixture(scope="module")
def trained(platform_parts: Platform) -> registry.ModelVersion:
    done = platform_parts.train("job-1")
    assert done.returncode == 0, done.stderr
    password = platform_parts.registry.password_file.read_text()
    assert password not in done.stdout + done.stderr
    found = registry.version_of_job(MODEL, "job-1", registry=platform_parts.registry)
    assert found
    return found


def artifact(platform: Platform, run_id: str, path: str) -> bytes:
    import mlflow

    registry.connect(platform.registry)
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path)).read_bytes()


def test_a_version_leads_back_to_its_data_code_and_environment(
    platform_parts: Platform, trained: registry.ModelVersion
) -> None:
    newest = data.newest_validated("flights/main/departures", lake=platform_parts.lake.settings)
    git = ["git", "-C", str(PROJECT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    assert trained.tags["tidemill.lake.repository"] == "flights"
    assert trained.tags["tidemill.lake.commit"] == newest
    assert trained.tags["tidemill.lake.path"] == "departures"
    assert trained.tags["tidemill.git.commit"] == (commit or "none")
    assert trained.tags["tidemill.git.dirty"] in ("true", "false", "none")
    assert trained.tags["tidemill.job.id"] == "job-1"
    assert trained.tags["tidemill.command"].endswith(" train.py")
    run = registry.connect(platform_parts.registry).get_run(trained.run_id)
    assert {key: run.data.tags[key] for key in trained.tags} == dict(trained.tags)
    lines = artifact(platform_parts, trained.run_id, "tidemill/environment.txt").decode().splitlines()
    assert any(line.startswith("scikit-learn==") for line in lines)


def test_the_contract_names_types_and_gives_probabilities(
    platform_parts: Platform, trained: registry.ModelVersion
) -> None:
    import mlflow

    registry.connect(platform_parts.registry)
    loaded = mlflow.pyfunc.load_model(f"models:/{MODEL}/{trained.version}")
    inputs = {column.name: column for column in loaded.metadata.get_input_schema().inputs}
    assert list(inputs) == list(departures.FEATURES)
    assert {name: inputs[name].type.name for name in ("hour", "carrier", "temp")} == {
        "hour": "double",
        "carrier": "string",
        "temp": "double",
    }
    assert inputs["hour"].required
    assert not inputs["pressure"].required, "the weather is not always known"
    assert loaded.metadata.flavors["sklearn"]["serialization_format"] == "skops"
    row = {"hour": 17.0, "distance": 719.0, "weekday": 4.0, "carrier": "B6", "origin": "JFK"}
    answer = loaded.predict(pd.DataFrame([{**row, **dict.fromkeys(departures.FEATURES[5:], np.nan)}]))
    assert answer.shape == (1, 2)
    assert answer.sum() == pytest.approx(1.0)
    assert 0.0 < answer[0, 1] < 1.0


def test_the_reference_is_what_the_model_was_fitted_on(
    platform_parts: Platform, trained: registry.ModelVersion
) -> None:
    frame = departures.month_frame(1).head(9000)
    profile = Profile.from_json(artifact(platform_parts, trained.run_id, training.PROFILE_ARTIFACT).decode())
    assert (profile.rows, list(profile.columns)) == (9000, list(departures.FEATURES))
    temp, origin = profile.columns["temp"], profile.columns["origin"]
    assert temp.kind == "numeric"
    assert temp.mean == pytest.approx(frame["temp"].mean())
    assert temp.nulls == frame["temp"].isna().sum()
    assert origin.kind == "categorical"
    assert dict(origin.categories) == frame["origin"].value_counts().to_dict()
    sample = pd.read_parquet(io.BytesIO(artifact(platform_parts, trained.run_id, training.SAMPLE_ARTIFACT)))
    assert list(sample.columns) == [*departures.FEATURES, training.PREDICTION]
    assert len(sample) == training.SAMPLE_ROWS
    assert sample[training.PREDICTION].between(0, 1).all()
    assert sample[training.PREDICTION].nunique() > 100


def test_promotion_moves_the_aliases_and_keeps_the_way_back(
    platform_parts: Platform, trained: registry.ModelVersion
) -> None:
    ours = platform_parts.promoter
    assert registry.serving_version(MODEL, registry=ours) is None
    refused = registry.promote(MODEL, trained.version, PromoteSettings(at_least=0.99), registry=ours)
    assert not refused.accepted
    assert "below the minimum of 0.9900" in refused.reasons[0]
    unknown = registry.promote(MODEL, trained.version, PromoteSettings(metric="nonsense"), registry=ours)
    assert (unknown.accepted, unknown.value) == (False, None)
    assert registry.serving_version(MODEL, registry=ours) is None, "a no moves nothing"

    gate = PromoteSettings(metric="roc_auc", at_least=0.55)
    for _ in range(2):
        verdict = registry.promote(MODEL, trained.version, gate, registry=ours)
        assert (verdict.accepted, verdict.previous) == (True, None)
    tags = registry.version(MODEL, trained.version, registry=ours).tags
    assert (tags["tidemill.gate.verdict"], json.loads(tags["tidemill.gate.reasons"])) == (
        "accepted",
        list(verdict.reasons),
    )

    assert platform_parts.train("job-2").returncode == 0
    second = registry.version_of_job(MODEL, "job-2", registry=ours)
    assert second
    for _ in range(2):
        assert registry.promote(MODEL, second.version, gate, registry=ours).accepted
        champion = registry.serving_version(MODEL, registry=ours)
        previous = registry.serving_version(MODEL, registry.PREVIOUS, registry=ours)
        assert champion
        assert previous
        assert (champion.version, previous.version) == (second.version, trained.version)


def test_each_account_does_its_own_job(
    platform_parts: Platform, trained: registry.ModelVersion, tmp_path: Path
) -> None:
    """Training code cannot promote, and the model server and the monitor need no more than they have."""
    gate = PromoteSettings(metric="roc_auc", at_least=0.55)
    with pytest.raises(PlatformError, match=r"the account training \(roles: training\) may not use POST /api"):
        registry.promote(MODEL, trained.version, gate, registry=platform_parts.registry)
    with pytest.raises(PlatformError, match=r"may not use POST /api/2\.0/mlflow/registered-models/alias"):
        registry.set_alias(MODEL, "champion", trained.version, registry=platform_parts.registry)
    with (
        pytest.raises(NotFoundError, match="run `tidemill up`"),
        training.run("unknown", settings=platform_parts.settings, code=PROJECT),
    ):
        pass
    registry.set_alias(MODEL, "canary", trained.version, registry=platform_parts.promoter)
    serving = ServingSettings.model_validate(
        {
            "listen": {"port": 1, "token_file": str(tmp_path / "token")},
            "model": MODEL,
            "cache": str(tmp_path / "cache"),
            "registry": platform_parts.accounts.settings("serving").model_dump(mode="json"),
        }
    )
    found = registry.serving_version(MODEL, "canary", registry=serving.registry)
    assert found
    assert (found.version, found.tags["tidemill.account"]) == (trained.version, "training")
    info = VersionInfo(MODEL, found.version, "canary", found.source, found.run_id, dict(found.tags))
    fetched = source_of(serving, "canary").fetch(info)
    assert (fetched / "reference_sample.parquet").is_file()
    assert json.loads((fetched / "version.json").read_text())["metrics"]["roc_auc"] > 0.5
    references = References(platform_parts.accounts.settings("monitor"), tmp_path / "references")
    watched = references.serving(MODEL, "canary")
    assert watched
    assert references.load(watched).profile.rows == 9000


def test_a_model_with_unnamed_types_is_not_registered(platform_parts: Platform) -> None:
    frame = departures.month_frame(2).head(50)
    features, target = frame[["hour", "distance"]], frame[departures.TARGET]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, target)
    shady = make_pipeline(FunctionTransformer(_shady), LogisticRegression()).fit(features, target)
    with training.run(MODEL, settings=platform_parts.settings, code=PROJECT) as run:
        made = run.log_model(model, features=features)
    assert made.tags["tidemill.lake.commit"] == "none", "no data was read from the lake"
    with (
        pytest.raises(ConfigError, match="_shady"),
        training.run(MODEL, settings=platform_parts.settings, code=PROJECT) as run,
    ):
        run.log_model(shady, features=features)
    client = registry.connect(platform_parts.registry)
    assert client.get_run(run.run_id).info.status == "FAILED"
    newest = max(int(item.version) for item in client.search_model_versions(f"name = '{MODEL}'"))
    assert newest == int(made.version)


def _shady(values: Any) -> Any:
    return values


def test_a_run_reads_one_commit(platform_parts: Platform) -> None:
    with training.run(MODEL, settings=platform_parts.settings, code=PROJECT) as run:
        first = run.read()
        assert run.read().commit == first.commit
        with pytest.raises(ConfigError, match="already read"):
            run.read("flights/main/departures/2013-01.parquet")


def test_a_dead_registry_and_an_unknown_version_are_told_apart(platform_parts: Platform) -> None:
    with pytest.raises(NotFoundError):
        registry.promote(MODEL, "999", PromoteSettings(), registry=platform_parts.promoter)
    gone = platform_parts.registry.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(UnreachableError):
        registry.serving_version(MODEL, registry=gone)
