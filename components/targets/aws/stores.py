"""How services use object stores on AWS: a table of rules. Imports no Pulumi.

Each store is a folder below `stores/` in the stack's bucket. Programs with S3 support use it directly. For others, a
helper container in the task mirrors a folder (`tidemill.runtime.cloud.folder_mirror`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Use = Literal["direct", "keep", "send", "fetch", "lost"]
"""`direct`: the program reads and writes the bucket itself. `keep`: mirror the folder of a single owner, and restore it
at the start. `send`: upload finished segments of one of several writers. `fetch`: download what others wrote. `lost`:
do not keep the folder, because the data is elsewhere."""


@dataclass(frozen=True)
class StoreRule:
    """How `service` uses `store`, and why. Both are patterns; the first matching rule applies."""

    store: str
    service: str
    use: Use
    why: str


STORES: tuple[StoreRule, ...] = (
    StoreRule("lakefs-objects", "lakefs", "direct", "lakeFS speaks S3"),
    StoreRule("mlflow-artifacts", "mlflow", "direct", "MLflow speaks S3 and is the only way to its artifacts"),
    StoreRule("prometheus", "prometheus", "lost", "Amazon Managed Prometheus keeps the metrics"),
    StoreRule("grafana", "grafana", "lost", "what people make in Grafana is in Postgres, dashboards are provisioned"),
    StoreRule("capture-*", "serving-*", "send", "many tasks write, none needs what the others wrote"),
    StoreRule("capture-*", "*", "fetch", "the monitor reads what serving captured"),
    StoreRule("access-*", "*", "fetch", "the keys of clients are written by the command line"),
    StoreRule("*", "*", "keep", "the state of a service of which there is one"),
)
LEFT = "stores"
"""Folder of all stores in the bucket."""


def use_of(store: str, service: str) -> Use:
    """Return how `service` uses `store`.

    >>> use_of("capture-flights", "serving-flights"), use_of("capture-flights", "monitor")
    ('send', 'fetch')
    """
    return next(rule.use for rule in STORES if fnmatchcase(store, rule.store) and fnmatchcase(service, rule.service))


def place(store: str) -> str:
    """Return the folder of `store` in the bucket."""
    return f"{LEFT}/{store}"
