"""The lakeFS action which asks the validation service, as the text of its file."""

from __future__ import annotations

__all__ = ["HOOK_HEADER", "action_yaml"]

HOOK_HEADER = "X-Tidemill-Hook"

# The server fills in LAKEFSACTION_HOOK of its environment. Where its settings do not permit that, the header is empty,
# without an error: the service refuses an empty one.
_TEMPLATE = """\
name: {name}
on:
  pre-merge:
    branches: ["{branch}"]
  pre-commit:
    branches: ["{branch}"]
  pre-cherry-pick:
    branches: ["{branch}"]
  pre-revert:
    branches: ["{branch}"]
hooks:
  - id: validate
    type: webhook
    properties:
      url: "{url}"
      timeout: 5m
      headers:
        {header}: "{{{{ ENV.LAKEFSACTION_HOOK }}}}"
"""


def action_yaml(name: str, branch: str, url: str) -> str:
    """Return the action file `_lakefs_actions/*.yaml` which guards `branch`.

    Besides merges it asks before direct commits, imports, cherry-picks and reverts, which the service refuses where
    they could bring data: lakeFS does not show their content beforehand.

    Args:
        name: the action's name; readers trust `tidemill.runtime.lake.GATE_ACTION` alone.
        branch: the guarded branch.
        url: the service's hook, `http://HOST:PORT/hooks/lakefs`.
    """
    return _TEMPLATE.format(name=name, branch=branch, url=url, header=HOOK_HEADER)
