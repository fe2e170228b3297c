"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from . import completion

StackOption = Annotated[
    str | None,
    typer.Option("--stack", "-s", help="The stack, TEAM-ENVIRONMENT. Default: TIDEMILL_STACK, or the only one.",
                 show_default=False, autocompletion=completion.stacks),
]  # fmt: skip
ModelNameArgument = Annotated[
    str, typer.Argument(help="Name of the model in the stack config.", autocompletion=completion.models)
]
ServiceArgument = Annotated[
    str, typer.Argument(help="Name of the service in `tidemill status`.", autocompletion=completion.services)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
