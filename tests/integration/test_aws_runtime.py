"""What runs in tasks on AWS, against a server which answers as S3, ECS and CloudWatch do."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bcrypt
import pandas as pd
import pyarrow as pa
import pytest
from botocore.awsrequest import AWSResponse
from tidemill.runtime.capture import CAPTURE, LABEL_SCHEMA, LABELS, Journal, list_segments, read_segment, write_segment
from tidemill.runtime.cloud import sidecar, task_files, training_task
from tidemill.runtime.cloud.folder_mirror import Fetch, Keep, Send
from tidemill.runtime.cloud.task_files import Kept, Place, TaskFiles
from tidemill.runtime.common.errors import ConfigError, NotFoundError, ServiceError
from tidemill.runtime.common.ids import uuid7
from tidemill.runtime.retraining.jobs.ecs import TaskLauncher
from tidemill.runtime.retraining.jobs.launcher import JobSpec
from tidemill.runtime.retraining.settings import TaskSettings

from tests.support.aws_server import BUCKET, AwsServer, Cluster, aws_server, end_task, make_bucket, make_cluster
from tests.support.captured import write_traffic

pytestmark = pytest.mark.integration

PLACE = Place(bucket=BUCKET, key="stores/state")


@pytest.fixture
def aws() -> Iterator[AwsServer]:
    with aws_server() as found:
        yield found


@pytest.fixture
def s3(aws: AwsServer) -> Any:
    return make_bucket(aws)


def keys(s3: Any, prefix: str = "") -> set[str]:
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
    return {one["Key"].removeprefix(prefix) for one in found}


def labels() -> pa.Table:
    moment = pa.scalar(0, pa.timestamp("us", "UTC")).as_py()
    return pa.Table.from_pylist(
        [{"request_id": "r", "row": 0, "label": 1.0, "received_at": moment}], schema=LABEL_SCHEMA
    )


def test_files_of_a_task_are_private_and_hold_what_placeholders_stand_for(tmp_path: Path) -> None:
    found = TaskFiles(
        config={"a/web.yml": "user: '@{bcrypt:admin}'", "ini": "password = @{secret:db}\n"},
        secrets=["admin"],
        values=["db"],
        owner=os.getuid(),
    )
    environ = {"TIDEMILL_SECRET_ADMIN": "s3cret", "TIDEMILL_SECRET_DB": "p4ss"}
    given: list[Path] = []
    task_files.write_files(found, tmp_path, environ, give=lambda path, owner: given.append(path))
    hashed = (tmp_path / "config/a/web.yml").read_text().split("'")[1]
    assert bcrypt.checkpw(b"s3cret", hashed.encode())
    assert (tmp_path / "config/ini").read_text() == "password = p4ss\n"
    assert (tmp_path / "secrets/admin").read_text() == "s3cret"
    assert not (tmp_path / "secrets/db").exists(), "it stands in a config file only"
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert {*tmp_path.rglob("*"), tmp_path} <= set(given), "everything is given to whom the service runs as"


@pytest.mark.parametrize(
    ("found", "environ", "kind", "said"),
    [
        (TaskFiles(secrets=["key"]), {}, NotFoundError, "was not handed over by ECS"),
        (TaskFiles(secrets=["key"]), {"TIDEMILL_SECRET_KEY": " "}, ConfigError, "is empty"),
        (TaskFiles(config={"x": "@{secret:key}"}), {"TIDEMILL_SECRET_KEY": "k"}, NotFoundError, "is not handed over"),
        (TaskFiles(config={"../x": "y"}), {}, ConfigError, "leads out of the folder"),
    ],
)
def test_files_which_cannot_be_written_stop_the_task(
    tmp_path: Path, found: TaskFiles, environ: dict[str, str], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        task_files.write_files(found, tmp_path, environ, give=lambda path, owner: None)


def test_a_task_reads_its_files_from_s3(s3: Any) -> None:
    wanted = TaskFiles(stores={"state": Kept(uri=f"s3://{BUCKET}/stores/state", use="keep")})
    s3.put_object(Bucket=BUCKET, Key="tasks/x/1.json", Body=wanted.model_dump_json().encode())
    environ = {"TIDEMILL_TASK": f"s3://{BUCKET}/tasks/x/1.json"}
    assert task_files.read_files(task_files.client("s3"), environ) == wanted
    s3.put_object(Bucket=BUCKET, Key="tasks/x/1.json", Body=b'{"strange": 1}')
    with pytest.raises(ConfigError, match="Extra inputs are not permitted"):
        task_files.read_files(s3, environ)
    with pytest.raises(NotFoundError, match="this is no task of a stack"):
        task_files.read_files(s3, {})


def test_a_folder_is_kept_and_restored_elsewhere(s3: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    mirror = Keep(s3, PLACE, old)
    assert mirror.restore() == 0
    mirror.start()
    (old / "sub").mkdir()
    (old / "sub/a.json").write_text("1")
    (old / "b.txt").write_text("2")
    (old / ".hidden").write_text("3")
    assert mirror.sweep() == 2
    assert mirror.sweep() == 0, "what has not changed is not sent again"
    (old / "sub/a.json").write_text("11")
    (old / "b.txt").unlink()
    assert mirror.sweep() == 2
    assert keys(s3, "stores/state/") == {"sub/a.json"}
    again = Keep(s3, PLACE, new)
    assert again.restore() == 1
    assert (new / "sub/a.json").read_text() == "11"
    assert stat.S_IMODE((new / "sub/a.json").stat().st_mode) == 0o600
    again.start()
    assert again.sweep() == 0, "what was restored is the same on both sides"


def test_an_empty_folder_never_empties_its_place(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="stores/state/kept.json", Body=b"1")
    mirror = Keep(s3, PLACE, tmp_path)
    mirror.start()
    mirror.sweep()
    assert keys(s3, "stores/state/") == {"kept.json"}


def test_a_database_in_use_is_kept_as_one_which_opens(s3: Any, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    connection = sqlite3.connect(folder / "turns.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE turns (id INTEGER)")
    connection.commit()
    mirror = Keep(s3, PLACE, folder)
    mirror.start()
    assert mirror.sweep() == 1
    connection.execute("INSERT INTO turns VALUES (7)")
    connection.commit()  # in the journal beside the file, not in the file
    assert (folder / "turns.db-wal").stat().st_size > 0
    assert mirror.sweep() == 1
    assert mirror.sweep() == 0
    assert keys(s3, "stores/state/") == {"turns.db"}, "the journals stay"
    Keep(s3, PLACE, tmp_path / "new").restore()
    copy = sqlite3.connect(tmp_path / "new/turns.db")
    assert copy.execute("SELECT id FROM turns").fetchall() == [(7,)]
    copy.close()
    connection.close()


def test_segments_are_sent_once_then_forgotten(s3: Any, tmp_path: Path) -> None:
    now = [time.time()]
    mirror = Send(s3, PLACE, tmp_path, hold_seconds=60, clock=lambda: now[0])
    mirror.restore()
    first = write_segment(labels(), tmp_path, LABELS)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal/open.arrows").write_bytes(b"x")
    assert mirror.sweep() == 1
    assert mirror.sweep() == 0
    assert keys(s3, "stores/state/") == {f"labels/date={first.day}/{first.name}.parquet"}
    now[0] += 120
    mirror.sweep()
    assert list_segments(tmp_path, LABELS) == [], "its disk is not filled by what S3 has"
    second = write_segment(labels(), tmp_path, LABELS)
    assert mirror.sweep() == 1
    assert len(keys(s3, "stores/state/")) == 2
    assert second.path.exists()


def test_a_segment_written_anew_is_sent_anew(s3: Any, tmp_path: Path) -> None:
    mirror = Send(s3, PLACE, tmp_path)
    segment = write_segment(labels(), tmp_path, LABELS)
    mirror.sweep()
    before = s3.head_object(Bucket=BUCKET, Key=f"stores/state/labels/date={segment.day}/{segment.name}.parquet")
    write_segment(labels().slice(0, 0), tmp_path, LABELS, identifier=segment.id)
    assert mirror.sweep() == 1
    after = s3.head_object(Bucket=BUCKET, Key=f"stores/state/labels/date={segment.day}/{segment.name}.parquet")
    assert before["ETag"] != after["ETag"]


def test_what_others_wrote_comes_and_goes(s3: Any, tmp_path: Path) -> None:
    mirror = Fetch(s3, PLACE, tmp_path)
    s3.put_object(Bucket=BUCKET, Key="stores/state/capture/date=2026-01-01/a.parquet", Body=b"1")
    s3.put_object(Bucket=BUCKET, Key="stores/state-of-others/x", Body=b"1")
    assert mirror.restore() == 1
    path = tmp_path / "capture/date=2026-01-01/a.parquet"
    assert path.read_bytes() == b"1"
    s3.put_object(Bucket=BUCKET, Key="stores/state/capture/date=2026-01-01/a.parquet", Body=b"22")
    s3.put_object(Bucket=BUCKET, Key="stores/state/keys.json", Body=b"{}")
    assert mirror.sweep() == 2
    assert path.read_bytes() == b"22"
    assert mirror.sweep() == 0
    s3.delete_object(Bucket=BUCKET, Key="stores/state/keys.json")
    assert mirror.sweep() == 1
    assert {one.name for one in tmp_path.rglob("*") if one.is_file()} == {"a.parquet"}


def test_a_task_does_not_wait_for_years_of_segments(s3: Any, tmp_path: Path) -> None:
    for day in range(10, 30):
        for name in "abcdef":
            s3.put_object(Bucket=BUCKET, Key=f"stores/state/capture/date=2026-01-{day}/{name}.parquet", Body=b"1")
    assert Fetch(s3, PLACE, tmp_path / "none").restore(seconds=0.0) == 0
    ticks = iter([0.0, 0.0, 61.0])
    assert Fetch(s3, PLACE, tmp_path / "some").restore(clock=lambda: next(ticks)) == 64
    days = {path.parent.name for path in (tmp_path / "some").rglob("*.parquet")}
    assert "date=2026-01-29" in days and "date=2026-01-10" not in days, "the newest come first"
    rest = Fetch(s3, PLACE, tmp_path / "some")
    rest.start()
    assert rest.sweep() == 120 - 64, "the rest comes later"


def test_an_object_cannot_be_fetched_out_of_its_folder(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="stores/state/../../evil", Body=b"1")
    with pytest.raises(ConfigError, match="leads out of the folder"):
        Fetch(s3, PLACE, tmp_path / "in").restore()
    assert not (tmp_path / "evil").exists()


def test_the_keeper_keeps_on_while_s3_is_away_and_all_at_the_end(aws: AwsServer, s3: Any, tmp_path: Path) -> None:
    found = TaskFiles(
        stores={
            "state": Kept(uri=f"s3://{BUCKET}/stores/state", use="keep"),
            "capture": Kept(uri=f"s3://{BUCKET}/stores/capture", use="send"),
        }
    )
    folders = sidecar.mirrors(s3, found, tmp_path)
    sidecar.restore(folders)
    s3.delete_bucket(Bucket=BUCKET)
    stop, ended = threading.Event(), []
    thread = threading.Thread(target=lambda: ended.append(sidecar.keep(folders, stop, every=0.05, last=60)))
    thread.start()
    (tmp_path / "state/a").write_text("1")
    segment = write_segment(labels(), tmp_path / "capture", LABELS)
    time.sleep(0.3)
    assert thread.is_alive(), "S3 not answering ends nothing"
    stop.set()
    make_bucket(aws)
    thread.join(60)
    assert ended == [True]
    assert keys(s3, "stores/") == {"state/a", f"capture/labels/date={segment.day}/{segment.name}.parquet"}


def test_the_keeper_says_when_something_could_not_be_kept(s3: Any, tmp_path: Path) -> None:
    found = TaskFiles(stores={"state": Kept(uri="s3://no-such-bucket/stores/state", use="keep")})
    folders = sidecar.mirrors(s3, found, tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/a").write_text("1")
    stop = threading.Event()
    stop.set()
    assert not sidecar.keep(folders, stop, every=0.01, last=0.0)


def test_rows_of_a_killed_server_are_sent_by_its_keeper(s3: Any, tmp_path: Path) -> None:
    """A server dies in the middle: its journal becomes a segment, and that is in S3 before the task is gone."""
    write_traffic(tmp_path / "other", pd.DataFrame({"distance": [1.0, 2.0]}), [datetime.now(UTC)] * 2)
    (other,) = list_segments(tmp_path / "other", CAPTURE)
    rows = read_segment(other)
    journal = Journal(tmp_path / "capture", uuid7(), rows.schema)
    for batch in rows.to_batches():
        journal.append(batch)
    place = Place(bucket=BUCKET, key="stores/capture")
    mirror = Send(s3, place, tmp_path / "capture")
    assert mirror.finish() == 0, "the journal of a server which lives is its own"
    journal.close()  # as the kernel does for whoever is killed
    assert mirror.sweep() == 0, "a journal is no segment"
    assert mirror.finish() == 1
    Fetch(s3, place, tmp_path / "monitor").restore()
    (segment,) = list_segments(tmp_path / "monitor", CAPTURE)
    assert read_segment(segment).equals(rows)


def test_the_three_commands_of_a_task(aws: AwsServer, s3: Any) -> None:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **aws.environ, **more}
        command = [sys.executable, "-m", "tidemill.runtime.cloud", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    assert (run().returncode, run("strange").returncode) == (2, 2)
    no_task = run("prepare")
    assert (no_task.returncode, "this is no task of a stack" in no_task.stderr) == (NotFoundError.exit_code, True)
    more = {"TIDEMILL_JOBS": f"s3://{BUCKET}/jobs", "TIDEMILL_JOB_ID": "boats-1"}
    done = run("train", "--", "python", "-c", "print('trained'); raise SystemExit(7)", **more)
    assert (done.returncode, done.stdout.splitlines()[0]) == (7, "trained")
    left = s3.get_object(Bucket=BUCKET, Key="jobs/boats-1/exit.json")["Body"].read()
    assert json.loads(left) == {"exit_code": 7}


def test_a_training_which_is_stopped_leaves_word(aws: AwsServer, s3: Any) -> None:
    environ = {**os.environ, "TIDEMILL_JOBS": f"s3://{BUCKET}/jobs", "TIDEMILL_JOB_ID": "boats-2"}
    code = "import time; print('begins', flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-m", "tidemill.runtime.cloud", "train", "--", "python", "-c", code],
        env=environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    process.stdout.close()
    left = json.loads(s3.get_object(Bucket=BUCKET, Key="jobs/boats-2/exit.json")["Body"].read())
    assert left == {"exit_code": -signal.SIGTERM}


def test_a_training_which_cannot_start_says_so(s3: Any, capfd: pytest.CaptureFixture[str]) -> None:
    environ = {"TIDEMILL_JOBS": f"s3://{BUCKET}/jobs", "TIDEMILL_JOB_ID": "boats-3"}
    assert training_task.run(s3, ["/no/such/program"], environ) == 127
    assert "cannot start /no/such/program" in capfd.readouterr().err


@pytest.fixture
def cluster(aws: AwsServer) -> Cluster:
    return make_cluster(aws)


@pytest.fixture
def launcher(aws: AwsServer, s3: Any, cluster: Cluster) -> TaskLauncher:
    return TaskLauncher(settings_of(cluster))


def settings_of(cluster: Cluster) -> TaskSettings:
    return TaskSettings(
        kind="ecs",
        cluster=cluster.cluster,
        definitions={"boats": cluster.definition},
        subnets=[cluster.subnet],
        security_groups=[cluster.group],
        records=f"s3://{BUCKET}/jobs",
        log_group=cluster.log_group,
        tags={"tidemill:team": "harbour"},
    )


def spec(job: str = "boats-drift-1", model: str = "boats") -> JobSpec:
    env = {"TIDEMILL_MODEL": model, "TIDEMILL_JOB_ID": job, "TIDEMILL_RUNTIME": "/run/tidemill/config/runtime.json"}
    return JobSpec(job, ["python", "train.py"], Path("/project/code"), env)


def tasks(aws: AwsServer) -> dict[str, Any]:
    return {arn: task for found in aws.backend("ecs").tasks.values() for arn, task in found.items()}


def test_a_job_is_one_task_however_often_it_is_launched(
    aws: AwsServer, launcher: TaskLauncher, cluster: Cluster
) -> None:
    assert launcher.status("boats-drift-1").state == "unknown"
    assert launcher.launch(spec()) == "boats-drift-1"
    assert launcher.launch(spec()) == "boats-drift-1"
    assert TaskLauncher(settings_of(cluster)).launch(spec()) == "boats-drift-1", "another service, later"
    ((_, task),) = tasks(aws).items()
    assert task.started_by == "boats-drift-1"
    (override,) = task.overrides["containerOverrides"]
    assert override["command"] == ["python", "-m", "tidemill.runtime.cloud", "train", "--", "python", "train.py"]
    env = {one["name"]: one["value"] for one in override["environment"]}
    assert env == {**spec().env, "TIDEMILL_JOBS": f"s3://{BUCKET}/jobs"}
    assert {"key": "tidemill:team", "value": "harbour"} in task.tags
    assert launcher.status("boats-drift-1").state == "running"


def test_a_launch_which_died_before_it_wrote_the_task_down_is_found(
    aws: AwsServer, launcher: TaskLauncher, s3: Any
) -> None:
    launcher.launch(spec())
    s3.put_object(Bucket=BUCKET, Key="jobs/boats-drift-1/job.json", Body=b"{}")
    assert launcher.status("boats-drift-1").state == "running"
    launcher.launch(spec())
    assert len(tasks(aws)) == 1


@pytest.mark.parametrize("code", [0, 3])
def test_how_a_job_ended_is_what_ecs_says(aws: AwsServer, launcher: TaskLauncher, code: int) -> None:
    launcher.launch(spec())
    (task,) = tasks(aws)
    end_task(aws, task, code)
    found = launcher.status("boats-drift-1")
    assert (found.state, found.exit_code) == ("exited", code)


def test_how_a_job_ended_is_known_when_ecs_has_forgotten_it(aws: AwsServer, launcher: TaskLauncher, s3: Any) -> None:
    launcher.launch(spec())
    aws.backend("ecs").tasks.clear()
    assert launcher.status("boats-drift-1").state == "lost"
    training_task.run(s3, ["python", "-c", "raise SystemExit(4)"], {"TIDEMILL_JOBS": f"s3://{BUCKET}/jobs",
                                                                "TIDEMILL_JOB_ID": "boats-drift-1"})  # fmt: skip
    assert launcher.status("boats-drift-1").exit_code == 4


def test_a_task_whose_container_never_began_is_lost_and_says_why(aws: AwsServer, launcher: TaskLauncher) -> None:
    launcher.launch(spec())
    (task,) = tasks(aws)
    end_task(aws, task, None, "CannotPullContainerError")
    assert launcher.status("boats-drift-1").state == "lost"
    assert "CannotPullContainerError" in launcher.logs("boats-drift-1")


def test_what_a_job_printed_is_read_from_its_stream(aws: AwsServer, launcher: TaskLauncher, cluster: Cluster) -> None:
    assert launcher.logs("boats-drift-1") == ""
    launcher.launch(spec())
    (task,) = tasks(aws)
    stream = f"main/main/{task.rsplit('/', 1)[-1]}"
    assert stream in launcher.where("boats-drift-1")
    logs = aws.client("logs")
    logs.create_log_stream(logGroupName=cluster.log_group, logStreamName=stream)
    now = int(time.time() * 1000)
    events = [{"timestamp": now + index, "message": f"line {index}"} for index in range(30)]
    logs.put_log_events(logGroupName=cluster.log_group, logStreamName=stream, logEvents=events)
    assert launcher.logs("boats-drift-1", 2) == "line 28\nline 29"


def test_a_job_is_cancelled(aws: AwsServer, launcher: TaskLauncher) -> None:
    launcher.cancel("boats-drift-1")  # never launched
    launcher.launch(spec())
    launcher.cancel("boats-drift-1")
    ((_, task),) = tasks(aws).items()
    assert (task.last_status, task.stopped_reason) == ("STOPPED", "cancelled by tidemill")
    launcher.cancel("boats-drift-1")


def test_a_model_without_a_task_definition_is_refused(aws: AwsServer, launcher: TaskLauncher, s3: Any) -> None:
    with pytest.raises(ServiceError, match="there is no task definition which trains it"):
        launcher.launch(spec(model="tides"))
    assert keys(s3, "jobs/") == set(), "nothing was claimed"


def test_a_refusal_of_ecs_is_said(aws: AwsServer, s3: Any, cluster: Cluster) -> None:
    """ECS refuses as its documentation says; the answer is parsed by botocore, as a real one."""
    ecs = aws.client("ecs")
    body = json.dumps({"__type": "ClusterNotFoundException", "message": "Cluster not found."}).encode()
    answer = AWSResponse("https://ecs.example.org/", 400, {"Content-Type": "application/x-amz-json-1.1"}, Raw(body))
    ecs.meta.events.register("before-send.ecs.RunTask", lambda **_: answer)
    with pytest.raises(ServiceError, match=r"the task cannot be started .*ClusterNotFound"):
        TaskLauncher(settings_of(cluster), ecs=ecs).launch(spec())
    assert tasks(aws) == {}


class Raw:
    """The body of an HTTP answer, as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body
