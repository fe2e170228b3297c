"""Runs MLflow's server with limits: `python -m tidemill.runtime.registry --host HOST --port PORT`.

The limits of heads and connections are in `common.limited_server`, those of bodies in
`mlflow_bodies`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from ..common.limited_server import LimitedServer


def main(argv: list[str] | None = None) -> int:
    """Serve MLflow until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="tidemill.runtime.registry", description="Serve MLflow.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    given = parser.parse_args(argv)
    server = LimitedServer(
        "tidemill.runtime.registry.mlflow_app:create_app", factory=True, host=given.host, port=given.port
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
