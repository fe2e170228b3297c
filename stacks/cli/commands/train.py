"""`train`: train a model on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

from ....runtime.common.errors import PlatformError, UserError
from ....runtime.common.settings import ENVIRONMENT_VARIABLE
from ...operations import deployed_operations
from ...training_settings import runtime_file
from ..options import ModelNameArgument, StackOption
from ..selection import load_chosen_stack, require_model


def train(model: ModelNameArgument, stack: StackOption = None) -> None:
    """Train a model on this machine. Runs the command in the config, and registers the version without promoting it."""
    loaded = load_chosen_stack(stack)
    require_model(loaded, model)
    runtime = runtime_file(loaded, deployed_operations(loaded))
    if runtime is None:
        raise UserError(
            "this machine cannot reach the lake and the registry of the stack",
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
            f"cannot run it ({error.strerror})", field=f"models.{model}.train", value=program, hint="fix the command"
        ) from None
    if done.returncode:
        raise PlatformError(f"the training failed with exit code {done.returncode}", field=model)
