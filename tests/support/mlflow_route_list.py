"""The real MLflow application, which also writes down every route that it registers.

    uvicorn --factory tests.support.mlflow_told:create_app

TOLD names the file: a JSON list of [framework, method, path].
"""

import json
import os
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount


def create_app() -> FastAPI:
    """Return the application of the runtime."""
    from tidemill.runtime.registry import mlflow_app

    app = mlflow_app.create_app()
    from mlflow.server import app as flask

    told: list[tuple[str, str, str]] = []
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, Mount):
            # The only one is MLflow's Flask application, whose routes follow.
            told.append(("mount", "*", context.original_route.path))
            continue
        told.extend(("fastapi", method, context.path or "") for method in context.methods or {"websocket"})
    for rule in flask.url_map.iter_rules():
        told.extend(("flask", method, rule.rule) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"})
    Path(os.environ["TOLD"]).write_text(json.dumps(told))
    return app
