"""Rules of the content resources which need no server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from tidemill.components.provider.base import UNKNOWN, Context
from tidemill.components.provider.content.lakefs import RESOURCES as LAKE
from tidemill.components.provider.content.lakefs import Action, Repository
from tidemill.components.provider.content.lakefs_action import validate_action
from tidemill.components.provider.content.mlflow import RESOURCES as REGISTRY
from tidemill.components.provider.content.mlflow import Permission
from tidemill.components.provider.content.rest import Rest
from tidemill.runtime.common.errors import ConfigError, UnreachableError
from tidemill.runtime.validation.action import action_yaml

ACTION = {
    "stack": "flights-dev",
    "url": "http://127.0.0.1:1",
    "keyIdFile": "k",
    "secretFile": "s",
    "repository": "flights",
    "branch": "main",
    "path": "_lakefs_actions/gate.yaml",
}


@pytest.mark.parametrize("resource", [*LAKE, *REGISTRY], ids=lambda resource: resource.token)
def test_no_change_is_seen_where_there_is_none_and_a_moved_server_is_no_replacement(resource: Any) -> None:
    inputs = dict.fromkeys(resource.required, "x")
    context = Context("urn:pulumi:dev::tidemill::x::it", warn=print)
    assert not resource.diff(context, inputs | dict.fromkeys(resource.outputs, "y"), inputs).changes
    moved = resource.diff(context, inputs, inputs | {"url": "http://127.0.0.1:2"})
    assert (moved.changes, moved.replaces) == (("url",), ())


def test_our_own_gate_is_an_action_lakefs_reads() -> None:
    validate_action(action_yaml("tidemill-gate", ["main"], "http://127.0.0.1:1/hooks/lakefs"), "gate.yaml")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("a: [", "gate.yaml"),
        ("- a", "gate.yaml"),
        ("name: gate\n", "on"),
        ("name: gate\non: {pre-merge: {}}\nhooks: {}\n", "hooks"),
        ("name: gate\non: {pre-merge: {}}\nhooks: [{id: ab, type: webhook}]\n", "hooks[0].properties.url"),
        ("name: gate\non: {pre-merge: {}}\nhooks: [{id: ab, type: lua}, {id: ab, type: lua}]\n", "hooks[1].id"),
    ],
)
def test_an_action_which_would_block_its_branch_is_refused_with_its_place(content: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Action().check({**ACTION, "content": content})
    assert str(caught.value.field).endswith(field)


def test_what_a_preview_does_not_know_yet_is_not_judged() -> None:
    Action().check({**ACTION, "content": UNKNOWN})
    access = {"stack": "s", "url": UNKNOWN, "admin": "admin", "passwordFile": UNKNOWN}
    Permission().check({**access, "username": "u", "kind": "experiment", "target": "t", "permission": UNKNOWN})
    with pytest.raises(ConfigError, match="EDIT"):
        Permission().check({**access, "username": "u", "kind": "experiment", "target": "t", "permission": "OWN"})


def test_credentials_which_are_lost_say_nothing_about_the_data(tmp_path: Path) -> None:
    warned: list[str] = []
    context = Context("urn:pulumi:dev::tidemill::x::it", warn=warned.append)
    lost = {"keyIdFile": str(tmp_path / "lost"), "secretFile": str(tmp_path / "lost")}
    state = {"stack": "s", "url": "http://127.0.0.1:1", "name": "flights", **lost}
    assert Repository().read(context, state) == state
    assert "flights" in warned[0]


def test_nobody_listening_and_no_address_are_both_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}", "http://127.0.0.1:notaport"):
            with pytest.raises(UnreachableError, match="does not answer") as caught:
                Rest("lakeFS", url, "user", "a secret").get("/repositories")
            assert "a secret" not in str(caught.value)
