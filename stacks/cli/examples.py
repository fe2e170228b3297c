"""Examples of every command: what `--help` shows and docs/commands.md lists. The tests parse each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["EXAMPLES", "FIRST", "Example", "epilog", "group_epilog"]


class Example(NamedTuple):
    """A command line, and what it is for."""

    line: str
    does: str


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "up": (
        Example("tidemill up", "show what would be done, ask, and do it"),
        Example("tidemill up --yes --no-wait", "ask nobody, and do not wait until models serve"),
        Example("tidemill up --yes --recreate flights", "make a repository which is gone again, empty"),
    ),
    "preview": (
        Example("tidemill preview", "say what `up` would do"),
        Example("tidemill preview --json --policy", "for CI: one JSON object a line, the policy pack asked"),
    ),
    "refresh": (Example("tidemill refresh", "compare the state with what is really there"),),
    "destroy": (
        Example("tidemill destroy", "remove the platform; refuses while it holds data"),
        Example("tidemill destroy --delete-data", "delete the data too, after a question"),
    ),
    "status": (
        Example("tidemill status", "what runs where, and which version serves"),
        Example("tidemill status -s flights-dev --json", "the same of a named stack, for programs"),
    ),
    "stop": (Example("tidemill stop", "end every service and keep everything"),),
    "start": (Example("tidemill start --timeout 180", "bring all back, and wait three minutes at most"),),
    "restart": (Example("tidemill restart lakefs", "end one service and start it again"),),
    "logs": (
        Example("tidemill logs retraining -n 200", "the last 200 lines"),
        Example("tidemill logs serving-flights --follow", "go on as it grows"),
    ),
    "open": (Example("tidemill open mlflow", "open it in the browser, and say who may enter"),),
    "doctor": (Example("tidemill doctor", "where each tool comes from, and what to do about those which are missing"),),
    "policies": (
        Example("tidemill policies", "the rules, and how strict each is"),
        Example('pulumi preview --policy-pack "$(tidemill policies --path)"', "ask them without tidemill"),
    ),
    "env": (Example('eval "$(tidemill env)"', "let `pulumi` and training code find the stack"),),
    "validate": (
        Example("tidemill validate", "check the configs of all stacks"),
        Example("tidemill validate --stack flights-dev", "check one"),
        Example("tidemill validate --json", "the same for programs: every problem with file, line, path and hint"),
    ),
    "config": (
        Example("tidemill config", "what the config comes to, with its bases and defaults in it"),
        Example("tidemill config --explain models.flights.watch.window", "where one value came from"),
        Example("tidemill config --explain monitoring --json", "where all below it came from, for programs"),
    ),
    "stacks": (
        Example("tidemill stacks", "the stacks of all teams, with target and state"),
        Example("tidemill stacks --json", "the same for programs"),
    ),
    "init": (
        Example("tidemill init harbour", "ask for team, environments, target and models, and make the project"),
        Example("tidemill init harbour --team harbour --env dev --env prod --model berths", "ask nothing"),
        Example("tidemill init . --defaults", "the sample, in the folder where you are"),
    ),
    "update": (
        Example("tidemill update", "take the template of this tidemill in; conflicts stand between markers"),
        Example("tidemill update --dry-run", "say what it would do"),
        Example("tidemill update --set target=docker", "answer a question anew, and take in what follows"),
    ),
    "add model": (
        Example("tidemill add model prices", "a model in all stacks, with its code and its test"),
        Example(
            'tidemill add model prices --repository sales --train "python fit.py" --target price',
            "the same, with its data and its command",
        ),
    ),
    "add environment": (Example("tidemill add environment staging", "a stack of its own"),),
    "add repository": (Example("tidemill add repository sales", "a data repository with its gate, in all stacks"),),
    "schema": (Example("tidemill schema > stacks/stack.schema.json", "give an editor what it completes by"),),
    "train": (Example("tidemill train flights", "train here and now; register the version, promote nothing"),),
    "export": (
        Example("tidemill export flights.tar", "write everything of the stack into one archive"),
        Example("tidemill export /mnt/backup --passphrase-file ~/.tidemill-archive", "into a folder, asking nobody"),
    ),
    "import": (Example("tidemill import flights.tar -s flights-dev", "give a new stack what the archive holds"),),
    "serve": (
        Example("tidemill serve models:/flights@champion", "serve what the alias names, and follow it"),
        Example(
            "tidemill serve ./model --port 0 --capture captured", "serve a folder on a free port; keep the traffic"
        ),
    ),
    "score": (
        Example(
            "tidemill score models:/flights@champion departures.parquet scores.parquet --keep id",
            "score a file, and carry a column over",
        ),
        Example(
            "tidemill score models:/flights/3 flights/main/departures flights/scores/departures",
            "score a path of the lake into a branch",
        ),
    ),
    "image": (
        Example("tidemill image flights@champion", "build an image which serves one version"),
        Example("tidemill image flights@3 --no-build --context image", "write what it would be built from"),
    ),
    "keys add": (Example("tidemill keys add flights dashboard", "make a key and print it, once"),),
    "keys list": (Example("tidemill keys list flights", "who has a key, and since when"),),
    "keys revoke": (Example("tidemill keys revoke flights dashboard", "turn its holder away within seconds"),),
    "capture find": (
        Example(
            "tidemill capture find 01980a2f-6c1e-7a3b-9a52-3f1d0c6f4e11", "the rows of one answer, and where they lie"
        ),
    ),
    "capture forget": (
        Example("tidemill capture forget flights --column passenger --value -", "delete a subject's rows"),
    ),
}
"""Command -> its examples; a command of a group is called GROUP COMMAND."""


FIRST = (
    Example("tidemill validate", "check the configs of all stacks"),
    Example("tidemill up", "bring the platform up"),
    Example("tidemill status", "see what runs where"),
    Example("tidemill up --help", "what a command takes, with examples"),
)
"""What whoever asks `tidemill` itself is shown."""


def epilog(command: str) -> str | None:
    """Return what stands below the help of `command`; None where it has no example."""
    return _text(EXAMPLES.get(command, ()))


def group_epilog(group: str) -> str | None:
    """Return what stands below the help of a group of commands, or of `tidemill` itself."""
    if group == "tidemill":
        return _text(FIRST)
    return _text([examples[0] for command, examples in EXAMPLES.items() if command.startswith(f"{group} ")])


def _text(examples: Sequence[Example]) -> str | None:
    if not examples:
        return None
    # \b keeps the lines as they are.
    lines = [f"  {example.line}\n      {example.does}" for example in examples]
    return "\n".join(["\b", "Examples:", *lines])
