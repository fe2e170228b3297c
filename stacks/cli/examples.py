"""Examples of every command, for `--help` and docs/commands.md. The tests parse each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Example(NamedTuple):
    """A command line and its description."""

    line: str
    does: str


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "up": (
        Example("tidemill up", "show the changes, ask, and apply them"),
        Example("tidemill up --yes --no-wait", "do not ask, and do not wait until the models serve"),
        Example("tidemill up --yes --recreate flights", "create a lost repository again, empty"),
    ),
    "preview": (
        Example("tidemill preview", "show what `up` would change"),
        Example("tidemill preview --json --policy", "for CI: one JSON object per line, checked by the policy pack"),
    ),
    "refresh": (Example("tidemill refresh", "compare the state with what actually exists"),),
    "destroy": (
        Example("tidemill destroy", "remove the platform; refuses while it holds data"),
        Example("tidemill destroy --delete-data", "also delete the data, after a confirmation"),
    ),
    "status": (
        Example("tidemill status", "health and address of all services, and the served versions"),
        Example("tidemill status -s flights-dev --json", "the same for one stack, as JSON"),
    ),
    "stop": (Example("tidemill stop", "stop all services, keep everything"),),
    "start": (Example("tidemill start --timeout 180", "start all services, and wait up to three minutes"),),
    "restart": (Example("tidemill restart lakefs", "stop one service and start it again"),),
    "logs": (
        Example("tidemill logs retraining -n 200", "the last 200 lines"),
        Example("tidemill logs serving-flights --follow", "also print new lines as they appear"),
    ),
    "open": (Example("tidemill open mlflow", "open it in the browser, and print the login"),),
    "doctor": (Example("tidemill doctor", "where each tool comes from, and how to get missing ones"),),
    "policies": (
        Example("tidemill policies", "the rules and the level of each"),
        Example('pulumi preview --policy-pack "$(tidemill policies --path)"', "use them without tidemill"),
    ),
    "data restore": (
        Example("tidemill data restore flights/main", "show what would change, ask, and restore the data"),
    ),
    "env": (Example('eval "$(tidemill env)"', "connect `pulumi` and training code to the stack"),),
    "validate": (
        Example("tidemill validate", "check the configs of all stacks"),
        Example("tidemill validate --stack flights-dev", "check one"),
        Example("tidemill validate --json", "the same as JSON: each problem with file, line, path and hint"),
    ),
    "config": (
        Example("tidemill config", "the complete config, with bases and defaults"),
        Example("tidemill config --explain models.flights.watch.window", "the source of one value"),
        Example("tidemill config --explain monitoring --json", "the sources of all values below it, as JSON"),
    ),
    "stacks": (
        Example("tidemill stacks", "the stacks of all teams, with target and state"),
        Example("tidemill stacks --json", "the same as JSON"),
    ),
    "init": (
        Example("tidemill init harbour", "ask for team, environments, target and models, then create the project"),
        Example(
            "tidemill init harbour --team harbour --env dev --env prod --model berths", "create it without questions"
        ),
        Example("tidemill init . --defaults", "the sample project, in the current folder"),
    ),
    "update": (
        Example("tidemill update", "apply this version's template; mark conflicts in the files"),
        Example("tidemill update --dry-run", "show the changes"),
        Example("tidemill update --set target=docker", "change an answer, and apply the changes that follow"),
    ),
    "add model": (
        Example("tidemill add model prices", "a model in all stacks, with code and a test"),
        Example(
            'tidemill add model prices --repository sales --train "python fit.py" --target price',
            "the same, with its data and training command",
        ),
    ),
    "add environment": (Example("tidemill add environment staging", "another stack"),),
    "add repository": (Example("tidemill add repository sales", "a data repository with its gate, in all stacks"),),
    "schema": (Example("tidemill schema > stacks/stack.schema.json", "for completion and checks in an editor"),),
    "train": (Example("tidemill train flights", "train on this machine; register the version without promoting it"),),
    "export": (
        Example("tidemill export flights.tar", "write all contents of the stack into one archive"),
        Example(
            "tidemill export /mnt/backup --passphrase-file ~/.tidemill-archive",
            "into a folder, without asking for the passphrase",
        ),
    ),
    "import": (Example("tidemill import flights.tar -s flights-dev", "load the archive into a new stack"),),
    "serve": (
        Example("tidemill serve models:/flights@champion", "serve the version of an alias, and follow the alias"),
        Example(
            "tidemill serve ./model --port 0 --capture captured", "serve a folder on a free port; capture the traffic"
        ),
    ),
    "score": (
        Example(
            "tidemill score models:/flights@champion departures.parquet scores.parquet --keep id",
            "score a file, and copy a column to the result",
        ),
        Example(
            "tidemill score models:/flights/3 flights/main/departures flights/scores/departures",
            "score a lake path into a branch",
        ),
    ),
    "convert": (
        Example("tidemill convert flights@3 --trust pickle", "register a version of it without a pickle"),
        Example("tidemill convert old-model new-model --to onnx --trust pickle", "convert a folder to another folder"),
    ),
    "image": (
        Example("tidemill image flights@champion", "build an image that serves one version"),
        Example("tidemill image flights@3 --no-build --context image", "only write the build context"),
    ),
    "keys add": (
        Example("tidemill keys add flights dashboard", "create a key and print it once"),
        Example("tidemill keys add flights back-office --may label", "a key that can send labels, and nothing else"),
    ),
    "keys list": (Example("tidemill keys list flights", "names of the keys, their uses, and when they were created"),),
    "keys revoke": (Example("tidemill keys revoke flights dashboard", "refuse the key within seconds"),),
    "users add": (
        Example("tidemill users add ana --may train --may promote", "create an account and print its password once"),
        Example("tidemill users add ben --may read --password-file ben.txt", "write the password to a private file"),
    ),
    "users list": (Example("tidemill users list", "people's accounts, and what they may do"),),
    "users revoke": (Example("tidemill users revoke ana", "refuse the account from the next request on"),),
    "capture find": (
        Example(
            "tidemill capture find 01980a2f-6c1e-7a3b-9a52-3f1d0c6f4e11", "the rows of one answer, and their files"
        ),
    ),
    "capture forget": (
        Example("tidemill capture forget flights --column passenger --value -", "delete a person's rows"),
        Example("tidemill capture forget flights --labels-of partner", "delete the labels that a key sent"),
    ),
}
"""Command (or GROUP COMMAND) -> its examples."""


FIRST = (
    Example("tidemill validate", "check the configs of all stacks"),
    Example("tidemill up", "create or update the platform"),
    Example("tidemill status", "show health and address of all services"),
    Example("tidemill up --help", "options and examples of a command"),
)
"""The examples of `tidemill --help`."""


def epilog(command: str) -> str | None:
    """Return the examples of `command` as text for its help, or None."""
    return _text(EXAMPLES.get(command, ()))


def group_epilog(group: str) -> str | None:
    """Return the examples of a group, or of `tidemill` itself, as text for its help."""
    if group == "tidemill":
        return _text(FIRST)
    return _text([examples[0] for command, examples in EXAMPLES.items() if command.startswith(f"{group} ")])


def _text(examples: Sequence[Example]) -> str | None:
    if not examples:
        return None
    # \b: do not wrap these lines.
    lines = [f"  {example.line}\n      {example.does}" for example in examples]
    return "\n".join(["\b", "Examples:", *lines])
