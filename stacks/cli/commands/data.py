"""`data`: work on the versioned data of a stack."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ....runtime.common.errors import UserError
from ....runtime.common.settings import LakeSettings, RuntimeSettings, load_settings
from ...operations import deployed_operations
from ...training_settings import runtime_file
from ..options import JsonOption, StackOption, YesOption
from ..selection import load_chosen_stack
from ..terminal import require_confirmation

app = typer.Typer(name="data", help="Work on the versioned data of a stack.", no_args_is_help=True)

_SHOWN = 20


@app.callback()
def _group() -> None:
    # With a callback, typer keeps a group that has only one command.
    pass


@app.command()
def restore(
    address: Annotated[str, typer.Argument(metavar="REPOSITORY/BRANCH", help="The branch, such as flights/main.")],
    stack: StackOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove data that did not pass the gate: restore the data of the branch's newest accepted commit."""
    from ....runtime import data

    lake = _lake(stack)
    if not yes:
        planned = data.restore(address, dry_run=True, lake=lake)
        for what, names in (("remove", planned.removed), ("restore", planned.restored)):
            for name in names[:_SHOWN]:
                typer.echo(f"{what} {name}", err=True)
            if len(names) > _SHOWN:
                typer.echo(f"{what} {len(names) - _SHOWN} more files", err=True)
        if planned.removed or planned.restored:
            require_confirmation(f"Give {address} the data of {planned.accepted[:12]} again?")
    done = data.restore(address, lake=lake)
    if as_json:
        found = {"commit": done.commit, "accepted": done.accepted, "removed": done.removed, "restored": done.restored}
        typer.echo(json.dumps(found, indent=2))
    elif done.commit is None:
        typer.echo(f"{address} has the data of {done.accepted[:12]}, which passed the gate; nothing to do")
    else:
        files = f"{len(done.removed)} files removed, {len(done.restored)} restored"
        typer.echo(f"{address} has the data of {done.accepted[:12]} again: {files} (commit {done.commit[:12]})")


def _lake(stack: str | None) -> LakeSettings:
    loaded = load_chosen_stack(stack)
    runtime = runtime_file(loaded, deployed_operations(loaded))
    if runtime is None:
        raise UserError(
            "this machine cannot reach the lake of the stack", field=loaded.config.stack, hint="run `tidemill up`"
        )
    return load_settings(runtime, RuntimeSettings).lake
