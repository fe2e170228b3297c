"""The lakeFS action which asks the validation service, as the text of its file."""

from __future__ import annotations

import json
from collections.abc import Sequence

__all__ = ["HOOK_HEADER", "action_yaml"]

HOOK_HEADER = "X-Tidemill-Hook"

# The server fills in LAKEFSACTION_HOOK of its environment. Where its settings do not permit that, the header is empty,
# without an error: the service refuses an empty one.
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
    """Return the action file `_lakefs_actions/*.yaml` which guards `branches`.

    Besides merges it asks before direct commits, imports, cherry-picks and reverts, which the service refuses where
    they could bring data: lakeFS does not show their content beforehand.

    Args:
        name: the action's name; readers trust `tidemill.runtime.data.lake_client.GATE_ACTION` alone.
        branches: the guarded branches; lakeFS reads patterns of names.
        url: the service's hook, `http://HOST:PORT/hooks/lakefs`.
    """
    return _TEMPLATE.format(name=name, branches=json.dumps([*branches]), url=url, header=HOOK_HEADER)
