"""`env`, `schema`, `train`: the project and its code."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from ...components.targets.operations import Operations
from ...runtime.common.errors import PlatformError, ToolError, UserError
from ...runtime.common.settings import ENVIRONMENT_VARIABLE
from ..operations import deployed_operations, stack_operations
from ..training_settings import runtime_file
from .context import ModelNameArgument, StackOption, load_chosen_stack, require_model

__all__ = ["env", "schema", "train"]


def env(stack: StackOption = None) -> None:
    """Print what a shell needs to work on the stack: `eval "$(tidemill env)"`, then `pulumi` and training code."""
    from ...components import tools
    from ..engine.environment import engine_environment

    loaded = load_chosen_stack(stack)
    variables = engine_environment(loaded)
    # The user's own shell may fetch plugins; only our runs must not.
    variables.pop("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", None)
    variables["PULUMI_STACK"] = loaded.config.stack
    variables["TIDEMILL_STACK"] = loaded.config.stack
    operations = stack_operations(loaded)
    if operations.made():
        variables |= _serving(operations, loaded.config.models)
        if runtime := runtime_file(loaded, operations):
            variables[ENVIRONMENT_VARIABLE] = str(runtime)
    for key, value in variables.items():
        typer.echo(f"export {key}={shlex.quote(value)}")
    try:
        engine = str(tools.find("pulumi").parent)
    except ToolError:
        typer.echo("# the engine is not here yet: `tidemill up` gets it")
        return
    if engine not in os.environ.get("PATH", "").split(os.pathsep):
        typer.echo(f"export PATH={shlex.quote(engine)}:$PATH")


def _serving(operations: Operations, models: Iterable[str]) -> dict[str, str]:
    """Return where each model answers and which file holds its API key, as far as they are made."""
    found: dict[str, str] = {}
    for model in models:
        prefix = f"TIDEMILL_SERVING_{model.upper().replace('-', '_')}"
        if url := operations.url(f"serving-{model}"):
            found[f"{prefix}_URL"] = url
        if key := operations.secret_file(f"serving-{model}-key"):
            found[f"{prefix}_KEY_FILE"] = str(key)
    return found


def schema(
    teams: Annotated[bool, typer.Option("--teams", help="The schema of teams.yaml, the rules across teams.")] = False,
) -> None:
    """Print the JSON Schema of stack configs, for editors."""
    from ..stack_config.json_schema import stack_schema_text, teams_schema_text

    typer.echo(teams_schema_text() if teams else stack_schema_text(), nl=False)


def train(
    model: ModelNameArgument,
    stack: StackOption = None,
) -> None:
    """Train a model here and now, with the command of the config; the new version is registered, not promoted."""
    loaded = load_chosen_stack(stack)
    require_model(loaded, model)
    runtime = runtime_file(loaded, deployed_operations(loaded))
    if runtime is None:
        raise UserError(
            "lake and registry of the stack are not reached from here",
            field=loaded.config.stack,
            hint="run `tidemill up`",
        )
    config = loaded.config.models[model]
    program, *arguments = config.train
    argv = [sys.executable if program in ("python", "python3") else program, *arguments]
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(runtime), "TIDEMILL_MODEL": model}
    try:
        done = subprocess.run(argv, cwd=loaded.project / config.code, env=environment, check=False)
    except OSError as error:
        raise UserError(
            f"cannot be run ({error.strerror})", field=f"models.{model}.train", value=program, hint="hint the command"
        ) from None
    if done.returncode:
        raise PlatformError(f"the training ended with exit code {done.returncode}", field=model)
