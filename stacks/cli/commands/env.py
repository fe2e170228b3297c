"""`env`: print the shell variables of a stack."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

import typer

from ....components.targets.operations import Operations
from ....runtime.common.errors import ToolError
from ....runtime.common.settings import ENVIRONMENT_VARIABLE
from ...operations import stack_operations
from ...training_settings import runtime_file
from ..options import StackOption
from ..selection import load_chosen_stack


def env(stack: StackOption = None) -> None:
    """Print shell variables for `pulumi` and training code. Use it as `eval "$(tidemill env)"`."""
    from ....components import tools
    from ...engine.environment import engine_environment

    loaded = load_chosen_stack(stack)
    variables = engine_environment(loaded)
    # Only our own runs must not fetch plugins.
    variables.pop("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", None)
    variables["PULUMI_STACK"] = loaded.config.stack
    variables["TIDEMILL_STACK"] = loaded.config.stack
    operations = stack_operations(loaded)
    if operations.made():
        variables |= _serving_variables(operations, loaded.config.models)
        if runtime := runtime_file(loaded, operations):
            variables[ENVIRONMENT_VARIABLE] = str(runtime)
    for key, value in variables.items():
        typer.echo(f"export {key}={shlex.quote(value)}")
    try:
        engine = str(tools.find("pulumi").parent)
    except ToolError:
        typer.echo("# the engine is not installed yet: `tidemill up` installs it")
        return
    if engine not in os.environ.get("PATH", "").split(os.pathsep):
        typer.echo(f"export PATH={shlex.quote(engine)}:$PATH")


def _serving_variables(operations: Operations, models: Iterable[str]) -> dict[str, str]:
    """Return the URL and API key file of each model that has them."""
    found: dict[str, str] = {}
    for model in models:
        prefix = f"TIDEMILL_SERVING_{model.upper().replace('-', '_')}"
        if url := operations.url(f"serving-{model}"):
            found[f"{prefix}_URL"] = url
        if key := operations.secret_file(f"serving-{model}-key"):
            found[f"{prefix}_KEY_FILE"] = str(key)
    return found
