"""`init`: a team's project, from an empty folder to a repository which `up` brings up."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ...components.settings import NAME_PATTERN
from ...components.targets.registry import DEFAULT_TARGET, TARGETS
from ...runtime.common.errors import ConfigError, UserError
from . import completion
from .terminal import waiting

if TYPE_CHECKING:
    from ..projects.answers import Answers
    from ..projects.create import Created

__all__ = ["init"]

*_FIRST, _LAST = TARGETS
_TARGETS = f"{', '.join(_FIRST)} or {_LAST}"
_SAMPLE = {"team": "flights", "model": "late-flights", "environment": "dev"}


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the project, new or empty.", show_default=False)
    ],
    team: Annotated[str | None, typer.Option(help="Name of the team. Default: as the folder.", show_default=False)] = (
        None
    ),
    project: Annotated[
        str | None, typer.Option(help="Name of the project. Default: as the team.", show_default=False)
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Address of whoever answers for the models.", show_default=False)
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--environment", "--env", help="Name of an environment; may be given again. "
                                       "Default: dev.", show_default=False)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help=f"Where it runs: {_TARGETS}. Default: {DEFAULT_TARGET}.", show_default=False,
                     autocompletion=completion.targets),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Name of a model; may be given again. Default: late-flights.", show_default=False),
    ] = None,
    repository: Annotated[
        list[str] | None,
        typer.Option(help="Name of a data repository; may be given again. Default: as the team.", show_default=False),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Version of Python. Default: this one's.", show_default=False)
    ] = None,
    region: Annotated[str | None, typer.Option(help="For aws: the region.", show_default=False)] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="For aws: the domain below which each environment has its own.", show_default=False),
    ] = None,
    zone: Annotated[str | None, typer.Option(help="For aws: id of the domain's Route 53 zone.", show_default=False)] = (
        None
    ),
    answers: Annotated[
        Path | None,
        typer.Option(help="YAML file with answers, such as .tidemill-template/answers.yaml of another project.",
                     exists=True, dir_okay=False, show_default=False),
    ] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Ask nothing: take the defaults.")] = False,
) -> None:  # fmt: skip
    """Make a team's project: configs, sample, tests, workflow, lock and first commit; it runs at once."""
    from ..projects.create import check_folder, create

    flags: dict[str, Any] = {
        "team": team, "project": project, "owner": owner, "environments": environment, "target": target,
        "models": model, "repositories": repository, "python": python,
    }  # fmt: skip
    options = {"region": region, "domain": domain, "zone": zone}
    given = _read(answers) if answers else {}
    given |= {key: value for key, value in flags.items() if value}
    for name, spec in TARGETS.items():
        if block := {key: value for key in spec.questions if (value := options.get(key))}:
            given[name] = {**given.get(name, {}), **block}
    check_folder(folder)
    ask = not defaults and answers is None
    if ask and not sys.stdin.isatty() and "team" not in given:
        raise UserError(
            "there is nobody to ask",
            field="--team",
            hint="name it, or add `--defaults`, or `--answers FILE`, or run it on a terminal",
        )
    chosen = _complete(given, folder, ask=ask and sys.stdin.isatty())
    with _ending(), waiting(f"making {folder}"):
        made = create(folder, chosen)
    _tell(made, chosen, folder)


def _read(file: Path) -> dict[str, Any]:
    """Return the answers in `file`, with those of a project's own file among them."""
    from ..stack_config.yaml_positions import read_yaml

    value, _, _ = read_yaml(file.absolute(), file.absolute().parent)
    if not isinstance(value, dict):
        raise ConfigError("holds no answers", field=str(file), hint="write `team: NAME` and so on")
    raw = cast("dict[str, Any]", value)
    inner = raw.get("answers")
    return dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) and "template" in raw else dict(raw)


def _complete(given: Mapping[str, Any], folder: Path, *, ask: bool) -> Answers:
    """Return all answers: those which are given, asked for, or the defaults."""
    from ..projects.answers import PYTHON_VERSIONS, Answers

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    found: dict[str, Any] = {
        "team": _team_of(folder),
        "environments": [_SAMPLE["environment"]],
        "target": DEFAULT_TARGET,
        "models": [_SAMPLE["model"]],
        "python": here if here in PYTHON_VERSIONS else PYTHON_VERSIONS[0],
        **given,
    }
    if ask:
        questions: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
            ("team", "Team", str),
            ("environments", "Environments", str.split),
            ("target", f"Target ({_TARGETS})", str),
            ("models", "Models", str.split),
        )
        for key, text, read in questions:
            if key not in given:
                found[key] = _asked(key, text, read, found)
        if block := TARGETS[found["target"]].questions:
            found[found["target"]] = _asked_block(block, dict(found.get(found["target"], {})))
        if "owner" not in given:
            found["owner"] = _asked("owner", "Who answers for the models (an address)", str, found)
    return Answers.of(found)


def _asked(key: str, text: str, read: Callable[[str], Any], found: Mapping[str, Any]) -> Any:
    """Ask for one answer until it is one."""
    from ..projects.answers import Answers

    default: Any = found.get(key, f"{found['team']}@example.org")
    shown = " ".join(cast("list[str]", default)) if isinstance(default, list) else str(default)
    while True:
        value = read(typer.prompt(text, default=shown).replace(",", " ").strip() if key != "owner" else (
            typer.prompt(text, default=shown)
        ))  # fmt: skip
        # The target's block is asked for after the target.
        target = value if key == "target" else DEFAULT_TARGET
        trial = {**found, key: value, "target": DEFAULT_TARGET if _has_questions(target) else target}
        try:
            Answers.of(trial)
        except ConfigError as error:
            typer.echo(str(error), err=True)
        else:
            return value


def _has_questions(target: str) -> bool:
    return target in TARGETS and bool(TARGETS[target].questions)


def _asked_block(questions: Mapping[str, str], block: dict[str, Any]) -> dict[str, Any]:
    for key, text in questions.items():
        if key not in block:
            block[key] = typer.prompt(text)
    return block


def _team_of(folder: Path) -> str:
    """Return the team's name which the folder's suggests, or the sample's.

    >>> _team_of(Path("My Harbour_2")), _team_of(Path("x"))
    ('my-harbour-2', 'flights')
    """
    name = "-".join(re.findall(r"[a-z0-9]+", folder.absolute().resolve().name.lower()))
    return name if re.fullmatch(NAME_PATTERN, name) and 3 <= len(name) <= 30 else _SAMPLE["team"]


@contextmanager
def _ending() -> Generator[None]:
    """Let SIGTERM and a closed terminal end it as carefully as Ctrl-C."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = [(one, signal.signal(one, interrupt)) for one in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)


def _tell(made: Created, answers: Answers, folder: Path) -> None:
    typer.echo(f"{made.folder}: the project {answers.project}, {len(made.files)} files")
    typer.echo(f"  {made.source}")
    if made.unlocked:
        typer.echo(f"  not locked: {made.unlocked}; run `uv lock` there and commit `uv.lock`")
    if made.commit:
        typer.echo(f"  first commit {made.commit[:12]}")
    else:
        typer.echo("  it lies in a Git repository of yours: commit it there, since a model's lineage names commits")
    stack = f" --stack {answers.team}-{answers.environments[0]}" if len(answers.environments) > 1 else ""
    typer.echo(f"next: cd {shlex.quote(str(folder))} && uv run tidemill up{stack}")
