"""The Pulumi program of a stack, for `pulumi up` and for `tidemill up` (through the Automation API)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from ..components.layout import find_project
from .loading import LoadedStack, load_stack
from .own_program import own_program, run_own_program
from .teams.checking import require_rules

if TYPE_CHECKING:
    from ..components.platform import Platform
    from ..components.targets.base import Target


def main() -> Platform:
    """Declare the resources of the engine's current stack; return the platform.

    The project is the one of the working directory.
    """
    import pulumi

    from ..runtime.common.errors import TidemillError
    from .engine.environment import current_login, require_shared_state

    try:
        loaded = load_stack(find_project(), pulumi.get_stack())
        require_shared_state(loaded, {**os.environ, **current_login(loaded.project, os.environ)})
        return compose(loaded)
    except TidemillError as error:
        raise pulumi.RunError(str(error)) from None


def stack_program(loaded: LoadedStack) -> Callable[[], None]:
    """Return the program of `loaded` for the Automation API; the project's own if it has one."""
    own = own_program(loaded.project)
    if own:
        return functools.partial(run_own_program, own)

    def program() -> None:
        compose(loaded)

    return program


def compose(loaded: LoadedStack) -> Platform:
    """Declare the platform of `loaded` and the stack's outputs; return the platform."""
    import pulumi

    from ..components.platform import Platform, PlatformArgs

    config = loaded.config
    require_rules(loaded)
    for note in loaded.notes():
        pulumi.log.warn(note)
    values = pulumi.Config()
    secret_names = {receiver.url.secret for receiver in config.monitoring.receivers}
    platform = Platform(
        "platform",
        PlatformArgs(
            target=_target(loaded),
            project=loaded.project,
            lake=config.lake,
            models=config.models,
            monitoring=config.monitoring,
            ports=config.ports,
            secrets={name: values.require_secret(name) for name in sorted(secret_names)},
            # Targets without `host_tools` run Grafana's image.
            grafana=config.monitoring.grafana == "auto" and (not config.spec.host_tools or _is_installed("grafana")),
        ),
    )
    pulumi.export("platform", {"stack": config.stack, "target": config.target})
    pulumi.export("urls", platform.urls)
    return platform


def _target(loaded: LoadedStack) -> Target:
    """Return the target of `loaded`; import only this one.

    Raises:
        UserError: packages of the target are not installed.
    """
    from ..components.targets.factory import make_target

    config = loaded.config
    kept = {name: model.serve.capture.retention for name, model in config.models.items()}
    # Servers must not delete there; the store itself deletes older objects.
    expiring = {f"capture-{name}": max(1, -(-days // timedelta(days=1))) for name, days in kept.items() if days}
    return make_target(config.target, config.on_target(loaded.project, expiring))


def _is_installed(tool: str) -> bool:
    """Return whether `tool` is installed; the program downloads nothing."""
    from ..components import tools
    from ..runtime.common.errors import ToolError

    try:
        tools.find(tool)
    except ToolError:
        return False
    return True
