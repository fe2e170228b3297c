"""Names on AWS, and sizes of tasks and databases. Imports no Pulumi."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ....runtime.common.errors import ConfigError
from ...images.container_layout import DATA, MOUNT, SCRATCH
from .settings import AwsSettings, TaskSize

FILES = "files"
FOLDERS: Mapping[str, str] = {FILES: MOUNT, "data": DATA, "scratch": SCRATCH, "temporary": "/tmp"}  # noqa: S108
"""Volume of a task -> its path in containers. The disk of a task is encrypted and deleted with the task."""

HELPER_CPU, HELPER_MEMORY_MB = 64, 256
"""Resources of the helper container beside the main one."""

_HASHED = 8
_MOST_CPU, _MOST_MEMORY_MB = 16384, 122880


@dataclass(frozen=True)
class Names:
    """Names in AWS, which all stacks of an account share.

    Attributes:
        team, environment: together the stack's name.
        extra: additional tags of all resources.
    """

    team: str
    environment: str
    extra: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return f"{self.team}-{self.environment}"

    def of(self, name: str, limit: int = 64) -> str:
        """Return the name in AWS of the stack's `name`, in at most `limit` characters.

        >>> Names("flights", "dev").of("mlflow")
        'tidemill-flights-dev-mlflow'
        >>> len(Names("flights", "dev").of("serving-departures", 32))
        32
        """
        full = f"tidemill-{self.stack}-{name}"
        if len(full) <= limit:
            return full
        mark = hashlib.sha256(full.encode()).hexdigest()[:_HASHED]
        return f"{full[: limit - _HASHED - 1].rstrip('-')}-{mark}".ljust(limit, "0")[:limit]

    def path(self, name: str) -> str:
        """Return the path that names a log group, secret or repository."""
        return f"tidemill/{self.stack}/{name}"

    def tags(self, name: str) -> dict[str, str]:
        """Return the tags of the stack's `name`; team and environment allow cost reports."""
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
    """Return the smallest size of a Fargate task with at least `cpu` units and `memory_mb` MiB.

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
        "is more than a Fargate task can have",
        field="aws.services",
        value=f"cpu {cpu}, memory_mb {memory_mb}",
        hint=f"use at most {_MOST_CPU} units and {_MOST_MEMORY_MB} MiB",
    )


def task_size(size: TaskSize, *, helper: bool) -> tuple[int, int]:
    """Return CPU units and MiB of a task with a main container of `size`, and a helper if `helper`.

    In the largest task, the main container shares its resources with the helper.
    """
    cpu, memory = (HELPER_CPU, HELPER_MEMORY_MB) if helper else (0, 0)
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
    """Return the size of the main container of `name`: that of the config, else that of the environment's size."""
    if name in settings.services:
        return settings.services[name]
    sizes = _SIZES[settings.size]
    return sizes.get("serving" if name.startswith("serving-") else name, sizes[""])


def database_class(settings: AwsSettings) -> tuple[str, int]:
    """Return the instance class of the Postgres server and its disk in GiB."""
    return _DATABASES[settings.size]


def priority(name: str, taken: Collection[int]) -> int:
    """Return the priority of a service's rule in the load balancer, derived from its name.

    Priorities below 100 are reserved for rules that apply to all services.
    """
    place = zlib.crc32(name.encode()) % 49_900
    while place + 100 in taken:
        place = (place + 1) % 49_900
    return place + 100
