"""Every route of the pinned MLflow, with the roles that may use it. Other accounts get 403.

Administrators may use every route, and only they may use one that is missing here. So that a new MLflow cannot add a
route unnoticed, `tests/integration/test_mlflow_access.py` compares this table with the routes of the installed version.

    {api}   both /api and /ajax-api, which MLflow registers for its clients and for its web pages
    <name>  any text; <path> in an artifact route contains slashes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import Final

from .accounts import METRICS, MONITOR, PEOPLE, PROMOTE, RETRAINING, SERVING, TRAIN, TRAINING

Route = tuple[str, str]
"""Method and path."""

PUBLIC: Final[frozenset[str]] = frozenset({"*"})
"""Role of requests without credentials."""

ANY_ACCOUNT: Final[frozenset[str]] = frozenset({"account"})
"""Role of every account, also of one without another role."""

_ADMIN: frozenset[str] = frozenset()
_FETCHERS = PEOPLE | {SERVING, MONITOR, TRAINING, RETRAINING}
_FINDERS = PEOPLE | {SERVING, TRAINING, RETRAINING}
_READERS = PEOPLE | {TRAINING}
_TRAINERS = frozenset({TRAINING, TRAIN})
_PROMOTERS = frozenset({RETRAINING, PROMOTE})

_RULES: tuple[tuple[frozenset[str], str], ...] = (
    # The health check, and the program text of MLflow's web pages.
    (PUBLIC, "GET /health | GET /static-files/<path>"),
    (
        ANY_ACCOUNT,
        """
        GET /version
        GET {api}/2.0/mlflow/users/current
        GET {api}/3.0/mlflow/server-info
        """,
    ),
    (frozenset({METRICS}), "GET /metrics"),
    # A version by its alias or number, its run, and their artifacts. To list a run's artifacts, MLflow's client also
    # searches the run's logged models.
    (
        _FETCHERS,
        """
        GET {api}/2.0/mlflow/registered-models/alias
        GET {api}/2.0/mlflow/registered-models/get
        GET {api}/2.0/mlflow/model-versions/get
        GET {api}/2.0/mlflow/model-versions/get-download-uri
        GET {api}/2.0/mlflow/runs/get
        GET {api}/2.0/mlflow/artifacts/list
        GET {api}/2.0/mlflow/logged-models/<model_id>
        GET {api}/2.0/mlflow/logged-models/<model_id>/artifacts/directories
        POST {api}/2.0/mlflow/logged-models/search
        GET {api}/2.0/mlflow-artifacts/artifacts
        GET {api}/2.0/mlflow-artifacts/artifacts/<artifact_path>
        """,
    ),
    (_FINDERS, "GET {api}/2.0/mlflow/model-versions/search"),
    (
        _READERS,
        """
        GET {api}/2.0/mlflow/experiments/get
        GET {api}/2.0/mlflow/experiments/get-by-name
        GET,POST {api}/2.0/mlflow/experiments/search
        POST {api}/2.0/mlflow/runs/search
        GET {api}/2.0/mlflow/metrics/get-history
        GET {api}/2.0/mlflow/metrics/get-history-bulk-interval
        GET {api}/2.0/mlflow/registered-models/search
        GET,POST {api}/2.0/mlflow/registered-models/get-latest-versions
        """,
    ),
    # The web pages. Their requests for traces find none: only administrators can create traces.
    (
        PEOPLE,
        """
        GET /
        GET /build/<filename>
        GET,POST /graphql
        GET /get-artifact
        GET /model-versions/get-artifact
        GET /ajax-api/2.0/mlflow/logged-models/<model_id>/artifacts/files
        GET /ajax-api/2.0/mlflow/metrics/get-history-bulk
        POST /ajax-api/2.0/mlflow/experiments/search-datasets
        GET /ajax-api/3.0/mlflow/ui-telemetry
        GET {api}/3.0/mlflow/users/current/permissions
        GET {api}/2.0/mlflow/traces
        POST {api}/3.0/mlflow/traces/search
        POST {api}/3.0/mlflow/traces/metrics
        """,
    ),
    # A person's own password; MLflow requires the current one.
    (PEOPLE, "PATCH {api}/2.0/mlflow/users/update-password"),
    # MLflow's client calls `registered-models/create` before each new version; the store refuses a new name.
    (
        _TRAINERS,
        """
        POST {api}/2.0/mlflow/runs/create
        POST {api}/2.0/mlflow/runs/update
        POST {api}/2.0/mlflow/runs/log-metric
        POST {api}/2.0/mlflow/runs/log-parameter
        POST {api}/2.0/mlflow/runs/log-batch
        POST {api}/2.0/mlflow/runs/log-model
        POST {api}/2.0/mlflow/runs/log-inputs
        POST {api}/2.0/mlflow/runs/outputs
        POST {api}/2.0/mlflow/runs/set-tag
        POST {api}/2.0/mlflow/runs/delete-tag
        POST {api}/2.0/mlflow/logged-models
        PATCH {api}/2.0/mlflow/logged-models/<model_id>
        PATCH {api}/2.0/mlflow/logged-models/<model_id>/tags
        DELETE {api}/2.0/mlflow/logged-models/<model_id>/tags/<tag_key>
        POST {api}/2.0/mlflow/logged-models/<model_id>/params
        PUT {api}/2.0/mlflow-artifacts/artifacts/<artifact_path>
        POST {api}/2.0/mlflow-artifacts/mpu/create/<artifact_path>
        POST {api}/2.0/mlflow-artifacts/mpu/complete/<artifact_path>
        POST {api}/2.0/mlflow-artifacts/mpu/abort/<artifact_path>
        POST {api}/2.0/mlflow/registered-models/create
        POST {api}/2.0/mlflow/model-versions/create
        """,
    ),
    (
        _PROMOTERS,
        """
        POST,DELETE {api}/2.0/mlflow/registered-models/alias
        POST {api}/2.0/mlflow/model-versions/set-tag
        DELETE {api}/2.0/mlflow/model-versions/delete-tag
        """,
    ),
    (frozenset({PROMOTE}), "PATCH {api}/2.0/mlflow/model-versions/update"),
    # Content that `up` declares, deletions, and links with which anyone can read an artifact.
    (
        _ADMIN,
        """
        POST /ajax-api/2.0/mlflow/runs/create-promptlab-run
        POST /ajax-api/2.0/mlflow/upload-artifact
        DELETE {api}/2.0/mlflow-artifacts/artifacts/<artifact_path>
        GET {api}/2.0/mlflow-artifacts/presigned/<artifact_path>
        POST {api}/2.0/mlflow/artifacts/presigned-download-url
        POST {api}/2.0/mlflow/artifacts/presigned-upload-url
        POST {api}/2.0/mlflow/experiments/create
        POST {api}/2.0/mlflow/experiments/delete
        POST {api}/2.0/mlflow/experiments/delete-experiment-tag
        POST {api}/2.0/mlflow/experiments/restore
        POST {api}/2.0/mlflow/experiments/set-experiment-tag
        POST {api}/2.0/mlflow/experiments/update
        DELETE {api}/2.0/mlflow/logged-models/<model_id>
        DELETE {api}/2.0/mlflow/model-versions/delete
        POST {api}/2.0/mlflow/model-versions/transition-stage
        DELETE {api}/2.0/mlflow/registered-models/delete
        DELETE {api}/2.0/mlflow/registered-models/delete-tag
        POST {api}/2.0/mlflow/registered-models/rename
        POST {api}/2.0/mlflow/registered-models/set-tag
        PATCH {api}/2.0/mlflow/registered-models/update
        POST {api}/2.0/mlflow/runs/delete
        POST {api}/2.0/mlflow/runs/restore
        """,
    ),
    # Accounts and permissions.
    (
        _ADMIN,
        """
        POST /api/2.0/mlflow/users/create-ui
        GET /signup
        POST {api}/2.0/mlflow/users/create
        DELETE {api}/2.0/mlflow/users/delete
        GET {api}/2.0/mlflow/users/get
        GET {api}/2.0/mlflow/users/list
        PATCH {api}/2.0/mlflow/users/update-admin
        POST {api}/3.0/mlflow/roles/assign
        POST {api}/3.0/mlflow/roles/create
        DELETE {api}/3.0/mlflow/roles/delete
        GET {api}/3.0/mlflow/roles/get
        GET {api}/3.0/mlflow/roles/list
        POST {api}/3.0/mlflow/roles/permissions/add
        GET {api}/3.0/mlflow/roles/permissions/list
        DELETE {api}/3.0/mlflow/roles/permissions/remove
        PATCH {api}/3.0/mlflow/roles/permissions/update
        DELETE {api}/3.0/mlflow/roles/unassign
        PATCH {api}/3.0/mlflow/roles/update
        GET {api}/3.0/mlflow/roles/users/list
        GET {api}/3.0/mlflow/users/permissions/get
        POST {api}/3.0/mlflow/users/permissions/grant
        GET {api}/3.0/mlflow/users/permissions/list
        POST {api}/3.0/mlflow/users/permissions/revoke
        GET {api}/3.0/mlflow/users/roles/list
        """,
    ),
    # Parts of MLflow that the platform does not use.
    (
        _ADMIN,
        """
        GET,POST /ajax-api/2.0/mlflow/gateway-proxy
        GET /ajax-api/2.0/mlflow/get-trace-artifact
        POST /ajax-api/3.0/jobs/
        GET /ajax-api/3.0/jobs/<job_id>
        PATCH /ajax-api/3.0/jobs/cancel/<job_id>
        POST /ajax-api/3.0/jobs/search
        GET,PUT /ajax-api/3.0/mlflow/assistant/config
        POST /ajax-api/3.0/mlflow/assistant/message
        GET /ajax-api/3.0/mlflow/assistant/providers
        GET /ajax-api/3.0/mlflow/assistant/providers/<provider>/health
        GET /ajax-api/3.0/mlflow/assistant/providers/<provider>/models
        PATCH /ajax-api/3.0/mlflow/assistant/sessions/<session_id>
        POST /ajax-api/3.0/mlflow/assistant/sessions/<session_id>/permission
        GET /ajax-api/3.0/mlflow/assistant/sessions/<session_id>/stream
        POST /ajax-api/3.0/mlflow/assistant/sessions/<session_id>/tool-result
        POST /ajax-api/3.0/mlflow/assistant/skills/install
        POST /ajax-api/3.0/mlflow/demo/delete
        POST /ajax-api/3.0/mlflow/demo/generate
        GET /ajax-api/3.0/mlflow/gateway/provider-config
        GET /ajax-api/3.0/mlflow/gateway/secrets/config
        GET /ajax-api/3.0/mlflow/gateway/supported-models
        GET /ajax-api/3.0/mlflow/gateway/supported-providers
        POST /ajax-api/3.0/mlflow/genai/evaluate/invoke
        GET /ajax-api/3.0/mlflow/get-trace-artifact
        POST /ajax-api/3.0/mlflow/issues/invoke
        GET /ajax-api/3.0/mlflow/jobs/<job_id>
        PATCH /ajax-api/3.0/mlflow/jobs/cancel/<job_id>
        POST /ajax-api/3.0/mlflow/scorer/invoke
        POST /ajax-api/3.0/mlflow/ui-telemetry
        POST /gateway/<endpoint_name>/mlflow/invocations
        POST /gateway/anthropic/v1/messages
        POST /gateway/gemini/v1beta/models/<endpoint_name>:generateContent
        POST /gateway/gemini/v1beta/models/<endpoint_name>:streamGenerateContent
        POST /gateway/mlflow/v1/chat/completions
        GET /gateway/mlflow/v1/models
        POST /gateway/openai/v1/chat/completions
        POST /gateway/openai/v1/embeddings
        POST /gateway/openai/v1/responses
        POST /gateway/openai/v1/responses/compact
        POST /gateway/proxy/<endpoint_name>/<path>
        POST /gateway/typesafe/v1/systemone
        POST /v1/traces
        GET {api}/2.0/mlflow/get-online-trace-details
        POST {api}/2.0/mlflow/traces
        PATCH {api}/2.0/mlflow/traces/<request_id>
        GET {api}/2.0/mlflow/traces/<request_id>/info
        DELETE,PATCH {api}/2.0/mlflow/traces/<request_id>/tags
        POST {api}/2.0/mlflow/traces/delete-traces
        POST {api}/2.0/mlflow/traces/link-prompts
        POST {api}/2.0/mlflow/traces/link-to-run
        GET {api}/2.0/mlflow/unified-traces
        GET,POST {api}/2.0/mlflow/webhooks
        DELETE,GET,PATCH {api}/2.0/mlflow/webhooks/<webhook_id>
        POST {api}/2.0/mlflow/webhooks/<webhook_id>/test
        POST {api}/2.0mlflow/experiments/search-datasets
        DELETE,GET {api}/3.0/mlflow/datasets/<dataset_id>
        POST {api}/3.0/mlflow/datasets/<dataset_id>/add-experiments
        GET {api}/3.0/mlflow/datasets/<dataset_id>/experiment-ids
        DELETE,GET,POST {api}/3.0/mlflow/datasets/<dataset_id>/records
        POST {api}/3.0/mlflow/datasets/<dataset_id>/remove-experiments
        PATCH {api}/3.0/mlflow/datasets/<dataset_id>/tags
        DELETE {api}/3.0/mlflow/datasets/<dataset_id>/tags/<key>
        POST {api}/3.0/mlflow/datasets/create
        GET,POST {api}/3.0/mlflow/datasets/search
        POST {api}/3.0/mlflow/gateway/budgets/create
        DELETE {api}/3.0/mlflow/gateway/budgets/delete
        GET {api}/3.0/mlflow/gateway/budgets/get
        GET {api}/3.0/mlflow/gateway/budgets/list
        POST {api}/3.0/mlflow/gateway/budgets/update
        GET {api}/3.0/mlflow/gateway/budgets/windows
        POST {api}/3.0/mlflow/gateway/endpoints/bindings/create
        DELETE {api}/3.0/mlflow/gateway/endpoints/bindings/delete
        GET {api}/3.0/mlflow/gateway/endpoints/bindings/list
        POST {api}/3.0/mlflow/gateway/endpoints/create
        DELETE {api}/3.0/mlflow/gateway/endpoints/delete
        DELETE {api}/3.0/mlflow/gateway/endpoints/delete-tag
        GET {api}/3.0/mlflow/gateway/endpoints/get
        GET {api}/3.0/mlflow/gateway/endpoints/list
        POST {api}/3.0/mlflow/gateway/endpoints/models/attach
        POST {api}/3.0/mlflow/gateway/endpoints/models/detach
        POST {api}/3.0/mlflow/gateway/endpoints/set-tag
        POST {api}/3.0/mlflow/gateway/endpoints/update
        POST {api}/3.0/mlflow/gateway/guardrails/add-to-endpoint
        POST {api}/3.0/mlflow/gateway/guardrails/create
        DELETE {api}/3.0/mlflow/gateway/guardrails/delete
        GET {api}/3.0/mlflow/gateway/guardrails/get
        GET {api}/3.0/mlflow/gateway/guardrails/list
        GET {api}/3.0/mlflow/gateway/guardrails/list-for-endpoint
        DELETE {api}/3.0/mlflow/gateway/guardrails/remove-from-endpoint
        PATCH {api}/3.0/mlflow/gateway/guardrails/update-config
        POST {api}/3.0/mlflow/gateway/model-definitions/create
        DELETE {api}/3.0/mlflow/gateway/model-definitions/delete
        GET {api}/3.0/mlflow/gateway/model-definitions/get
        GET {api}/3.0/mlflow/gateway/model-definitions/list
        POST {api}/3.0/mlflow/gateway/model-definitions/update
        POST {api}/3.0/mlflow/gateway/secrets/create
        DELETE {api}/3.0/mlflow/gateway/secrets/delete
        GET {api}/3.0/mlflow/gateway/secrets/get
        GET {api}/3.0/mlflow/gateway/secrets/list
        POST {api}/3.0/mlflow/gateway/secrets/update
        POST {api}/3.0/mlflow/issues
        GET,PATCH {api}/3.0/mlflow/issues/<issue_id>
        POST {api}/3.0/mlflow/issues/search
        POST {api}/3.0/mlflow/label-schemas/create
        DELETE {api}/3.0/mlflow/label-schemas/delete
        GET {api}/3.0/mlflow/label-schemas/get
        GET {api}/3.0/mlflow/label-schemas/get-by-name
        GET {api}/3.0/mlflow/label-schemas/list
        PATCH {api}/3.0/mlflow/label-schemas/update
        GET,POST {api}/3.0/mlflow/mcp-servers
        DELETE,GET,PATCH {api}/3.0/mlflow/mcp-servers/<name>
        POST {api}/3.0/mlflow/mcp-servers/<name>/aliases
        DELETE,GET {api}/3.0/mlflow/mcp-servers/<name>/aliases/<alias>
        GET,POST {api}/3.0/mlflow/mcp-servers/<name>/endpoints
        DELETE,GET,PATCH {api}/3.0/mlflow/mcp-servers/<name>/endpoints/<endpoint_id>
        POST {api}/3.0/mlflow/mcp-servers/<name>/tags
        DELETE {api}/3.0/mlflow/mcp-servers/<name>/tags/<key>
        GET,POST {api}/3.0/mlflow/mcp-servers/<name>/versions
        DELETE,GET,PATCH {api}/3.0/mlflow/mcp-servers/<name>/versions/<version>
        POST {api}/3.0/mlflow/mcp-servers/<name>/versions/<version>/tags
        DELETE {api}/3.0/mlflow/mcp-servers/<name>/versions/<version>/tags/<key>
        GET {api}/3.0/mlflow/mcp-servers/endpoints
        POST {api}/3.0/mlflow/prompt-optimization/jobs
        DELETE,GET {api}/3.0/mlflow/prompt-optimization/jobs/<job_id>
        POST {api}/3.0/mlflow/prompt-optimization/jobs/<job_id>/cancel
        GET,POST {api}/3.0/mlflow/prompt-optimization/jobs/search
        POST {api}/3.0/mlflow/review-queues/create
        POST {api}/3.0/mlflow/review-queues/delete
        GET {api}/3.0/mlflow/review-queues/get
        GET {api}/3.0/mlflow/review-queues/get-by-name
        POST {api}/3.0/mlflow/review-queues/get-or-create-user
        POST {api}/3.0/mlflow/review-queues/items/add
        GET {api}/3.0/mlflow/review-queues/items/list
        POST {api}/3.0/mlflow/review-queues/items/remove
        POST {api}/3.0/mlflow/review-queues/items/set-status
        GET {api}/3.0/mlflow/review-queues/list
        POST {api}/3.0/mlflow/review-queues/update
        DELETE {api}/3.0/mlflow/scorers/delete
        GET {api}/3.0/mlflow/scorers/get
        GET {api}/3.0/mlflow/scorers/list
        PUT {api}/3.0/mlflow/scorers/online-config
        GET {api}/3.0/mlflow/scorers/online-configs
        POST {api}/3.0/mlflow/scorers/register
        GET {api}/3.0/mlflow/scorers/versions
        POST {api}/3.0/mlflow/traces
        GET {api}/3.0/mlflow/traces/<trace_id>
        POST {api}/3.0/mlflow/traces/<trace_id>/assessments
        DELETE,GET,PATCH {api}/3.0/mlflow/traces/<trace_id>/assessments/<assessment_id>
        DELETE,PATCH {api}/3.0/mlflow/traces/<trace_id>/tags
        GET {api}/3.0/mlflow/traces/batchGet
        POST {api}/3.0/mlflow/traces/batchGetInfos
        POST {api}/3.0/mlflow/traces/calculate-filter-correlation
        POST {api}/3.0/mlflow/traces/delete-traces
        GET {api}/3.0/mlflow/traces/get
        GET,POST {api}/3.0/mlflow/workspaces
        DELETE,GET,PATCH {api}/3.0/mlflow/workspaces/<workspace_name>
        """,
    ),
)


def _expanded() -> Iterator[tuple[Route, frozenset[str]]]:
    for roles, text in _RULES:
        for line in re.split(r"[|\n]", text):
            if not line.strip():
                continue
            methods, path = line.split()
            for prefix in ("/api", "/ajax-api") if "{api}" in path else ("",):
                for method in methods.split(","):
                    yield (method, path.replace("{api}", prefix)), roles


def _table() -> Mapping[Route, frozenset[str]]:
    table: dict[Route, frozenset[str]] = {}
    for route, roles in _expanded():
        if route in table:
            raise ValueError(f"the route {' '.join(route)} is in the table twice")
        table[route] = roles
    return table


TABLE: Final[Mapping[Route, frozenset[str]]] = _table()
"""Method and path -> the roles that may use it; empty for administrators only, PUBLIC for everyone."""


def canonical(path: str) -> str:
    """Return a path of Flask or FastAPI with its parameters as `<name>`.

    >>> canonical("/artifacts/<path:artifact_path>"), canonical("/artifacts/{artifact_path:path}")
    ('/artifacts/<artifact_path>', '/artifacts/<artifact_path>')
    """
    path = re.sub(r"<(?:[^<>:]+:)?([^<>:]+)>", r"<\1>", path)
    return re.sub(r"\{([^{}:]+)(?::[^{}]+)?\}", r"<\1>", path)


def permits(route: Route, roles: Set[str]) -> bool:
    """Return whether an account with `roles` that is not an administrator may use `route`.

    >>> permits(("GET", "/metrics"), {"metrics"}), permits(("GET", "/metrics"), {"serving"})
    (True, False)
    """
    permitted = TABLE.get(route, _ADMIN)
    return permitted == ANY_ACCOUNT or not roles.isdisjoint(permitted)
