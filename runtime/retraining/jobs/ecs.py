"""Runs jobs as ECS tasks, and finds each again by its id.

    <records>/ID/job.json    created by exactly one launch before it starts the task; then holds the task's ARN
    <records>/ID/exit.json   the exit code, written by the task itself (`tidemill.runtime.cloud.training_task`)

ECS forgets a task an hour after its end, so the state of a job comes from both ECS and the records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from ...cloud import JOBS, client, place_of
from ...common.errors import ServiceError, UnreachableError
from ..settings import TaskSettings
from .launcher import JobSpec, JobStatus

CONTAINER = "main"
"""Name of the task's main container."""

_MODEL = "TIDEMILL_MODEL"
_MISSING = ("NoSuchKey", "404")
# Stop codes of a task whose container never started.
_NEVER_STARTED = ("TaskFailedToStart", "ServiceSchedulerInitiated")


class TaskLauncher:
    """A `Launcher` whose jobs are ECS tasks.

    Args:
        settings: the cluster, the task definitions and the location of records.
        ecs, s3, logs: boto3 clients; by default with the role of this service's task.
    """

    def __init__(self, settings: TaskSettings, *, ecs: Any = None, s3: Any = None, logs: Any = None) -> None:
        self._settings = settings
        self._ecs = ecs or client("ecs")
        self._s3 = s3 or client("s3")
        self._logs = logs or client("logs")
        self._place = place_of(settings.records)

    def launch(self, spec: JobSpec) -> str:
        """Start the task unless one with this id was ever started; see `Launcher.launch`."""
        model = spec.env.get(_MODEL, "")
        definition = self._settings.definitions.get(model)
        if definition is None:
            raise ServiceError("the model has no task definition for training", field="model", value=model)
        self._claim(spec.id)
        record = self._read(spec.id, "job.json") or {}
        if record.get("task") or self._find(spec.id):
            return spec.id
        network = {
            "subnets": self._settings.subnets,
            "securityGroups": self._settings.security_groups,
            "assignPublicIp": "DISABLED",
        }
        tags = {**dict(sorted(self._settings.tags.items())), "tidemill:job": spec.id}
        with _errors("the task cannot be started", spec.id):
            answer = self._ecs.run_task(
                cluster=self._settings.cluster,
                taskDefinition=definition,
                launchType="FARGATE",
                count=1,
                # Two concurrent launches, or one whose answer was lost, start one task.
                clientToken=_token(spec.id, definition),
                startedBy=_started_by(spec.id),
                networkConfiguration={"awsvpcConfiguration": network},
                overrides={"containerOverrides": [self._override(spec)]},
                tags=[{"key": key, "value": value} for key, value in tags.items()],
            )
        if not answer["tasks"]:
            failure = (answer.get("failures") or [{}])[0]
            why = f"{failure.get('reason', 'no reason given')}: {failure.get('detail') or failure.get('arn', '')}"
            raise ServiceError(f"the task cannot be started ({why.rstrip(': ')})", field="job", value=spec.id)
        self._write(spec.id, {"task": answer["tasks"][0]["taskArn"]})
        return spec.id

    def status(self, job: str) -> JobStatus:
        """Return the state of the job."""
        # In this order: a task that ends in between has written its exit code.
        task = self._describe(job)
        started = _seconds(task.get("startedAt") or task.get("createdAt")) if task else None
        ended = self._read(job, "exit.json")
        if ended is not None:
            return JobStatus("exited", started, int(ended["exit_code"]))
        if task is None:
            return JobStatus("unknown" if self._read(job, "job.json") is None else "lost")
        if task["lastStatus"] != "STOPPED":
            return JobStatus("running", started)
        code = _exit_code(task)
        return JobStatus("lost", started) if code is None else JobStatus("exited", started, code)

    def logs(self, job: str, lines: int = 20) -> str:
        """Return the last lines of the job's output, or why ECS did not start it."""
        stream = self._stream(job)
        if stream is None:
            return ""
        try:
            found = self._logs.get_log_events(
                logGroupName=self._settings.log_group, logStreamName=stream, limit=lines, startFromHead=False
            )
        except ClientError:
            return _why_stopped(self._describe(job))
        except BotoCoreError as error:
            raise _unreachable(error) from None
        return "\n".join(str(event["message"]) for event in found["events"]) or _why_stopped(self._describe(job))

    def where(self, job: str) -> str:
        """Return the log group and stream of the job's output."""
        return f"CloudWatch log group {self._settings.log_group}, stream {self._stream(job) or 'not started'}"

    def cancel(self, job: str) -> None:
        """Stop the task: SIGTERM, then SIGKILL after the stop timeout of its definition."""
        task = self._describe(job)
        if task is None or task["lastStatus"] == "STOPPED":
            return
        with _errors("the task cannot be stopped", job):
            self._ecs.stop_task(cluster=self._settings.cluster, task=task["taskArn"], reason="cancelled by tidemill")

    def _override(self, spec: JobSpec) -> dict[str, Any]:
        env = {**spec.env, JOBS: self._settings.records}
        return {
            "name": CONTAINER,
            "command": ["python", "-m", "tidemill.runtime.cloud", "train", "--", *spec.argv],
            "environment": [{"name": name, "value": value} for name, value in sorted(env.items())],
        }

    def _claim(self, job: str) -> None:
        """Create the job's record unless it exists."""
        with _errors("the job's record cannot be written", job):
            try:
                self._s3.put_object(
                    Bucket=self._place.bucket, Key=self._key(job, "job.json"), Body=b"{}", IfNoneMatch="*"
                )
            except ClientError as error:
                if _code(error) not in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
                    raise

    def _write(self, job: str, record: dict[str, Any]) -> None:
        body = json.dumps(record).encode()
        with _errors("the job's record cannot be written", job):
            self._s3.put_object(Bucket=self._place.bucket, Key=self._key(job, "job.json"), Body=body)

    def _read(self, job: str, name: str) -> dict[str, Any] | None:
        try:
            body = self._s3.get_object(Bucket=self._place.bucket, Key=self._key(job, name))["Body"].read()
        except ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise UnreachableError(
                f"the job's record cannot be read ({_code(error)})", field="job", value=job
            ) from None
        except BotoCoreError as error:
            raise _unreachable(error) from None
        return cast("dict[str, Any]", json.loads(body))

    def _key(self, job: str, name: str) -> str:
        return f"{self._place.key.rstrip('/')}/{job}/{name}"

    def _find(self, job: str) -> str | None:
        """Return the task of a launch that was killed before it recorded the task."""
        for state in ("RUNNING", "STOPPED"):
            with _errors("the ECS request failed", job):
                found = self._ecs.list_tasks(
                    cluster=self._settings.cluster, startedBy=_started_by(job), desiredStatus=state
                )
            if found["taskArns"]:
                return str(found["taskArns"][0])
        return None

    def _task(self, job: str) -> str | None:
        """Return the ARN of the job's task, if it was ever started."""
        record = self._read(job, "job.json")
        return None if record is None else record.get("task") or self._find(job)

    def _describe(self, job: str) -> dict[str, Any] | None:
        name = self._task(job)
        if name is None:
            return None
        with _errors("the ECS request failed", job):
            found = self._ecs.describe_tasks(cluster=self._settings.cluster, tasks=[name])
        return found["tasks"][0] if found["tasks"] else None

    def _stream(self, job: str) -> str | None:
        name = self._task(job)
        return f"{CONTAINER}/{CONTAINER}/{name.rsplit('/', 1)[-1]}" if name else None


