"""The lakeFS action that calls the validation service, as the text of its file."""

from __future__ import annotations

import json
from collections.abc import Sequence

HOOK_HEADER = "X-Tidemill-Hook"

GATE_ACTION = "tidemill-gate"
"""Name of the action that calls the validation service; readers do not rely on it."""

# lakeFS replaces LAKEFSACTION_HOOK from its environment. If its settings forbid that, the header is silently empty, and
# the service rejects the call.
_TEMPLATE = """\
name: {name}
on:
  pre-merge:
    branches: {branches}
  pre-commit:
    branches: {branches}
  pre-cherry-pick:
    branches: {branches}
  pre-revert:
    branches: {branches}
hooks:
  - id: validate
    type: webhook
    properties:
      url: "{url}"
      timeout: 5m
      headers:
        {header}: "{{{{ ENV.LAKEFSACTION_HOOK }}}}"
"""


def action_yaml(name: str, branches: Sequence[str], url: str) -> str:
    """Return the action file `_lakefs_actions/*.yaml` that guards `branches`.

    lakeFS calls the service before merges, and also before direct commits, imports, cherry-picks and reverts. The
    service refuses these if they could bring data, because lakeFS does not show their content beforehand.

    Args:
        name: the action's name.
        branches: names or patterns of the guarded branches.
        url: the service's hook, `http://HOST:PORT/hooks/lakefs`.
    """
    return _TEMPLATE.format(name=name, branches=json.dumps([*branches]), url=url, header=HOOK_HEADER)
