"""The container definitions of a task, as ECS expects them. Values can be outputs.

prepare   writes files and restores folders, then ends; the other containers wait for it
keep      mirrors folders to S3 until the main container has ended; only if the task has such folders
main      the service or job
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....runtime.cloud import VARIABLE, secret_variable
from ...images.container_layout import PORT, SCRATCH, USER
from ...images.health import upstream_health
from ..base import HealthCheck
from .names import FILES, FOLDERS, HELPER_CPU, HELPER_MEMORY_MB

MAIN, PREPARE, KEEP = "main", "prepare", "keep"
# Fargate's maximum from SIGTERM to SIGKILL.
_STOP_LIMIT = 120
_START_LIMIT = 300
# All default capabilities of Docker, except those for changing owners and modes of files.
_DROPPED = [
    *("AUDIT_WRITE", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP"),
    *("SETUID", "SYS_CHROOT"),
]
_PROBE = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=4)"


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """The containers of a task. All placeholders are resolved.

    Attributes:
        image, helper: references of the images of the main container and of the other two.
        ours: whether the main image is one of ours, which contain Python.
        command: the command of the main container.
        env: its environment variables.
        secret_env: variable -> ARN of the secret that is its value, with a JSON key in ECS's syntax.
        files: s3:// URL of the `TaskFiles`.
        secrets: secret -> ARN, of secrets that become files or parts of config files.
        keeps: whether the task has a container `keep`.
        log_group, region: where it logs.
        health: its health check; None for jobs.
        stop_seconds: from SIGTERM to SIGKILL.
        open_files: limit of open files, or None for ECS's own limit.
        folder: its working directory.
        listens: whether it listens on the port.
    """

    image: Any
    helper: Any
    ours: bool
    command: Sequence[Any]
    env: Mapping[str, Any] = field(default_factory=dict[str, Any])
    secret_env: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: Any = None
    secrets: Mapping[str, Any] = field(default_factory=dict[str, Any])
    keeps: bool = False
    log_group: Any
    region: str
    health: HealthCheck | None = None
    stop_seconds: float = 10.0
    open_files: int | None = None
    folder: str = SCRATCH
    listens: bool = False


def volumes() -> list[str]:
    """Return the names of a task's volumes, which are deleted with the task."""
    return list(FOLDERS)


def containers(spec: ContainerSpec) -> list[dict[str, Any]]:
    """Return the containers of the task."""
    found = [_prepare(spec)]
    if spec.keeps:
        found.append(_keep(spec))
    return [*found, _main(spec)]


def _prepare(spec: ContainerSpec) -> dict[str, Any]:
    return {
        **_common(spec, PREPARE),
        "image": spec.helper,
        "essential": False,
        # Volumes belong to root; this container gives them to the user of the others.
        "user": "0:0",
        "linuxParameters": {"capabilities": {"drop": _DROPPED}, "initProcessEnabled": True},
        "command": ["python", "-m", "tidemill.runtime.cloud", "prepare"],
        "environment": _pairs({VARIABLE: spec.files}),
        "secrets": _secret_references({secret_variable(name): arn for name, arn in spec.secrets.items()}),
    }


def _keep(spec: ContainerSpec) -> dict[str, Any]:
    return {
        **_common(spec, KEEP),
        "image": spec.helper,
        # If it fails, ECS restarts it; the service continues.
        "essential": False,
        "restartPolicy": {"enabled": True, "restartAttemptPeriod": 60},
        "user": f"{USER}:{USER}",
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}, "initProcessEnabled": True},
        "cpu": HELPER_CPU,
        "memoryReservation": HELPER_MEMORY_MB,
        "command": ["python", "-m", "tidemill.runtime.cloud", "keep"],
        "environment": _pairs({VARIABLE: spec.files}),
        "dependsOn": [{"containerName": PREPARE, "condition": "SUCCESS"}],
        "stopTimeout": _STOP_LIMIT,
    }


def _main(spec: ContainerSpec) -> dict[str, Any]:
    waits = [{"containerName": PREPARE, "condition": "SUCCESS"}]
    if spec.keeps:
        # ECS stops a dependency last, so `keep` sees the last writes.
        waits.append({"containerName": KEEP, "condition": "START"})
    first, *rest = spec.command
    files = spec.open_files
    return {
        **_common(spec, MAIN),
        "image": spec.image,
        "essential": True,
        "user": f"{USER}:{USER}",
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}, "initProcessEnabled": True},
        "entryPoint": [first],
        "command": rest,
        "environment": _pairs({"HOME": SCRATCH, "LOGNAME": "tidemill", **spec.env}),
        "secrets": _secret_references(spec.secret_env),
        "dependsOn": waits,
        "workingDirectory": spec.folder,
        "stopTimeout": min(_STOP_LIMIT, max(2, round(spec.stop_seconds))),
        **({"portMappings": [{"containerPort": PORT, "protocol": "tcp"}]} if spec.listens else {}),
        **({"ulimits": [{"name": "nofile", "softLimit": files, "hardLimit": files}]} if files else {}),
        **({"healthCheck": _health(spec.health, spec.ours)} if spec.health else {}),
    }


def _common(spec: ContainerSpec, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "readonlyRootFilesystem": True,
        "mountPoints": [
            {"sourceVolume": volume, "containerPath": path, "readOnly": volume == FILES and name != PREPARE}
            for volume, path in FOLDERS.items()
        ],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": spec.log_group,
                "awslogs-region": spec.region,
                "awslogs-stream-prefix": MAIN,
                # A full log buffer must not block the service.
                "mode": "non-blocking",
                "max-buffer-size": "10m",
            },
        },
    }


def _health(check: HealthCheck, ours: bool) -> dict[str, Any]:
    probe = ["CMD", "python", "-c", _PROBE, f"http://127.0.0.1:{PORT}{check.path}"]
    return {
        "command": probe if ours else upstream_health(check),
        "interval": 10,
        "timeout": 5,
        "retries": 3,
        "startPeriod": min(_START_LIMIT, max(10, round(check.timeout))),
    }


def _pairs(env: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in sorted(env.items())]


def _secret_references(secrets: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "valueFrom": arn} for name, arn in sorted(secrets.items())]