@contextmanager
def _errors(failure: str, job: str) -> Generator[None]:
    """Translate errors of AWS about `job`."""
    try:
        yield
    except ClientError as error:
        message = error.response.get("Error", {}).get("Message", "")
        raise ServiceError(f"{failure} ({_code(error)}: {message})", field="job", value=job) from None
    except BotoCoreError as error:
        raise _unreachable(error) from None


def _started_by(job: str) -> str:
    """Return the task's `startedBy` value: the job's id, or its hash if it is too long."""
    return job if len(job) <= 128 else hashlib.sha256(job.encode()).hexdigest()


def _token(job: str, definition: str) -> str:
    return hashlib.sha256(f"{job}\0{definition}".encode()).hexdigest()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _unreachable(error: BotoCoreError) -> UnreachableError:
    return UnreachableError(f"AWS does not answer ({type(error).__name__})", field="launcher")


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _exit_code(task: dict[str, Any]) -> int | None:
    if task.get("stopCode") in _NEVER_STARTED:
        return None
    for container in task.get("containers", ()):
        if container.get("name") == CONTAINER and container.get("exitCode") is not None:
            return int(container["exitCode"])
    return None


def _why_stopped(task: dict[str, Any] | None) -> str:
    if task is None:
        return ""
    reasons = [str(task.get("stoppedReason") or "")]
    reasons += [f"{one['name']}: {one['reason']}" for one in task.get("containers", ()) if one.get("reason")]
    return "\n".join(filter(None, reasons))
