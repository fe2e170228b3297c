"""The form lakeFS asks of an action file.

A file which lakeFS cannot parse makes it answer 500 to every commit and merge of the branch which has it, so it is
checked before it gets there.
"""

from __future__ import annotations

import re
from typing import Any, cast

from ....runtime.common.errors import ConfigError

__all__ = ["FOLDER", "validate_action"]

FOLDER = "_lakefs_actions/"

# lakeFS's own rules: pkg/actions/action.go and pkg/graveler/hooks_handler.go of 1.86.
_NAME = re.compile(r"\w[\w\-. ]+", re.ASCII)
_HOOK_ID = re.compile(r"[_a-zA-Z][\-_a-zA-Z0-9]{1,255}")
_WHEN = ("pre", "post")
_WHAT = ("commit", "merge", "create-tag", "delete-tag", "create-branch", "delete-branch", "revert", "cherry-pick")
_EVENTS = frozenset({"prepare-commit", *(f"{when}-{what}" for when in _WHEN for what in _WHAT)})
_PROPERTIES = {"webhook": ("url",), "airflow": ("url", "dag_id", "username", "password"), "lua": ()}


def validate_action(text: str, path: str) -> None:
    """Check that lakeFS can read `text` as an action.

    Args:
        text: the file.
        path: its path in the repository, for the error.

    Raises:
        ConfigError: it would block its branch.
    """
    import yaml

    try:
        found: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the action file is not YAML ({error})", field=path) from None
    if not isinstance(found, dict):
        raise ConfigError("the action file is no mapping", field=path)
    action = cast("dict[Any, Any]", found)
    name = action.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError("not a name lakeFS accepts", field=f"{path}: name", value=name, hint="use letters and digits")
    # YAML 1.1 reads the key `on` as a boolean; lakeFS does not.
    events = action.get("on", action.get(True))
    if not isinstance(events, dict) or not events:
        raise ConfigError("names no event", field=f"{path}: on", hint="name one, such as `pre-merge`")
    for event in cast("dict[Any, Any]", events):
        if event not in _EVENTS:
            raise ConfigError("no event of lakeFS", field=f"{path}: on", value=event)
    hooks = action.get("hooks")
    _validate_hooks([] if hooks is None else hooks, path)


def _validate_hooks(hooks: Any, path: str) -> None:
    if not isinstance(hooks, list):
        raise ConfigError("is no list", field=f"{path}: hooks", value=hooks)
    seen: set[str] = set()
    for index, item in enumerate(cast("list[Any]", hooks)):
        where = f"{path}: hooks[{index}]"
        if not isinstance(item, dict):
            raise ConfigError("is no mapping", field=where, value=item)
        hook = cast("dict[str, Any]", item)
        identity = hook.get("id")
        if not isinstance(identity, str) or not _HOOK_ID.fullmatch(identity) or identity in seen:
            raise ConfigError("not a new id lakeFS accepts", field=f"{where}.id", value=identity)
        seen.add(identity)
        kind = hook.get("type")
        if kind not in _PROPERTIES:
            raise ConfigError("no type of hook", field=f"{where}.type", value=kind, hint="use webhook")
        properties = cast("dict[str, Any]", hook.get("properties") or {})
        for name in _PROPERTIES[kind]:
            if not isinstance(properties.get(name), str) or not properties[name]:
                raise ConfigError("is missing", field=f"{where}.properties.{name}")
