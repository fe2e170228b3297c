"""Preparation of `up`: checks that fixed ports are free, and installs tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...components import tools
from ...components.layout import StackRoot
from ...components.provider.local.files import read_json
from ...components.provider.local.ports import holder_of
from ...runtime.common.errors import PlatformError, ToolError
from ..loading import LoadedStack
from ..operations import stack_operations


def require_free_ports(loaded: LoadedStack) -> None:
    """Check that only their own services listen on the fixed ports of the config.

    Raises:
        PlatformError: names the setting, the port and the process that uses it.
    """
    if not loaded.config.spec.host_ports:
        return
    for name, port in loaded.config.ports.items():
        holder = holder_of(port)
        if holder is None or _is_ours(loaded, name, port):
            continue
        field = f"ports.{name}"
        origin = loaded.origin(field)
        raise PlatformError(
            f"the port is taken by {holder}",
            field=f"{origin}: {field}" if origin else field,
            value=port,
            hint="end that process, or give the service another port",
        )


def _is_ours(loaded: LoadedStack, name: str, port: int) -> bool:
    root = StackRoot.of(loaded.project, loaded.config.stack)
    if (read_json(root.endpoints) or {}).get(name) != port:
        return False
    return stack_operations(loaded).runs(name)


def ensure_tools(loaded: LoadedStack, note: Callable[[str], None]) -> None:
    """Install the missing tools of the stack.

    The platform works without Grafana. Its installation is tried only for a new stack, because after a failure every
    later `up` would wait for the same failure.

    Args:
        loaded: the stack.
        note: receives one line of progress at a time.

    Raises:
        ToolError: a tool cannot be installed.
    """
    if not loaded.config.spec.host_tools:
        get_tool("pulumi", note)
        return
    services = StackRoot.of(loaded.project, loaded.config.stack).path / "services"
    is_new = not (services.is_dir() and any(services.iterdir()))
    for package in tools.default_toolbox().packages:
        if not package.optional:
            get_tool(package.programs[0].name, note)
        elif is_new and package.name == "grafana" and loaded.config.monitoring.grafana == "auto":
            try:
                get_tool(package.name, note)
            except ToolError as error:
                note(f"{package.name} cannot be installed; the platform starts without it; to use it, {error.hint}")


def get_tool(name: str, note: Callable[[str], None]) -> Path:
    """Return the tool `name`, installing it if necessary.

    Args:
        name: a tool of the table.
        note: receives one line of progress at a time.

    Raises:
        ToolError: the tool cannot be installed.
    """
    try:
        return tools.find(name)  # unlike `ensure`, it does not read the whole file
    except ToolError:
        return tools.ensure(name, note)
