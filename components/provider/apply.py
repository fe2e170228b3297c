"""Creates, changes or deletes one content resource from a task in the stack's network, which reaches its server.

`python -m tidemill.components.provider.apply` carries out the order in `TIDEMILL_CONTENT`, such as
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

_VARIABLE = "TIDEMILL_CONTENT"


def apply(wanted: Mapping[str, Any], context: Context) -> Properties | None:
    """Carry out the order `wanted`; return the new state, or None after a deletion.

    Raises:
        TidemillError: the order failed.
    """
    kind, properties = lookup(str(wanted["kind"])), dict(wanted["properties"])
    if not isinstance(kind, ContentResource):
        raise ConfigError("is not a content resource", field="kind", value=wanted["kind"])
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
            raise ConfigError("is not an action", field="action", value=other, hint="use create, update or delete")


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Carry out the order in `TIDEMILL_CONTENT` and return the exit code; print an error as the last line."""
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
