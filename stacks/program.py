"""The program which a plain `pulumi up` runs, and which `tidemill up` runs through the Automation API."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from ..components.layout import find_project
from .loading import LoadedStack, load_stack
from .own_program import own_program, run_own
from .teams.checking import keep_rules

if TYPE_CHECKING:
    from ..components.platform import Platform
    from ..components.targets.base import Target

__all__ = ["compose", "main", "program_of"]


def main() -> Platform:
    """Compose the stack which the engine has chosen, in the project of the working directory; return its platform."""
    import pulumi

    from ..runtime.common.errors import TidemillError
    from .engine.environment import current_login, require_shared_state

    try:
        loaded = load_stack(find_project(), pulumi.get_stack())
        require_shared_state(loaded, {**os.environ, **current_login(loaded.project, os.environ)})
        return compose(loaded)
    except TidemillError as error:
        raise pulumi.RunError(str(error)) from None


def program_of(loaded: LoadedStack) -> Callable[[], None]:
    """Return the program of `loaded` for the Automation API: the project's own where it has one."""
    own = own_program(loaded.project)
    if own:
        return functools.partial(run_own, own)

    def program() -> None:
        compose(loaded)

    return program


def compose(loaded: LoadedStack) -> Platform:
    """Declare the platform which `loaded` describes, and the outputs of its stack; return the platform."""
    import pulumi

    from ..components.platform import Platform, PlatformArgs

    config = loaded.config
    keep_rules(loaded)
    for note in loaded.notes():
        pulumi.log.warn(note)
    values = pulumi.Config()
    wanted = {receiver.url.secret for receiver in config.monitoring.receivers}
    platform = Platform(
        "platform",
        PlatformArgs(
            target=_target(loaded),
            project=loaded.project,
            lake=config.lake,
            models=config.models,
            monitoring=config.monitoring,
            ports=config.ports,
            secrets={name: values.require_secret(name) for name in sorted(wanted)},
            # Targets without `host_tools` run Grafana's image.
            grafana=config.monitoring.grafana == "auto" and (not config.spec.host_tools or _tool_installed("grafana")),
        ),
    )
    pulumi.export("platform", {"stack": config.stack, "target": config.target})
    pulumi.export("urls", platform.urls)
    return platform


def _target(loaded: LoadedStack) -> Target:
    """Return the target of `loaded`; imports only that target.

    Raises:
        UserError: modules that the target imports are not installed.
    """
    from ..components.targets.factory import make_target

    config = loaded.config
    kept = {name: model.serve.capture.retention for name, model in config.models.items()}
    expiring = {f"capture-{name}": max(1, -(-days // timedelta(days=1))) for name, days in kept.items() if days}
    return make_target(config.target, config.on_target(loaded.project, expiring))


def _tool_installed(tool: str) -> bool:
    """Return whether `tool` is installed; the program downloads nothing."""
    from ..components import tools
    from ..runtime.common.errors import ToolError

    try:
        tools.find(tool)
    except ToolError:
        return False
    return True
