"""What becomes of each object store on AWS, and who may do what with it: a table. Imports no Pulumi.

Every store is a place below `stores/` in the stack's bucket. A program which speaks S3 uses it directly; for the others
a helper beside them in the task mirrors a folder (`tidemill.runtime.cloud.folder_mirror`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

__all__ = ["LEFT", "STORES", "StoreRule", "Use", "place", "use_of"]

Use = Literal["direct", "keep", "send", "fetch", "lost"]
"""`direct`: the program reads and writes the bucket itself. `keep`: the one owner's folder, restored at its start.
`send`: finished segments of one of several writers; it never reads. `fetch`: what others wrote. `lost`: nothing is
kept, because it is kept elsewhere."""


@dataclass(frozen=True)
class StoreRule:
    """What `service` does with `store`; both are patterns, and the first rule that fits holds."""

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
"""The folder of all stores in the bucket."""


def use_of(store: str, service: str) -> Use:
    """Return what `service` does with `store`.

    >>> use_of("capture-flights", "serving-flights"), use_of("capture-flights", "monitor")
    ('send', 'fetch')
    """
    return next(rule.use for rule in STORES if fnmatchcase(store, rule.store) and fnmatchcase(service, rule.service))


def place(store: str) -> str:
    """Return where `store` is in the bucket."""
    return f"{LEFT}/{store}"
