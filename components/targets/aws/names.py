"""What things are called on AWS, how large tasks are, and where things are within a container. Imports no Pulumi."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ....runtime.common.errors import ConfigError
from .settings import AwsSettings, TaskSize

__all__ = [
    "CONFIG",
    "DATA",
    "FILES",
    "FOLDERS",
    "HELPER_CPU",
    "HELPER_MEMORY_MB",
    "MOUNT",
    "PORT",
    "PROJECT",
    "SCRATCH",
    "SECRETS",
    "USER",
    "Names",
    "database_class",
    "fit",
    "priority",
    "size_of",
    "whole",
]

USER = 10001
"""The user of every container but the one which prepares the others' folders."""

PORT = 8080
"""What every service listens on within its task."""

MOUNT = "/run/tidemill"
CONFIG, SECRETS = f"{MOUNT}/config", f"{MOUNT}/secrets"
DATA, SCRATCH, PROJECT = "/data", "/scratch", "/project"
FILES = "files"
FOLDERS: Mapping[str, str] = {FILES: MOUNT, "data": DATA, "scratch": SCRATCH, "temporary": "/tmp"}  # noqa: S108
"""Volume of a task -> where its containers find it; a task's disk is encrypted, and ends with the task."""

HELPER_CPU, HELPER_MEMORY_MB = 64, 256
"""What the container beside the main one gets."""

_HASHED = 8
_MOST_CPU, _MOST_MEMORY_MB = 16384, 122880


@dataclass(frozen=True)
class Names:
    """Names in AWS, where all stacks of an account share one space of them.

    Attributes:
        team, environment: they name the stack.
        extra: further tags of everything.
    """

    team: str
    environment: str
    extra: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return f"{self.team}-{self.environment}"

    def of(self, name: str, limit: int = 64) -> str:
        """Return what the stack's thing `name` is called, in at most `limit` characters.

        >>> Names("flights", "dev").of("mlflow")
        'tidemill-flights-dev-mlflow'
        >>> len(Names("flights", "dev").of("serving-departures", 32))
        32
        """
        whole = f"tidemill-{self.stack}-{name}"
        if len(whole) <= limit:
            return whole
        mark = hashlib.sha256(whole.encode()).hexdigest()[:_HASHED]
        return f"{whole[: limit - _HASHED - 1].rstrip('-')}-{mark}".ljust(limit, "0")[:limit]

    def path(self, name: str) -> str:
        """Return the name of what is called by a path: log groups, secrets, repositories."""
        return f"tidemill/{self.stack}/{name}"

    def tags(self, name: str) -> dict[str, str]:
        """Return the tags of the stack's thing `name`; team and environment tell costs apart."""
        return {
            **self.extra,
            "Name": self.of(name, 128),
            "managed-by": "tidemill",
            "tidemill:stack": self.stack,
            "tidemill:team": self.team,
            "tidemill:environment": self.environment,
            "tidemill:name": name,
        }


# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html: units -> lowest and highest
# memory in MiB, and the step between.
_OFFERED: Mapping[int, tuple[int, int, int]] = {
    256: (512, 2048, 512),
    512: (1024, 4096, 1024),
    1024: (2048, 8192, 1024),
    2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024),
    8192: (16384, 61440, 4096),
    16384: (32768, 122880, 8192),
}


