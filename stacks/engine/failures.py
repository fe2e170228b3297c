"""Explains failures of the engine.

Several failures of one run become one error with the highest of their exit codes: a failed platform (3) must not look
like a mistake (2), nor a mistake like a refusal (1). A failure of another provider counts as 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...components.layout import home
from ...components.provider.base import PACKAGE
from ...components.targets.registry import TARGETS
from ...runtime.common.errors import PlatformError, RefusedError, TidemillError, UserError
from ..loading import LoadedStack
from .events import Event

if TYPE_CHECKING:
    from pulumi.automation.errors import CommandError

# `docker-build` before `docker`, which its name contains.
_PLUGINS = sorted({name for spec in TARGETS.values() for name in spec.plugins}, key=len, reverse=True)
_KILLED = re.compile(r"^ code: -\d+$", re.MULTILINE)
_PLUGIN_SIGNS = (
    "no resource plugin",
    "Could not automatically download",
    "failed to load plugin",
    "could not find plugin",
)


def explain(
    error: CommandError, errors: Sequence[Event], loaded: LoadedStack, *, interrupted: bool = False
) -> TidemillError:
    """Return `error` as one of tidemill's errors.

    Args:
        error: the error of the Automation API.
        errors: error events of the resources and the program.
        loaded: the stack of the run.
        interrupted: whether the user interrupted the run.
    """
    text = str(error)
    stack = loaded.config.stack
    if "incorrect passphrase" in text:
        return UserError(
            "wrong passphrase: the secrets of this stack are encrypted with another one",
            field=stack,
            hint=f"set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to the right one, or restore "
            f"{home(loaded.project) / 'passphrase'}; if the stack has never been up, remove `encryptionsalt` from "
            f"{loaded.file.name}",
        )
    if "passphrase must be set" in text or "unable to find either" in text:
        return UserError(
            "the passphrase for the secrets of this stack is not set",
            field=stack,
            hint="set PULUMI_CONFIG_PASSPHRASE_FILE, or unset PULUMI_CONFIG_PASSPHRASE",
        )
    messages = [event for event in errors if event.text.strip() not in ("update failed", "preview failed")]
    # On a busy machine, a plugin may take over 5 s to confirm its end; a crashed one also fails its resources.
    messages = [event for event in messages if "exited prematurely" not in event.text] or messages
    everything = "\n".join([text, *(event.text for event in messages)])
    for sign in _PLUGIN_SIGNS:
        if sign in everything:
            line = next(line for line in everything.splitlines() if sign in line)
            return UserError(line.strip().removeprefix("error: "), field="plugin", hint=_plugin_hint(line, loaded))
    if _KILLED.search(text):
        return PlatformError(
            "the engine was killed", field=stack, hint="run it again: it takes over or recreates what was left"
        )
    if interrupted:
        return PlatformError(
            "interrupted; running operations were finished and saved", field=stack, hint="run it again"
        )
    if messages:
        lines: list[str] = []
        for event in messages:
            line = f"{event.name}: {event.text}" if event.name and not event.text.startswith(event.name) else event.text
            if line not in lines:
                lines.append(line)
        code = max(event.exit_code or PlatformError.exit_code for event in messages)
        kind = next(kind for kind in (PlatformError, UserError, RefusedError) if kind.exit_code == code)
        return kind("\n".join(lines))
    last = [line.strip() for line in _stderr(text).splitlines() if line.strip()]
    return PlatformError(last[-1].removeprefix("error: ") if last else text.strip(), field=stack)


def _plugin_hint(line: str, loaded: LoadedStack) -> str:
    """Return how to install the plugin that `line` misses: tidemill's own, or one of a vendor."""
    vendor = next((name for name in _PLUGINS if re.search(rf"\b{name}\b", line)), None)
    if vendor is None or PACKAGE in line:
        extra = loaded.config.spec.extra
        return (
            f"install tidemill with its extra {extra} next to Pulumi.yaml: `uv sync`, or "
            f'`.venv/bin/pip install "tidemill[{extra}]"`'
        )
    return (
        f"run `pulumi plugin install resource {vendor}`, or without network access to its vendor put "
        f"`pulumi-resource-{vendor}` on PATH"
    )


def _stderr(text: str) -> str:
    """Return the engine's standard error from a message of the Automation API."""
    return text.partition("\n stderr: ")[2] or text
