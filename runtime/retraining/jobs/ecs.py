"""Jobs as tasks of ECS, each found again by its id.

    <records>/ID/job.json    made before the task is asked for, and by one launch alone; then with the task's name
    <records>/ID/exit.json   its exit code, left by the task itself (`tidemill.runtime.cloud.training_task`)

ECS forgets a task an hour after its end, so that what became of one is asked of both.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from ...cloud import JOBS, client, place_of
from ...common.errors import ServiceError, UnreachableError
from ..settings import TaskSettings
from .launcher import JobSpec, JobStatus

__all__ = ["CONTAINER", "TaskLauncher"]

CONTAINER = "main"
"""The container of a task which does what the task is for."""

_MODEL = "TIDEMILL_MODEL"
_MISSING = ("NoSuchKey", "404")
# What ECS says where it could not start a container; nothing of ours ran.
_NEVER_STARTED = ("TaskFailedToStart", "ServiceSchedulerInitiated")


class TaskLauncher:
    """A `Launcher` whose jobs are tasks.

    Args:
        settings: cluster, task definitions and where records are kept.
        ecs, s3, logs: clients; by default with the role of this service's own task.
    """

    def __init__(self, settings: TaskSettings, *, ecs: Any = None, s3: Any = None, logs: Any = None) -> None:
        self._settings = settings
        self._ecs = ecs or client("ecs")
        self._s3 = s3 or client("s3")
        self._logs = logs or client("logs")
        self._place = place_of(settings.records)

    def launch(self, spec: JobSpec) -> str:
        """Start the task unless one of its id was ever started; see `Launcher.launch`."""
        model = spec.env.get(_MODEL, "")
        definition = self._settings.definitions.get(model)
        if definition is None:
            raise ServiceError("there is no task definition which trains it", field="model", value=model)
        self._claim(spec.id)
        record = self._read(spec.id, "job.json") or {}
        if record.get("task") or self._find(spec.id):
            return spec.id
        answer = self._asked(
            "the task cannot be started",
            spec.id,
            lambda: self._ecs.run_task(
                cluster=self._settings.cluster,
                taskDefinition=definition,
                launchType="FARGATE",
                count=1,
                # Two launches at once, or one whose answer was lost, are one task.
                clientToken=_token(spec.id, definition),
                startedBy=_marked(spec.id),
                networkConfiguration={
                    "awsvpcConfiguration": {
                        "subnets": self._settings.subnets,
                        "securityGroups": self._settings.security_groups,
                        "assignPublicIp": "DISABLED",
                    }
                },
                overrides={"containerOverrides": [self._override(spec)]},
                tags=[
                    *({"key": key, "value": value} for key, value in sorted(self._settings.tags.items())),
                    {"key": "tidemill:job", "value": spec.id},
                ],
            ),
        )
        if not answer["tasks"]:
            failure = (answer.get("failures") or [{}])[0]
            why = f"{failure.get('reason', 'no reason given')}: {failure.get('detail') or failure.get('arn', '')}"
            raise ServiceError(f"the task cannot be started ({why.rstrip(': ')})", field="job", value=spec.id)
        self._write(spec.id, {"task": answer["tasks"][0]["taskArn"]})
        return spec.id

    def status(self, job: str) -> JobStatus:
        """Return what became of the job."""
        # Asked in this order: a task which ends now leaves word first.
        task = self._describe(job)
        started = _seconds(task.get("startedAt") or task.get("createdAt")) if task else None
        left = self._read(job, "exit.json")
        if left is not None:
            return JobStatus("exited", started, int(left["exit_code"]))
        if task is None:
            return JobStatus("unknown" if self._read(job, "job.json") is None else "lost")
        if task["lastStatus"] != "STOPPED":
            return JobStatus("running", started)
        code = _exit_code(task)
        return JobStatus("lost", started) if code is None else JobStatus("exited", started, code)

    def logs(self, job: str, lines: int = 20) -> str:
        """Return the last lines of what the job printed, or why ECS did not start it."""
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
        """Return the log group and stream with what the job printed."""
        return f"CloudWatch log group {self._settings.log_group}, stream {self._stream(job) or 'not begun'}"

    def cancel(self, job: str) -> None:
        """Stop the task: SIGTERM, and SIGKILL after the time its definition gives it."""
        task = self._describe(job)
        if task is None or task["lastStatus"] == "STOPPED":
            return
        self._asked(
            "the task cannot be stopped",
            job,
            lambda: self._ecs.stop_task(
                cluster=self._settings.cluster, task=task["taskArn"], reason="cancelled by tidemill"
            ),
        )

    def _override(self, spec: JobSpec) -> dict[str, Any]:
        env = {**spec.env, JOBS: self._settings.records}
        return {
            "name": CONTAINER,
            "command": ["python", "-m", "tidemill.runtime.cloud", "train", "--", *spec.argv],
            "environment": [{"name": name, "value": value} for name, value in sorted(env.items())],
        }

    def _claim(self, job: str) -> None:
        """Write the job's record unless there is one."""
        try:
            self._s3.put_object(Bucket=self._place.bucket, Key=self._key(job, "job.json"), Body=b"{}", IfNoneMatch="*")
        except ClientError as error:
            if _code(error) not in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
                raise ServiceError(f"its record cannot be written ({_code(error)})", field="job", value=job) from None
        except BotoCoreError as error:
            raise _unreachable(error) from None

    def _write(self, job: str, record: dict[str, Any]) -> None:
        body = json.dumps(record).encode()
        self._asked(
            "its record cannot be written",
            job,
            lambda: self._s3.put_object(Bucket=self._place.bucket, Key=self._key(job, "job.json"), Body=body),
        )

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
        """Return the task which was started for `job` by a launch that did not live to write it down."""
        for state in ("RUNNING", "STOPPED"):
            found = self._asked(
                "ECS cannot be asked",
                job,
                lambda state=state: self._ecs.list_tasks(
                    cluster=self._settings.cluster, startedBy=_marked(job), desiredStatus=state
                ),
            )
            if found["taskArns"]:
                return str(found["taskArns"][0])
        return None

    def _describe(self, job: str) -> dict[str, Any] | None:
        record = self._read(job, "job.json")
        if record is None:
            return None
        name = record.get("task") or self._find(job)
        if not name:
            return None
        found = self._asked(
            "ECS cannot be asked",
            job,
            lambda: self._ecs.describe_tasks(cluster=self._settings.cluster, tasks=[name]),
        )
        return found["tasks"][0] if found["tasks"] else None

    def _stream(self, job: str) -> str | None:
        record = self._read(job, "job.json") or {}
        name = record.get("task") or self._find(job)
        return f"{CONTAINER}/{CONTAINER}/{name.rsplit('/', 1)[-1]}" if name else None

    @staticmethod
    def _asked(failed: str, job: str, ask: Any) -> Any:
        try:
            return ask()
        except ClientError as error:
            said = error.response.get("Error", {}).get("Message", "")
            raise ServiceError(f"{failed} ({_code(error)}: {said})", field="job", value=job) from None
        except BotoCoreError as error:
            raise _unreachable(error) from None


def _marked(job: str) -> str:
    """Return what ECS calls the starter of the job's task: the id where it fits, else as much as tells it apart."""
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
