"""`init`: create a team's project in an empty folder, ready for `up`."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ....components.settings import NAME_PATTERN
from ....components.targets.registry import DEFAULT_TARGET, TARGETS
from ....runtime.common.errors import ConfigError
from .. import completion
from ..terminal import interruptible, require_terminal, waiting

if TYPE_CHECKING:
    from ...projects.answers import Answers
    from ...projects.create import Created

*_FIRST, _LAST = TARGETS
_TARGETS = f"{', '.join(_FIRST)} or {_LAST}"
_SAMPLE = {"team": "flights", "model": "late-flights", "environment": "dev"}


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Project folder, new or empty.", show_default=False)
    ],
    team: Annotated[
        str | None, typer.Option(help="Name of the team. Default: the folder's name.", show_default=False)
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Name of the project. Default: the team's name.", show_default=False)
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="E-mail address of the models' owner.", show_default=False)
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--environment", "--env", help="Name of an environment; can be repeated. "
                                       "Default: dev.", show_default=False)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help=f"Target: {_TARGETS}. Default: {DEFAULT_TARGET}.", show_default=False,
                     autocompletion=completion.targets),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Name of a model; can be repeated. Default: late-flights.", show_default=False),
    ] = None,
    repository: Annotated[
        list[str] | None,
        typer.Option(help="Name of a data repository; can be repeated. Default: the team's name.", show_default=False),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python version. Default: the running one.", show_default=False)
    ] = None,
    region: Annotated[str | None, typer.Option(help="For aws: the region.", show_default=False)] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="For aws: the parent domain; each environment gets a subdomain.", show_default=False),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="For aws: id of the Route 53 zone of the domain.", show_default=False)
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="YAML file with answers, such as another project's .tidemill-template/answers.yaml.",
                     exists=True, dir_okay=False, show_default=False),
    ] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Use the defaults instead of asking.")] = False,
) -> None:  # fmt: skip
    """Create a team's project. It has configs, a sample model, tests and a CI workflow, ready for `tidemill up`."""
    from ...projects.create import check_folder, create

    flags: dict[str, Any] = {
        "team": team, "project": project, "owner": owner, "environments": environment, "target": target,
        "models": model, "repositories": repository, "python": python,
    }  # fmt: skip
    options = {"region": region, "domain": domain, "zone": zone}
    given = _read_answers(answers) if answers else {}
    given |= {key: value for key, value in flags.items() if value}
    for name, spec in TARGETS.items():
        if block := {key: value for key in spec.questions if (value := options.get(key))}:
            given[name] = {**given.get(name, {}), **block}
    check_folder(folder)
    ask = not defaults and answers is None
    if ask and "team" not in given:
        require_terminal("--team", "name it, or add `--defaults` or `--answers FILE`, or run this on a terminal")
    chosen = _complete(given, folder, ask=ask and sys.stdin.isatty())
    with interruptible(signal.SIGTERM, signal.SIGHUP), waiting(f"creating {folder}"):
        created = create(folder, chosen)
    _print_created(created, chosen, folder)


def _read_answers(file: Path) -> dict[str, Any]:
    """Return the answers in `file`, which may be the answers file of another project."""
    from ...stack_config.yaml_positions import read_yaml

    value, _, _ = read_yaml(file.absolute(), file.absolute().parent)
    if not isinstance(value, dict):
        raise ConfigError("the file has no answers", field=str(file), hint="write `team: NAME` and so on")
    raw = cast("dict[str, Any]", value)
    inner = raw.get("answers")
    return dict(cast("dict[str, Any]", inner)) if isinstance(inner, dict) and "template" in raw else dict(raw)


def _complete(given: Mapping[str, Any], folder: Path, *, ask: bool) -> Answers:
    """Return all answers: given, asked for, or defaults."""
    from ...projects.answers import PYTHON_VERSIONS, Answers

    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    found: dict[str, Any] = {
        "team": _team_of(folder),
        "environments": [_SAMPLE["environment"]],
        "target": DEFAULT_TARGET,
        "models": [_SAMPLE["model"]],
        "python": running if running in PYTHON_VERSIONS else PYTHON_VERSIONS[0],
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
                found[key] = _ask(key, text, read, found)
        if questions_of_target := TARGETS[found["target"]].questions:
            found[found["target"]] = _ask_for_block(questions_of_target, dict(found.get(found["target"], {})))
        if "owner" not in given:
            found["owner"] = _ask("owner", "Owner of the models (e-mail address)", str, found)
    return Answers.of(found)


def _ask(key: str, text: str, read: Callable[[str], Any], found: Mapping[str, Any]) -> Any:
    """Ask for one answer until it is valid."""
    from ...projects.answers import Answers

    default: Any = found.get(key, f"{found['team']}@example.org")
    default_text = " ".join(cast("list[str]", default)) if isinstance(default, list) else str(default)
    while True:
        value = read(typer.prompt(text, default=default_text).replace(",", " ").strip() if key != "owner" else (
            typer.prompt(text, default=default_text)
        ))  # fmt: skip
        # The answers about the target come after it.
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


def _ask_for_block(questions: Mapping[str, str], block: dict[str, Any]) -> dict[str, Any]:
    for key, text in questions.items():
        if key not in block:
            block[key] = typer.prompt(text)
    return block


def _team_of(folder: Path) -> str:
    """Return a team name made from the folder's name, or the sample's.

    >>> _team_of(Path("My Harbour_2")), _team_of(Path("x"))
    ('my-harbour-2', 'flights')
    """
    name = "-".join(re.findall(r"[a-z0-9]+", folder.absolute().resolve().name.lower()))
    return name if re.fullmatch(NAME_PATTERN, name) and 3 <= len(name) <= 30 else _SAMPLE["team"]


def _print_created(created: Created, answers: Answers, folder: Path) -> None:
    typer.echo(f"{created.folder}: the project {answers.project}, {len(created.files)} files")
    typer.echo(f"  {created.source}")
    if created.unlocked:
        typer.echo(f"  no uv.lock: {created.unlocked}; run `uv lock` there and commit it")
    if created.commit:
        typer.echo(f"  first commit {created.commit[:12]}")
    else:
        typer.echo("  it is inside your Git repository: commit it there, since the lineage of models refers to commits")
    stack = f" --stack {answers.team}-{answers.environments[0]}" if len(answers.environments) > 1 else ""
    typer.echo(f"next: cd {shlex.quote(str(folder))} && uv run tidemill up{stack}")
