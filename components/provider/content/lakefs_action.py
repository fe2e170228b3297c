"""Validates action files of lakeFS.

With a file that it cannot parse, lakeFS answers 500 to every commit and merge of its branch. So the file is checked
before it is committed.
"""

from __future__ import annotations

import re
from typing import Any, cast

from ....runtime.common.errors import ConfigError

FOLDER = "_lakefs_actions/"

# The rules of lakeFS: pkg/actions/action.go and pkg/graveler/hooks_handler.go of 1.86.
_NAME = re.compile(r"\w[\w\-. ]+", re.ASCII)
_HOOK_ID = re.compile(r"[_a-zA-Z][\-_a-zA-Z0-9]{1,255}")
_WHEN = ("pre", "post")
_WHAT = ("commit", "merge", "create-tag", "delete-tag", "create-branch", "delete-branch", "revert", "cherry-pick")
_EVENTS = frozenset({"prepare-commit", *(f"{when}-{what}" for when in _WHEN for what in _WHAT)})
_PROPERTIES = {"webhook": ("url",), "airflow": ("url", "dag_id", "username", "password"), "lua": ()}


def validate_action(text: str, path: str) -> None:
    """Check that lakeFS can parse an action file.

    Args:
        text: content of the file.
        path: its path in the repository, for the error.

    Raises:
        ConfigError: lakeFS cannot parse the file, which would block its branch.
    """
    import yaml

    try:
        found: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the action file is not valid YAML ({error})", field=path) from None
    if not isinstance(found, dict):
        raise ConfigError("the action file is not a mapping", field=path)
    action = cast("dict[Any, Any]", found)
    name = action.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "is not a name that lakeFS accepts", field=f"{path}: name", value=name, hint="use letters and digits"
        )
    # YAML 1.1 reads the key `on` as a boolean; lakeFS does not.
    events = action.get("on", action.get(True))
    if not isinstance(events, dict) or not events:
        raise ConfigError("has no event", field=f"{path}: on", hint="add one, such as `pre-merge`")
    for event in cast("dict[Any, Any]", events):
        if event not in _EVENTS:
            raise ConfigError("is not an event of lakeFS", field=f"{path}: on", value=event)
    hooks = action.get("hooks")
    _validate_hooks([] if hooks is None else hooks, path)


def _validate_hooks(hooks: Any, path: str) -> None:
    if not isinstance(hooks, list):
        raise ConfigError("is not a list", field=f"{path}: hooks", value=hooks)
    seen: set[str] = set()
    for index, item in enumerate(cast("list[Any]", hooks)):
        where = f"{path}: hooks[{index}]"
        if not isinstance(item, dict):
            raise ConfigError("is not a mapping", field=where, value=item)
        hook = cast("dict[str, Any]", item)
        identity = hook.get("id")
        if not isinstance(identity, str) or not _HOOK_ID.fullmatch(identity) or identity in seen:
            raise ConfigError("is not a unique id that lakeFS accepts", field=f"{where}.id", value=identity)
        seen.add(identity)
        kind = hook.get("type")
        if kind not in _PROPERTIES:
            raise ConfigError("is not a type of hook", field=f"{where}.type", value=kind, hint="use webhook")
        properties = cast("dict[str, Any]", hook.get("properties") or {})
        for name in _PROPERTIES[kind]:
            if not isinstance(properties.get(name), str) or not properties[name]:
                raise ConfigError("is missing", field=f"{where}.properties.{name}")
