"""The containers of a task, in the words of ECS. Imports no Pulumi: values may be outputs, which are not looked into.

prepare   puts files in place and restores folders, then ends; the others wait for it
keep      keeps folders in S3, until after the main container's end; where there is one to keep
main      what the task is for
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....runtime.cloud import VARIABLE, secret_variable
from ..base import HealthCheck
from .names import FILES, FOLDERS, HELPER_CPU, HELPER_MEMORY_MB, PORT, SCRATCH, USER

__all__ = ["MAIN", "TaskSpec", "containers", "volumes"]

MAIN, PREPARE, KEEP = "main", "prepare", "keep"
# Fargate waits no longer from SIGTERM to SIGKILL.
_STOP_LIMIT = 120
_START_LIMIT = 300
# All that Docker gives a container besides what changing owners and modes of files needs.
_DROPPED = [
    *("AUDIT_WRITE", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP"),
    *("SETUID", "SYS_CHROOT"),
]
_ASK = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=4)"


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What a task is made of; texts have no placeholders any more.

    Attributes:
        image, helper: references of the images of the main container and of the two beside it.
        ours: whether the main image is ours, so that there is a Python in it.
        command: what the main container runs.
        env: its plain settings.
        secret_env: variable -> ARN of the secret whose value it gets; JSON keys as ECS writes them.
        files: s3:// URL of the `TaskFiles`.
        secrets: secret -> its ARN, of those which become files or stand in config files.
        keeps: whether folders are kept while it runs.
        log_group, region: where it logs.
        health: when it is alive; None for what runs once.
        stop_seconds: from SIGTERM to SIGKILL.
        open_files: how many files it may open, or None for ECS's own limit.
        folder: where it starts.
        listens: whether it answers at the port.
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
    """Return the names of a task's volumes; what they hold ends with the task."""
    return list(FOLDERS)


def containers(spec: TaskSpec) -> list[dict[str, Any]]:
    """Return the containers of the task."""
    found = [_prepare(spec)]
    if spec.keeps:
        found.append(_keep(spec))
    return [*found, _main(spec)]


def _prepare(spec: TaskSpec) -> dict[str, Any]:
    return {
        **_common(spec, PREPARE),
        "image": spec.helper,
        "essential": False,
        # Volumes are root's; it gives them to the user of the others, and ends.
        "user": "0:0",
        "linuxParameters": {"capabilities": {"drop": _DROPPED}, "initProcessEnabled": True},
        "command": ["python", "-m", "tidemill.runtime.cloud", "prepare"],
        "environment": _pairs({VARIABLE: spec.files}),
        "secrets": _handed({secret_variable(name): arn for name, arn in spec.secrets.items()}),
    }


def _keep(spec: TaskSpec) -> dict[str, Any]:
    return {
        **_common(spec, KEEP),
        "image": spec.helper,
        # Its own failure ends no service; it is started again.
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


def _main(spec: TaskSpec) -> dict[str, Any]:
    waits = [{"containerName": PREPARE, "condition": "SUCCESS"}]
    if spec.keeps:
        # What is waited for is also ended after: the keeper sees what was written last.
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
        "secrets": _handed(spec.secret_env),
        "dependsOn": waits,
        "workingDirectory": spec.folder,
        "stopTimeout": min(_STOP_LIMIT, max(2, round(spec.stop_seconds))),
        **({"portMappings": [{"containerPort": PORT, "protocol": "tcp"}]} if spec.listens else {}),
        **({"ulimits": [{"name": "nofile", "softLimit": files, "hardLimit": files}]} if files else {}),
        **({"healthCheck": _health(spec.health, spec.ours)} if spec.health else {}),
    }


def _common(spec: TaskSpec, name: str) -> dict[str, Any]:
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
                # A log which cannot be written must not hold up an answer.
                "mode": "non-blocking",
                "max-buffer-size": "10m",
            },
        },
    }


def _health(check: HealthCheck, ours: bool) -> dict[str, Any]:
    url = f"http://127.0.0.1:{PORT}{check.path}"
    if ours:
        command = ["CMD", "python", "-c", _ASK, url]
    elif check.basic:
        # A password in the arguments of a command could be read: who refuses, lives.
        script = f"said=$(wget -q -O /dev/null {url} 2>&1) || case \"$said\" in *' 401 '*) ;; *) exit 1 ;; esac"
        command = ["CMD-SHELL", script]
    else:
        command = ["CMD", "wget", "-q", "-O", "/dev/null", url]
    return {
        "command": command,
        "interval": 10,
        "timeout": 5,
        "retries": 3,
        "startPeriod": min(_START_LIMIT, max(10, round(check.timeout))),
    }


def _pairs(env: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in sorted(env.items())]


def _handed(secrets: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "valueFrom": arn} for name, arn in sorted(secrets.items())]