def fit(cpu: int, memory_mb: int) -> tuple[int, int]:
    """Return the smallest task of Fargate which has at least `cpu` units and `memory_mb` MiB.

    >>> fit(640, 1300)
    (1024, 2048)

    Raises:
        ConfigError: there is none.
    """
    for units, (low, high, step) in _OFFERED.items():
        if units < cpu or high < memory_mb:
            continue
        wanted = max(low, -(-memory_mb // step) * step)
        if units == 256 and wanted == 1536:  # 512 is followed by whole GiB
            wanted = 2048
        return units, wanted
    raise ConfigError(
        "is more than a task of Fargate can have",
        field="aws.services",
        value=f"cpu {cpu}, memory_mb {memory_mb}",
        hint=f"use at most {_MOST_CPU} units and {_MOST_MEMORY_MB} MiB",
    )


def whole(size: TaskSize, *, helped: bool) -> tuple[int, int]:
    """Return units and MiB of the task of a main container of `size`, with a helper beside it where it is `helped`.

    The largest task has no more room for the helper: it takes its share.
    """
    cpu, memory = (HELPER_CPU, HELPER_MEMORY_MB) if helped else (0, 0)
    return fit(min(size.cpu + cpu, _MOST_CPU), min(size.memory_mb + memory, _MOST_MEMORY_MB))


_SMALL = TaskSize(cpu=256, memory_mb=512)
_SIZES: Mapping[str, Mapping[str, TaskSize]] = {
    "small": {
        "": _SMALL,
        "mlflow": TaskSize(cpu=512, memory_mb=1536),
        "lakefs": TaskSize(cpu=512, memory_mb=1024),
        "validation": TaskSize(cpu=512, memory_mb=1536),
        "monitor": TaskSize(cpu=512, memory_mb=1024),
        "prometheus": TaskSize(cpu=256, memory_mb=1024),
        "serving": TaskSize(cpu=1024, memory_mb=2048),
        "training": TaskSize(cpu=2048, memory_mb=8192, disk_gb=50),
        "jobs": TaskSize(cpu=1024, memory_mb=4096, disk_gb=30),
    },
    "medium": {
        "": TaskSize(cpu=512, memory_mb=1024),
        "mlflow": TaskSize(cpu=1024, memory_mb=3072),
        "lakefs": TaskSize(cpu=2048, memory_mb=4096),
        "validation": TaskSize(cpu=1024, memory_mb=4096),
        "monitor": TaskSize(cpu=1024, memory_mb=4096),
        "prometheus": TaskSize(cpu=1024, memory_mb=4096, disk_gb=50),
        "serving": TaskSize(cpu=2048, memory_mb=4096),
        "training": TaskSize(cpu=4096, memory_mb=16384, disk_gb=100),
        "jobs": TaskSize(cpu=2048, memory_mb=8192, disk_gb=50),
    },
    "large": {
        "": TaskSize(cpu=1024, memory_mb=2048),
        "mlflow": TaskSize(cpu=2048, memory_mb=8192),
        "lakefs": TaskSize(cpu=4096, memory_mb=8192),
        "validation": TaskSize(cpu=4096, memory_mb=16384),
        "monitor": TaskSize(cpu=4096, memory_mb=16384),
        "prometheus": TaskSize(cpu=4096, memory_mb=16384, disk_gb=100),
        "serving": TaskSize(cpu=4096, memory_mb=8192),
        "training": TaskSize(cpu=16384, memory_mb=65536, disk_gb=200),
        "jobs": TaskSize(cpu=4096, memory_mb=16384, disk_gb=100),
    },
}
_DATABASES: Mapping[str, tuple[str, int]] = {
    "small": ("db.t4g.small", 20),
    "medium": ("db.m7g.large", 100),
    "large": ("db.r7g.xlarge", 500),
}


def size_of(settings: AwsSettings, name: str) -> TaskSize:
    """Return what the main container of `name` gets: what the config says of it, or its size in general."""
    if name in settings.services:
        return settings.services[name]
    sizes = _SIZES[settings.size]
    return sizes.get("serving" if name.startswith("serving-") else name, sizes[""])


def database_class(settings: AwsSettings) -> tuple[str, int]:
    """Return the class of the Postgres server and its disk in GiB."""
    return _DATABASES[settings.size]


def priority(name: str, taken: Collection[int]) -> int:
    """Return the place of a rule of the load balancer, the same each time for the same name.

    Places below 100 are kept for rules of all services.
    """
    place = zlib.crc32(name.encode()) % 49_900
    while place + 100 in taken:
        place = (place + 1) % 49_900
    return place + 100
