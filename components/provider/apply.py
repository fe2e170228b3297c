"""Make, change or delete one content resource where its server is reached: in a task within the stack's network.

`python -m tidemill.components.provider.apply` does what `TIDEMILL_CONTENT` says, such as
`{"action": "create", "kind": "tidemill-native:lakefs:Repository", "properties": {...}}`.

It imports neither Pulumi nor the engine's protocol.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from ...runtime.common.errors import ConfigError, TidemillError
from .base import Context, Properties, lookup
from .content.base import ContentResource

__all__ = ["apply", "main"]

_VARIABLE = "TIDEMILL_CONTENT"


def apply(wanted: Mapping[str, Any], context: Context) -> Properties | None:
    """Do what `wanted` says; return the state, or None where it is gone.

    Raises:
        TidemillError: it cannot be done.
    """
    kind, properties = lookup(str(wanted["kind"])), dict(wanted["properties"])
    if not isinstance(kind, ContentResource):
        raise ConfigError("is nothing within a server", field="kind", value=wanted["kind"])
    match wanted["action"]:
        case "create":
            return kind.create(context, properties)[1]
        case "update":
            found = kind.look(kind.connect(properties), properties)
            if found is None:
                return kind.create(context, properties)[1]
            return kind.update(context, found, properties)
        case "delete":
            kind.delete(context, properties)
            return None
        case other:
            raise ConfigError("is none", field="action", value=other, hint="use create, update or delete")


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Do what `TIDEMILL_CONTENT` says and return the exit code; the last line says in words what went wrong."""
    wanted = json.loads(environ[_VARIABLE])
    name = str(wanted["properties"].get("name") or wanted["kind"])
    context = Context(urn=name, warn=_warn)
    try:
        found = apply(wanted, context)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps({"name": name, "action": wanted["action"], "state": found}, default=str) + "\n")
    return 0


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
