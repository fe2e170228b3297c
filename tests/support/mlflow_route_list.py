"""The real MLflow application, which also records every route that it registers.

    uvicorn --factory tests.support.mlflow_route_list:create_app

The environment variable ROUTES_FILE is the path of the file: a JSON list of [framework, method, path].
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

    routes: list[tuple[str, str, str]] = []
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, Mount):
            # The only one is MLflow's Flask application, whose routes follow.
            routes.append(("mount", "*", context.original_route.path))
            continue
        routes.extend(("fastapi", method, context.path or "") for method in context.methods or {"websocket"})
    for rule in flask.url_map.iter_rules():
        routes.extend(("flask", method, rule.rule) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"})
    Path(os.environ["ROUTES_FILE"]).write_text(json.dumps(routes))
    return app
