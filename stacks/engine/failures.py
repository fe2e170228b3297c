"""What the engine's failures mean, in one sentence.

Several failures of one run make one error; the highest of their exit codes wins, since a platform which failed (3)
must not be taken for a mistake (2), nor a mistake for a refusal (1). What is not from a resource of ours counts as 3.
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

__all__ = ["explain"]

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
    """Return `error` as one of ours.

    Args:
        error: what the Automation API raised.
        errors: what the resources and the program said of it.
        loaded: the stack it happened to.
        interrupted: whether the user interrupted the run.
    """
    text = str(error)
    stack = loaded.config.stack
    if "incorrect passphrase" in text:
        return UserError(
            "wrong passphrase: the secrets of this stack were encrypted with another one",
            field=stack,
            hint=f"set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to the right one, or restore "
            f"{home(loaded.project) / 'passphrase'}; if the stack was never up, remove `encryptionsalt` from "
            f"{loaded.file.name}",
        )
    if "passphrase must be set" in text or "unable to find either" in text:
        return UserError(
            "no passphrase for the secrets of this stack",
            field=stack,
            hint="set PULUMI_CONFIG_PASSPHRASE_FILE, or unset PULUMI_CONFIG_PASSPHRASE",
        )
    spoken = [event for event in errors if event.text.strip() not in ("update failed", "preview failed")]
    # A plugin which a busy machine lets take over 5 s to acknowledge its end; one that died fails its resources too.
    spoken = [event for event in spoken if "exited prematurely" not in event.text] or spoken
    everything = "\n".join([text, *(event.text for event in spoken)])
    for sign in _PLUGIN_SIGNS:
        if sign in everything:
            line = next(line for line in everything.splitlines() if sign in line)
            return UserError(line.strip().removeprefix("error: "), field="plugin", hint=_plugin_hint(line, loaded))
    if _KILLED.search(text):
        return PlatformError(
            "the engine was killed", field=stack, hint="run it again: what it left is taken over or made again"
        )
    if interrupted:
        return PlatformError("interrupted; what had begun was finished and saved", field=stack, hint="run it again")
    if spoken:
        lines: list[str] = []
        for event in spoken:
            line = f"{event.name}: {event.text}" if event.name and not event.text.startswith(event.name) else event.text
            if line not in lines:
                lines.append(line)
        code = max(event.exit_code or PlatformError.exit_code for event in spoken)
        kind = next(kind for kind in (PlatformError, UserError, RefusedError) if kind.exit_code == code)
        return kind("\n".join(lines))
    last = [line.strip() for line in _stderr(text).splitlines() if line.strip()]
    return PlatformError(last[-1].removeprefix("error: ") if last else text.strip(), field=stack)


def _plugin_hint(line: str, loaded: LoadedStack) -> str:
    """Return how the plugin which `line` misses is had: ours came with tidemill, the others from their vendors."""
    vendor = next((name for name in _PLUGINS if re.search(rf"\b{name}\b", line)), None)
    if vendor is None or PACKAGE in line:
        extra = loaded.config.spec.extra
        return (
            f"install tidemill with its extra {extra} beside Pulumi.yaml: `uv sync`, or "
            f'`.venv/bin/pip install "tidemill[{extra}]"`'
        )
    return (
        f"`pulumi plugin install resource {vendor}` gets it from its vendor, where the network lets it; "
        f"elsewhere put `pulumi-resource-{vendor}` on PATH"
    )


def _stderr(text: str) -> str:
    """Return the part of the Automation API's message which is the engine's standard error."""
    return text.partition("\n stderr: ")[2] or text
