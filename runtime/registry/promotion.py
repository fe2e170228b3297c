"""Promotion of model versions: the aliases `champion` (serves) and `previous` (for rollback).

The verdict of each promotion is stored as tags of the version.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ..common.settings import PromoteSettings, RegistrySettings
from ..common.tags import GATE_VERDICT
from .gate import Verdict, judge
from .versions import CHAMPION, ModelVersion, connect, find_by_alias, translate_errors

PREVIOUS = "previous"

VERDICT_TAG = GATE_VERDICT
REASONS_TAG = "tidemill.gate.reasons"
JUDGED_TAG = "tidemill.gate.judged_at"


def promote(
    model: str, number: str | int, gate: PromoteSettings, *, registry: RegistrySettings | None = None
) -> Verdict:
    """Judge a version by its run's metric; if it passes, make it the champion and keep the old one as `previous`.

    It is safe to call again after an interruption. Promoting the current champion changes no alias.

    Args:
        model: the registered model's name.
        number: the version to judge.
        gate: the metric and its minimum.
        registry: the MLflow server; that of TIDEMILL_RUNTIME by default.

    Raises:
        NotFoundError: the model or the version does not exist.
        UnreachableError: the registry does not answer.
    """
    client = connect(registry)
    with translate_errors(f"{model}@{number}"):
        candidate = ModelVersion.of(client.get_model_version(model, str(number)))
        value = client.get_run(candidate.run_id).data.metrics.get(gate.metric)
        accepted, reason = judge(gate, value)
        champion = find_by_alias(client, model, CHAMPION)
        previous = champion.version if champion and champion.version != candidate.version else None
        for key, text in {
            VERDICT_TAG: "accepted" if accepted else "refused",
            REASONS_TAG: json.dumps([reason]),
            JUDGED_TAG: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }.items():
            client.set_model_version_tag(model, candidate.version, key, text)
        if accepted:
            # In this order, a crash in between still leaves a champion, and a second call gives the same result.
            if previous:
                client.set_registered_model_alias(model, PREVIOUS, previous)
            if champion is None or previous:
                client.set_registered_model_alias(model, CHAMPION, candidate.version)
    return Verdict(accepted, (reason,), model, candidate.version, previous, value)


def set_alias(model: str, alias: str, number: str, *, registry: RegistrySettings | None = None) -> None:
    """Point `alias` at a version.

    Raises:
        NotFoundError: the model or the version does not exist.
        UnreachableError: the registry does not answer.
    """
    client = connect(registry)
    with translate_errors(f"{model}@{number}"):
        client.set_registered_model_alias(model, alias, number)
