"""The HTTP interface of the retraining service: `POST /alerts` (for Alertmanager), `GET /status`, health, metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from ..common.service import add_metrics, bearer, token_of
from .jobs.launcher import Launcher
from .jobs.process import ProcessLauncher
from .platform import Platform
from .reconciler import Reconciler, Retrainer
from .retrainings import FILE, RetrainingStore
from .settings import RetrainingSettings


class Alert(BaseModel):
    """An alert from Alertmanager's webhook, with the fields that are used here."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict[str, str])
    endsAt: AwareDatetime | None = None  # noqa: N815 - Alertmanager's own name


class Webhook(BaseModel):
    """The body of Alertmanager's webhook, version 4."""

    version: Literal["4"]
    alerts: list[Alert] = Field(max_length=1000)


class _Retrainings(Collector):
    """Counts retrainings in the store, so that the counts survive a restart."""

    def __init__(self, store: RetrainingStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        closed = CounterMetricFamily(
            "tidemill_retraining",
            "Closed retrainings that launched a job, by outcome.",
            labels=["model", "reason", "outcome"],
        )
        for model, reason, outcome, number in self._store.outcomes():
            closed.add_metric([model, reason, outcome], number)
        yield closed
        open_ = GaugeMetricFamily(
            "tidemill_retraining_open", "Open retrainings, by state.", labels=["model", "reason", "state"]
        )
        for retraining in self._store.open_retrainings():
            open_.add_metric([retraining.model, retraining.reason, retraining.state], 1)
        yield open_


def create_app(settings: RetrainingSettings) -> FastAPI:
    """Return the service; its reconciler thread runs until shutdown.

    Raises:
        NotFoundError, ConfigError: a secret is missing or empty.
    """
    token = token_of(settings.listen)
    store = RetrainingStore(settings.state / FILE)
    platform = Platform(settings.lake, settings.registry)
    retrainer = Retrainer(
        {model.name: model for model in settings.models},
        runtime=settings.runtime,
        store=store,
        launcher=_launcher(settings),
        platform=platform,
    )
    reconciler = Reconciler(retrainer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        reconciler.start()
        try:
            yield
        finally:
            reconciler.stop()
            platform.close()
            store.close()

    app = FastAPI(title="tidemill retraining", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    registry = CollectorRegistry()
    registry.register(_Retrainings(store))
    add_metrics(app, token, registry)
    guarded = [Depends(bearer(token))]

    # Read here, because FastAPI reads a declared body before it checks the token.
    @app.post("/alerts", dependencies=guarded)
    async def alerts(request: Request) -> dict[str, Any]:
        try:
            webhook = Webhook.model_validate_json(await request.body())
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise HTTPException(422, problems) from None
        answers = await run_in_threadpool(_handle_all, retrainer, webhook)
        reconciler.wake()
        return {"alerts": answers}

    @app.get("/status", dependencies=guarded)
    def status() -> dict[str, Any]:
        return {
            "retrainings": [retraining.model_dump(mode="json") for retraining in store.newest()],
            "recoveries": [recovery.model_dump(mode="json") for recovery in store.recoveries()],
        }

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, str]:
        if reconciler.alive:
            return {"status": "ready", **_recovery_notice(store)}
        response.status_code = 503
        return {"status": "the reconciler has stopped"}

    return app


def _recovery_notice(store: RetrainingStore) -> dict[str, str]:
    """Return the field `error` while damaged files of the database are kept."""
    recoveries = store.recoveries()
    if not recoveries:
        return {}
    last = recoveries[-1]
    source = "its copy" if last.restored else "an empty database, because no copy was usable"
    return {
        "error": f"{last.problem} ({last.at:%Y-%m-%d %H:%M} UTC); the service started from {source}; "
        f"delete {' and '.join(last.kept)} in its folder to remove this notice"
    }


def _launcher(settings: RetrainingSettings) -> Launcher:
    """Return the launcher of the settings; only its module is imported."""
    chosen = settings.launcher
    if chosen.kind == "runner":
        from .jobs.runner import RunnerLauncher

        return RunnerLauncher(chosen.url, chosen.token_file)
    if chosen.kind == "ecs":
        from .jobs.ecs import TaskLauncher

        return TaskLauncher(chosen)
    return ProcessLauncher(settings.state / "jobs")


def _handle_all(retrainer: Retrainer, webhook: Webhook) -> list[dict[str, Any]]:
    # Resolved alerts first: the alert about one version ends as that about the next begins.
    ordered = sorted(webhook.alerts, key=lambda alert: alert.status == "firing")
    return [_handle(retrainer, alert) for alert in ordered]


def _handle(retrainer: Retrainer, alert: Alert) -> dict[str, Any]:
    model, reason = alert.labels.get("model"), alert.labels.get("reason")
    subject: dict[str, Any] = {"model": model, "reason": reason, "retraining": None}
    if not model or not reason:
        return {**subject, "queued": False, "why": "the alert needs the labels `model` and `reason`"}
    served = alert.labels.get("version")
    if alert.status == "resolved":
        answer = retrainer.resolve(model, reason, served=served, at=alert.endsAt)
    else:
        name = alert.labels.get("alertname", "alert")
        why = f"{name}: {alert.annotations.get('summary') or 'fires'}"
        answer = retrainer.fire(model, reason, why=why, served=served)
    return {**subject, "retraining": answer.retraining, "queued": answer.queued, "why": answer.why}
