"""Operations on AWS, through ECS, CloudWatch and Secrets Manager. Imports no Pulumi."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from ....runtime.common.errors import NotFoundError
from ...provider.aws.awake import suspend
from ...provider.aws.client import connect, error_code, talking
from ...tools.table import IMAGES
from ..http_get import http_get
from ..operations import ServiceState
from .names import Names
from .settings import AwsSettings

_AT_ONCE = 10
_STREAMS = 10
_POLL_SECONDS = 2.0
_STACK, _NAME, _TASKS = "tidemill:stack", "tidemill:name", "tidemill:tasks"


class AwsOperations:
    """The ECS services of a stack; see `Operations`.

    Args:
        stack: TEAM-ENVIRONMENT.
        settings: the block `aws` of the stack config.
    """

    def __init__(self, stack: str, settings: AwsSettings) -> None:
        self._stack = stack
        self._settings = settings
        team, _, environment = stack.rpartition("-")
        self._names = Names(team, environment)
        self._cluster = settings.cluster.existing or self._names.of("cluster", 255)

    def made(self) -> bool:
        """See `Operations`."""
        return bool(self._found())

    def services(self) -> list[ServiceState]:
        """See `Operations`."""
        return [_state(name, service) for name, service in sorted(self._found().items())]

    def runs(self, service: str) -> bool:
        """See `Operations`."""
        return service in self.running()

    def url(self, service: str) -> str | None:
        """See `Operations`. Only services behind the load balancer have one."""
        found = self._found().get(service)
        if not found or not found.get("loadBalancers"):
            return None
        return f"https://{service}.{self._settings.domain}"

    def version(self, service: str) -> str | None:
        """See `Operations`."""
        if service in IMAGES:
            return IMAGES[service].tag.removeprefix("v")
        return metadata.version("mlflow" if service == "mlflow" else "tidemill")

    def stop(self) -> int:
        """See `Operations`. Postgres keeps running and costs money."""
        running = {name: found for name, found in self._found().items() if found["desiredCount"]}
        for name, found in running.items():
            with talking(name):
                suspend(self._client("application-autoscaling"), self._resource(found), suspended=True)
                self._ecs.update_service(cluster=self._cluster, service=found["serviceName"], desiredCount=0)
        return len(running)

    def running(self) -> list[str]:
        """Return the names of services that still have a running task."""
        return [name for name, found in self._found().items() if found["runningCount"] or found.get("pendingCount")]

    def start(self) -> None:
        """See `Operations`."""
        for name, found in self._found().items():
            with talking(name):
                wanted = int(_tags(found).get(_TASKS, "1"))
                if found["desiredCount"] < wanted:
                    self._ecs.update_service(cluster=self._cluster, service=found["serviceName"], desiredCount=wanted)
                suspend(self._client("application-autoscaling"), self._resource(found), suspended=False)

    def restart(self, service: str) -> None:
        """See `Operations`. A service that allows two tasks starts the new one before the old one stops."""
        found = self._service(service)
        with talking(service):
            self._ecs.update_service(cluster=self._cluster, service=found["serviceName"], forceNewDeployment=True)

    def logged(self) -> list[str]:
        """See `Operations`."""
        prefix = f"/{self._names.path('')}"
        with talking("logs"):
            pages = self._logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
            groups: list[str] = [group["logGroupName"] for page in pages for group in page["logGroups"]]
        return sorted(group.removeprefix(prefix) for group in groups)

    def logs(self, name: str, lines: int, *, follow: bool = False) -> Iterator[str]:
        """See `Operations`. All tasks of a service share a log group."""
        group = self.log_place(name)
        with talking(name):
            last = self._last(name, group, lines)
        yield from (text for _, text in last)
        seen = last[-1][0] if last else int(time.time() * 1000)
        known = {event for event in last if event[0] == seen}
        while follow:
            time.sleep(_POLL_SECONDS)
            with talking(name):
                found = self._since(group, seen)
            for event in found:
                if event not in known:
                    yield event[1]
            if found:
                seen = found[-1][0]
                known = {event for event in found if event[0] == seen}

    def log_place(self, name: str) -> str:
        """Return the log group of a service or job."""
        return f"/{self._names.path(name)}"

    def secret(self, name: str) -> str:
        """See `Operations`."""
        from botocore.exceptions import ClientError

        with talking(name):
            try:
                return str(
                    self._client("secretsmanager").get_secret_value(SecretId=self.secret_place(name))["SecretString"]
                )
            except ClientError as error:
                if error_code(error) != "ResourceNotFoundException":
                    raise
        raise NotFoundError("the stack has no such secret", field="secret", value=name, hint="run `tidemill up`")

    def secret_place(self, name: str) -> str:
        """Return the name of a secret in Secrets Manager."""
        return self._names.path(name)

    def secret_file(self, name: str) -> Path | None:
        """Return None: secrets are not on this machine."""
        del name

    def ask(self, service: str, path: str, *, token: str | None = None) -> tuple[int, bytes] | None:
        """See `Operations`. Only services behind the load balancer can be reached."""
        url = self.url(service)
        if url is None:
            return None
        try:
            return http_get(f"{url}{path}", token=self.secret(token) if token else None)
        except NotFoundError:
            return None

    @cached_property
    def _ecs(self) -> Any:
        return self._client("ecs")

    @cached_property
    def _logs(self) -> Any:
        return self._client("logs")

    def _client(self, service: str) -> Any:
        return connect(service, str(self._settings.region))

    def _resource(self, found: Mapping[str, Any]) -> str:
        return f"service/{self._cluster.rpartition('/')[2]}/{found['serviceName']}"

    def _found(self) -> dict[str, dict[str, Any]]:
        """Return name -> service as ECS describes it."""
        from botocore.exceptions import ClientError

        with talking("services"):
            try:
                pages = self._ecs.get_paginator("list_services").paginate(cluster=self._cluster)
                arns: list[str] = [arn for page in pages for arn in page["serviceArns"]]
            except ClientError as error:
                if error_code(error) == "ClusterNotFoundException":
                    return {}
                raise
            found: list[dict[str, Any]] = []
            for index in range(0, len(arns), _AT_ONCE):
                part = arns[index : index + _AT_ONCE]
                found += self._ecs.describe_services(cluster=self._cluster, services=part, include=["TAGS"])["services"]
        # An existing cluster can contain other services.
        return {
            _tags(service)[_NAME]: service
            for service in found
            if _tags(service).get(_STACK) == self._stack and service.get("status") != "INACTIVE"
        }

    def _service(self, name: str) -> dict[str, Any]:
        found = self._found().get(name)
        if found is None:
            raise NotFoundError("ECS has no such service", field="service", value=name, hint="run `tidemill up`")
        return found

    def _last(self, name: str, group: str, lines: int) -> list[tuple[int, str]]:
        from botocore.exceptions import ClientError

        try:
            streams = self._logs.describe_log_streams(
                logGroupName=group, orderBy="LastEventTime", descending=True, limit=_STREAMS
            )["logStreams"]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
            streams = []
        if not streams:
            raise NotFoundError("has no log yet", field=name, value=group)
        events: list[tuple[int, str]] = []
        for stream in streams:
            found = self._logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], limit=lines, startFromHead=False
            )["events"]
            events += [(int(event["timestamp"]), str(event["message"]).rstrip("\n")) for event in found]
        # Sorted only by time, so lines with the same time keep their order.
        return sorted(events, key=lambda event: event[0])[-lines:]

    def _since(self, group: str, start: int) -> Sequence[tuple[int, str]]:
        pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=start)
        events = [event for page in pages for event in page["events"]]
        found = [(int(event["timestamp"]), str(event["message"]).rstrip("\n")) for event in events]
        return sorted(found, key=lambda event: event[0])


def _tags(service: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in service.get("tags", ())}


def _state(name: str, service: Mapping[str, Any]) -> ServiceState:
    wanted, running = int(service["desiredCount"]), int(service["runningCount"])
    if wanted == 0:
        return ServiceState(name, "stopped", problem="does not run")
    deployments: Sequence[Mapping[str, Any]] = service.get("deployments", ())
    failed = sum(int(one.get("failedTasks", 0)) for one in deployments)
    changing = any(one.get("rolloutState") == "IN_PROGRESS" for one in deployments)
    if running == 0:
        if failed or not changing:
            return ServiceState(name, "failing", problem=_last_event(service))
        return ServiceState(name, "starting", problem="its task is starting")
    if running < wanted:
        return ServiceState(name, "running", problem=f"{running} of {wanted} tasks run")
    # ECS checks the health itself: an unhealthy service soon has too few tasks.
    return ServiceState(name, "running", problem=None if changing else "")


def _last_event(service: Mapping[str, Any]) -> str:
    events: Sequence[Mapping[str, Any]] = service.get("events", ())
    return str(events[0]["message"]) if events else "it has no running task"
