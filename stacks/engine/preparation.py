"""What `up` sees to before the engine runs: the fixed ports are free, and the tools are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...components import tools
from ...components.layout import StackRoot
from ...components.provider.local import launch
from ...components.provider.local.files import read_json
from ...components.provider.local.ports import holder_of
from ...runtime.common.errors import PlatformError, ToolError
from ..loading import LoadedStack
from ..operations import stack_operations

__all__ = ["ensure_tools", "get_tool", "require_free_ports"]


def require_free_ports(loaded: LoadedStack) -> None:
    """Refuse a fixed port of the config on which somebody else than its own service listens.

    Raises:
        PlatformError: names the setting, the port and who holds it.
    """
    if loaded.config.target == "aws":
        return  # its services listen elsewhere
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
    if loaded.config.target == "local":
        return bool(launch.recorded(root.record(name)))
    return any(service.name == name and service.state == "running" for service in stack_operations(loaded).services())


def ensure_tools(loaded: LoadedStack, note: Callable[[str], None]) -> None:
    """Get every tool which the stack needs and is not there yet.

    Without Grafana the rest comes up. It is tried for once, when the stack is new: where it cannot be had, every later
    `up` would wait for the same answer.

    Args:
        loaded: the stack.
        note: is told, a line at a time, what is got and how far it is.

    Raises:
        ToolError: a tool cannot be had.
    """
    if loaded.config.target != "local":
        get_tool("pulumi", note)  # the others come with their images
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
                note(f"{package.name} cannot be had, and the rest comes up without it; to have it, {error.hint}")


def get_tool(name: str, note: Callable[[str], None]) -> Path:
    """Return the tool `name`, and get it where it is not there yet.

    Args:
        name: a tool of the table.
        note: is told, a line at a time, how far it is.

    Raises:
        ToolError: it cannot be had.
    """
    try:
        return tools.find(name)  # unlike `ensure`, it does not read all of what it finds
    except ToolError:
        return tools.ensure(name, note)
