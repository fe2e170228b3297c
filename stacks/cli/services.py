"""`stop`, `start`, `restart`, `logs`, `open`: the services of a stack that is up, without the engine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from tidemill.components.layout import StackRoot
from tidemill.runtime.errors import NotFoundError, PlatformError, UserError

from ..loading import nearest
from .context import JsonOption, StackOption, choose, root_of

__all__ = ["logs", "open_", "restart", "start", "stop"]

ServiceArgument = Annotated[str, typer.Argument(help="The service, as `tidemill status` names it.")]
_START_SECONDS = 90.0


def _known(name: str, names: Iterable[str]) -> None:
    known = sorted(names)
    if name not in known:
        close = nearest(name, known)
        mend = f"did you mean {close}?" if close else f"use one of {', '.join(known) or 'none: nothing is up'}"
        raise NotFoundError("no such service", field="service", value=name, mend=mend)


def _services(root: StackRoot) -> list[str]:
    folder = root.path / "services"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def stop(stack: StackOption = None) -> None:
    """Stop every service; data, models, keys and ports are kept."""
    from tidemill.components.provider.supervise import Supervisor

    loaded = choose(stack)
    root = root_of(loaded)
    supervisor = Supervisor(root)
    ran = sum(1 for process in supervisor.processes() if process.pid)
    supervisor.stop()
    typer.echo(f"{loaded.config.stack}: {ran} services stopped, everything kept; `tidemill start` brings them back")


def start(
    stack: StackOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds until every service must be well.", min=1)] = _START_SECONDS,
) -> None:
    """Start every service that was there, after `stop`, a reboot, or a killed supervisord."""
    from tidemill.components.provider.supervise import Supervisor

    from ..overview import overview

    loaded = choose(stack)
    root = root_of(loaded)
    if not _services(root):
        raise UserError("it has no services yet", field=loaded.config.stack, mend="run `tidemill up`")
    Supervisor(root).start()
    until = time.monotonic() + timeout
    while True:
        view = overview(loaded, root)
        ill = [service for service in view.services if not service.healthy]
        if not ill:
            typer.echo(f"{loaded.config.stack}: {len(view.services)} services run and are well")
            return
        if time.monotonic() > until:
            said = ", ".join(f"{service.name} {service.problem}" for service in ill)
            mend = f"see `tidemill logs {ill[0].name}`, or run `tidemill up`"
            raise PlatformError(f"not well after {timeout:.0f} s: {said}", field=loaded.config.stack, mend=mend)
        time.sleep(0.5)


def restart(service: ServiceArgument, stack: StackOption = None) -> None:
    """Stop one service and start it again."""
    from tidemill.components.provider.supervise import Supervisor

    root = root_of(choose(stack))
    _known(service, _services(root))
    Supervisor(root).restart(service)
    typer.echo(f"{service}: started again")


def logs(
    service: ServiceArgument,
    stack: StackOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines.", min=0)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
) -> None:
    """Print the last lines of a service's or job's log."""
    root = root_of(choose(stack))
    _known(service, {*_services(root), *(path.stem for path in root.logs.glob("*.log"))})
    path = root.log(service)
    if not path.exists():
        raise NotFoundError("it has written no log yet", field=service, value=str(path))
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            typer.echo(line, nl=False)
    if follow:
        _follow(path)


def _follow(path: Path) -> None:
    """Print what is added to `path`, over its rotations, until Ctrl-C."""
    file = path.open(encoding="utf-8", errors="replace")
    file.seek(0, 2)
    try:
        while True:
            line = file.readline()
            if line:
                typer.echo(line, nl=False)
                continue
            time.sleep(0.3)
            if path.exists() and path.stat().st_ino != _inode(file.fileno()):
                file.close()
                file = path.open(encoding="utf-8", errors="replace")
            elif path.exists() and path.stat().st_size < file.tell():
                file.seek(0)
    finally:
        file.close()


def _inode(descriptor: int) -> int:
    import os

    return os.fstat(descriptor).st_ino


def open_(service: ServiceArgument, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Open a service in the browser, and say who may enter."""
    import json
    import webbrowser

    from ..overview import LOGINS, service_url

    root = root_of(choose(stack))
    _known(service, _services(root))
    url = service_url(root, service)
    if url is None:
        raise UserError("it has no address", field="service", value=service, mend="run `tidemill up`")
    user, secret = LOGINS.get(service, (None, None))
    login = {"user": user, "password_file": str(root.secrets / secret)} if secret else {}
    if as_json:
        typer.echo(json.dumps({"url": url, **login}))
        return
    typer.echo(url)
    if secret and user:
        who = f"the user in {root.secrets / user}" if service == "lakefs" else f"user {user}"
        typer.echo(f"enter as {who} with the password in {root.secrets / secret}")
    webbrowser.open(url)
