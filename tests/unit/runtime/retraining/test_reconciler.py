"""The rules of retraining, with fakes of the lake, the registry and the jobs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tidemill.runtime.common.errors import UnreachableError
from tidemill.runtime.retraining.jobs.launcher import JobSpec, JobStatus
from tidemill.runtime.retraining.platform import Platform, Version
from tidemill.runtime.retraining.reconciler import Retrainer
from tidemill.runtime.retraining.retrainings import FILE, Retraining, RetrainingStore, VerdictRecord
from tidemill.runtime.retraining.settings import RetrainedModel


class FakePlatform(Platform):
    """A platform in the state that the test gives it."""

    def __init__(self) -> None:
        self.aliases: dict[str, Version] = {}
        self.newest: str | None = "data-1"
        self.of_job: dict[str, Version] = {}
        self.verdict = VerdictRecord(accepted=True, reasons=["good enough"])
        self.down = False
        self.refused: set[str | None] = set()

    def version_by_alias(self, model: str, alias: str) -> Version | None:
        if self.down:
            raise UnreachableError("the registry does not answer")
        return self.aliases.get(alias)

    def version_of_job(self, model: str, job: str) -> Version | None:
        return self.of_job.get(job)

    def newest_validated(self, address: str) -> str | None:
        return self.newest

    def trained_on_validated_data(self, version: Version) -> bool:
        return version.data_commit not in self.refused

    def newer_data(self, address: str, old: str, new: str) -> bool:
        return old != new

    def promote(self, model: str, version: str, gate: Any) -> VerdictRecord:
        if self.verdict.accepted:
            self.aliases["champion"] = Version(version, self.newest)
        return self.verdict

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.aliases[alias] = Version(version)


class Jobs:
    def __init__(self) -> None:
        self.specs: list[JobSpec] = []
        self.states: dict[str, JobStatus] = {}
        self.cancelled: list[str] = []

    def launch(self, spec: JobSpec) -> str:
        self.specs.append(spec)
        self.states[spec.id] = JobStatus("running", 1.0e12)
        return spec.id

    def status(self, job: str) -> JobStatus:
        return self.states.get(job, JobStatus("unknown"))

    def logs(self, job: str, lines: int = 20) -> str:
        return "ValueError: no such column"

    def where(self, job: str) -> str:
        return f"/logs/{job}"

    def cancel(self, job: str) -> None:
        self.cancelled.append(job)
        self.states[job] = JobStatus("lost", 1.0)


class Scene:
    def __init__(self, folder: Path, **model: Any) -> None:
        self.folder = folder
        self.platform, self.jobs = FakePlatform(), Jobs()
        values: dict[str, Any] = {
            "name": "flights", "code": folder, "command": ["python", "train.py"], "data": "flights/main/departures",
        } | model  # fmt: skip
        self.model = RetrainedModel.model_validate(values)
        self.store = RetrainingStore(folder / FILE)
        self.retrainer = self.service()

    def service(self) -> Retrainer:
        models = {"flights": self.model}
        runtime = self.folder / "runtime.json"
        return Retrainer(models, runtime=runtime, store=self.store, launcher=self.jobs, platform=self.platform)

    def fire(self, reason: str = "no-champion", **more: Any):
        return self.retrainer.fire("flights", reason, why="it fires", **more)

    def step(self) -> Retraining:
        self.retrainer._next_check.clear()
        self.retrainer.step()
        return self.retraining

    @property
    def retraining(self) -> Retraining:
        return self.store.newest()[0]

    def end(self, code: int = 0, version: str | None = "1") -> Retraining:
        """End the running job; return the retraining when it is closed."""
        job = self.retraining.job
        assert job
        self.jobs.states[job] = JobStatus("exited", 1.0, code)
        if version:
            self.platform.of_job[job] = Version(version, self.platform.newest, "git-1")
        self.step()
        return self.step()

    def age(self, seconds: float) -> None:
        """Let the newest retraining have ended `seconds` earlier."""
        finished = self.retraining.finished_at
        assert finished
        self.store.save(self.retraining.model_copy(update={"finished_at": finished - timedelta(seconds=seconds)}))


@pytest.fixture
def scene(tmp_path: Path):
    made = Scene(tmp_path)
    yield made
    made.store.close()


def test_no_champion_trains_judges_and_promotes(scene: Scene) -> None:
    assert scene.fire().queued
    assert scene.step().state == "running"
    (spec,) = scene.jobs.specs
    assert spec.env["TIDEMILL_JOB_ID"] == spec.id == scene.retraining.id
    retraining = scene.end()
    assert (retraining.state, retraining.version, retraining.data_commit, retraining.git_commit) == (
        "done",
        "1",
        "data-1",
        "git-1",
    )
    assert retraining.verdict == scene.platform.verdict
    assert scene.store.outcomes() == [("flights", "no-champion", "done", 1)]


def test_an_alert_sent_again_opens_no_second_retraining(scene: Scene) -> None:
    scene.fire()
    assert not scene.fire().queued
    scene.step()
    assert not scene.fire("drift").queued
    assert len(scene.store.newest()) == 1


def test_a_champion_meanwhile_ends_the_retraining_without_a_job(scene: Scene) -> None:
    scene.fire()
    scene.platform.aliases["champion"] = Version("7")
    retraining = scene.step()
    assert (retraining.state, retraining.detail) == ("done", "the model already has a champion, version 7")
    assert not scene.jobs.specs
    assert scene.store.outcomes() == []


def test_drift_waits_for_newer_data_then_trains_and_cools_down(scene: Scene) -> None:
    scene.platform.aliases["champion"] = Version("1", "data-1")
    scene.fire("drift", served="1")
    retraining = scene.step()
    assert retraining.state == "waiting"
    assert "data-1" in retraining.detail
    assert not scene.jobs.specs
    scene.platform.newest = "data-2"
    assert scene.step().state == "running"
    assert scene.end(version="2").state == "done"
    assert not scene.fire("drift", served="2").queued
    scene.age(scene.model.cooldown + 1)
    assert scene.fire("drift", served="2").queued


def test_drift_of_a_version_which_no_longer_serves_trains_nothing(scene: Scene) -> None:
    scene.platform.aliases["champion"] = Version("2", "data-1")
    scene.platform.newest = "data-2"
    scene.fire("drift", served="1")
    assert scene.step().state == "done"
    assert not scene.jobs.specs


def test_the_first_training_starts_no_cooldown_of_drift(scene: Scene) -> None:
    scene.fire()
    scene.step()
    scene.end()
    assert scene.fire("drift", served="1").queued


def test_failures_are_tried_again_later_and_later(scene: Scene) -> None:
    for delay in (5, 10, 20):
        assert scene.fire().queued
        scene.step()
        retraining = scene.end(code=3, version=None)
        assert (retraining.state, retraining.detail) == ("failed", "exit code 3: ValueError: no such column")
        scene.age(delay - 2)
        assert not scene.fire().queued
        scene.age(2)
    assert scene.fire().queued


def test_a_refused_version_is_a_refused_retraining_with_the_reasons(scene: Scene) -> None:
    scene.platform.verdict = VerdictRecord(accepted=False, reasons=["roc_auc is 0.4000, below the minimum of 0.6500"])
    scene.fire()
    scene.step()
    retraining = scene.end()
    assert retraining.state == "refused"
    assert "0.4000" in retraining.detail
    assert "champion" not in scene.platform.aliases


@pytest.mark.parametrize("promotion", ["automatic", "manual"])
def test_a_version_that_was_trained_on_unvalidated_data_gets_no_alias(tmp_path: Path, promotion: str) -> None:
    scene = Scene(tmp_path, promotion=promotion)
    scene.platform.refused = {scene.platform.newest}
    scene.fire()
    scene.step()
    retraining = scene.end()
    assert retraining.state == "refused"
    assert "not trained on data that passed the gate" in retraining.detail
    assert not scene.platform.aliases


def test_a_job_which_registers_nothing_has_failed(scene: Scene) -> None:
    scene.fire()
    scene.step()
    assert scene.end(version=None).state == "failed"


def test_manual_promotion_stops_at_challenger_and_trains_no_second_one(tmp_path: Path) -> None:
    scene = Scene(tmp_path, promotion="manual")
    scene.fire()
    scene.step()
    assert scene.end(version="4").state == "done"
    assert set(scene.platform.aliases) == {"challenger"}
    assert scene.fire().queued
    assert "version 4 of flights is the challenger; to promote it" in scene.step().detail
    assert len(scene.jobs.specs) == 1
    scene.store.close()


def test_a_lost_job_is_launched_once_more_and_no_more(scene: Scene) -> None:
    scene.fire()
    first = scene.step().job
    scene.jobs.states[first or ""] = JobStatus("lost", 1.0)
    scene.step()
    second = scene.step().job
    assert second == f"{first}-2"
    scene.jobs.states[second or ""] = JobStatus("lost", 1.0)
    assert scene.step().state == "failed"
    assert len(scene.jobs.specs) == 2


def test_a_service_killed_before_or_after_the_launch_has_one_job(scene: Scene) -> None:
    scene.fire()
    scene.step()
    job = scene.retraining.job
    scene.retrainer = scene.service()
    scene.step()
    assert len(scene.jobs.specs) == 1, "it runs, so it is found"
    del scene.jobs.states[job or ""]
    scene.retrainer = scene.service()
    scene.step()
    assert [spec.id for spec in scene.jobs.specs] == [job, job], "killed between the record and the launch"


def test_a_stop_ends_the_job_and_the_retraining_goes_on_afterwards(scene: Scene) -> None:
    scene.fire()
    job = scene.step().job
    scene.retrainer.interrupt()
    assert scene.jobs.cancelled == [job]
    assert scene.retraining.state == "queued"
    scene.retrainer = scene.service()
    assert scene.step().state == "running"
    assert scene.retraining.attempt == 1, "a stop is not the job's failure"
    assert scene.end().state == "done"


def test_a_job_past_its_time_is_ended(scene: Scene) -> None:
    scene.fire()
    job = scene.step().job or ""
    scene.jobs.states[job] = JobStatus("running", 1.0)
    retraining = scene.step()
    assert (retraining.state, scene.jobs.cancelled) == ("failed", [job])


def test_an_unreachable_registry_delays_and_fails_nothing(scene: Scene) -> None:
    scene.fire()
    scene.platform.down = True
    assert scene.step().state == "queued"
    assert "does not answer" in scene.retraining.detail
    scene.platform.down = False
    assert scene.step().state == "running"


def test_a_resolved_alert_is_recorded_on_its_own_retraining(scene: Scene) -> None:
    scene.platform.aliases["champion"] = Version("1", "data-0")
    scene.fire("drift", served="1")
    scene.step()
    assert scene.retrainer.resolve("flights", "drift", served="2").retraining is None
    assert scene.retrainer.resolve("flights", "drift", served="1").retraining == scene.retraining.id
    assert scene.retraining.resolved_at is not None
    assert scene.end(version="2").resolved_at is not None, "what the worker writes does not undo it"
    assert len(scene.store.newest()) == 1


@pytest.mark.parametrize(("model", "reason"), [("other", "drift"), ("flights", "moon"), ("flights", "drift")])
def test_what_is_no_trigger_leads_to_nothing(tmp_path: Path, model: str, reason: str) -> None:
    scene = Scene(tmp_path, triggers=["no-champion"])
    assert not scene.retrainer.fire(model, reason, why="").queued
    assert scene.store.newest() == []
    scene.store.close()
