"""LakeFS content against a real lakeFS."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tidemill.components.provider.base import DELETE_DATA, RECREATE, Context
from tidemill.components.provider.content.lakefs import Action, Branch, BranchProtection, Repository
from tidemill.runtime.common.errors import ConfigError, PlatformError, RefusedError, UnreachableError
from tidemill.runtime.validation.action import action_yaml

from tests.support.servers import Outside, Server, lakefs_server

pytestmark = pytest.mark.integration

PATH = "_lakefs_actions/gate.yaml"


class Hook:
    """A webhook which answers what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[str] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                hook.asked.append(str(self.headers["X-Tidemill-Hook"]))
                self.send_response(hook.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/lakefs"

    def __enter__(self) -> Hook:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with Outside() as listening:
        yield listening


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, outside: Outside) -> Iterator[Server]:
    env = {"LAKEFSACTION_HOOK": "told by lakeFS", **outside.env}
    with lakefs_server(tmp_path_factory.mktemp("lakefs"), env=env) as server:
        yield server


@pytest.fixture
def context() -> Context:
    return Context("urn:pulumi:dev::tidemill::x::it", warn=lambda text: warnings.append(text))


warnings: list[str] = []


def access(lake: Server, **more: Any) -> dict[str, Any]:
    files = {"keyIdFile": str(lake.files["key_id"]), "secretFile": str(lake.files["secret"])}
    return {"stack": "flights-dev", "url": lake.url, **files, **more}


def repository(lake: Server, name: str, **more: Any) -> dict[str, Any]:
    return access(lake, name=name, namespace=f"local://{name}", defaultBranch="main") | more


@contextmanager
def client(lake: Server) -> Generator[httpx.Client]:
    with httpx.Client(base_url=f"{lake.url}/api/v1", auth=lake.auth, trust_env=False) as http:
        yield http


def test_repository_is_adopted_by_its_stack_alone(lake: Server, context: Context) -> None:
    inputs = repository(lake, "owned")
    _, state = Repository().create(context, inputs)
    assert Repository().create(context, inputs) == ("owned", state), "a creation which was interrupted is repeated"
    assert Repository().read(context, state) == state
    assert not Repository().diff(context, state, inputs).changes
    with pytest.raises(RefusedError, match="flights-dev"):
        Repository().create(context, inputs | {"stack": "other-dev"})


def test_unmarked_repository_is_adopted_only_while_it_is_untouched(lake: Server, context: Context) -> None:
    with client(lake) as http:
        made = {"name": "halfway", "storage_namespace": "local://halfway", "default_branch": "main"}
        http.post("/repositories", json=made).raise_for_status()
        Repository().create(context, repository(lake, "halfway"))
        made = {"name": "theirs", "storage_namespace": "local://theirs", "default_branch": "main"}
        http.post("/repositories", json=made).raise_for_status()
        http.post("/repositories/theirs/branches/main/objects", params={"path": "x"}, content=b"1").raise_for_status()
    with pytest.raises(RefusedError, match="no stack made it"):
        Repository().create(context, repository(lake, "theirs"))


def test_lost_repository_is_made_again_only_on_the_users_word(
    lake: Server, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = repository(lake, "lost")
    _, state = Repository().create(context, inputs)
    with pytest.raises(RefusedError, match="holds data"):
        Repository().guard_delete(state)
    monkeypatch.setenv(DELETE_DATA, "flights-dev")
    Repository().delete(context, state)
    monkeypatch.delenv(DELETE_DATA)

    gone = Repository().read(context, state)
    assert gone is not None and gone["missing"] is True
    with pytest.raises(RefusedError, match="--recreate lost"):
        Repository().diff(context, gone, inputs)
    monkeypatch.setenv(RECREATE, "lost")
    assert "missing" in Repository().diff(context, gone, inputs).changes
    again = Repository().update(context, gone, inputs)
    assert again["storageNamespace"] == "local://lost-2", "lakeFS refuses a namespace which was used"
    found = Repository().read(context, again)
    assert found == again
    assert not Repository().diff(context, again, inputs).changes


def test_a_namesake_made_by_hand_is_not_taken_for_the_lost_one(lake: Server, context: Context) -> None:
    _, state = Repository().create(context, repository(lake, "namesake"))
    found = Repository().read(context, state | {"created": 1, "stack": "other-dev"})
    assert found is not None and found["missing"] is True


def test_protection_lifted_by_hand_shows_and_is_repaired(lake: Server, context: Context) -> None:
    Repository().create(context, repository(lake, "protected"))
    inputs = access(lake, repository="protected", branches=["main", "release-*"])
    _, state = BranchProtection().create(context, inputs)
    rules = "/repositories/protected/settings/branch_protection"
    with client(lake) as http:
        http.put(rules, json=[{"pattern": "release-*"}, {"pattern": "theirs"}]).raise_for_status()
        found = BranchProtection().read(context, state)
        assert found is not None and found["branches"] == ["release-*"]
        assert BranchProtection().diff(context, found, inputs).changes == ("branches",)
        fixed = BranchProtection().update(context, found, inputs)
        assert {rule["pattern"] for rule in http.get(rules).json()} == {"main", "release-*", "theirs"}
        BranchProtection().update(context, fixed, inputs | {"branches": ["main"]})
        assert {rule["pattern"] for rule in http.get(rules).json()} == {"main", "theirs"}, "what is no longer wanted"


def test_branch_made_again_when_gone(lake: Server, context: Context) -> None:
    Repository().create(context, repository(lake, "branches"))
    inputs = access(lake, repository="branches", name="work", source="main")
    _, state = Branch().create(context, inputs)
    assert Branch().create(context, inputs)[1] == state
    assert Branch().read(context, state) == state
    Branch().delete(context, state)
    assert Branch().read(context, state) is None


def test_action_on_a_protected_branch_passes_its_own_hook(lake: Server, context: Context) -> None:
    Repository().create(context, repository(lake, "gated"))
    with Hook() as hook, client(lake) as http:
        content = action_yaml("gate", ["main"], hook.url)
        inputs = access(lake, repository="gated", branch="main", path=PATH, content=content)
        _, state = Action().create(context, inputs)
        assert Action().read(context, state) == state
        log = "/repositories/gated/refs/main/commits"
        before = http.get(log).json()["results"]
        Action().create(context, inputs)
        assert http.get(log).json()["results"] == before, "adopted, not committed again"

        BranchProtection().create(context, access(lake, repository="gated", branches=["main"]))
        _wait_until_protected(http, "gated")
        hook.asked.clear()
        changed = inputs | {"content": content + "# changed\n"}
        assert Action().diff(context, state, changed).changes == ("content",)
        state = Action().update(context, state, changed)
        assert Action().read(context, state) == state
        assert hook.asked == ["told by lakeFS"], "the merge asked the gate, with its secret"

        hook.status = 500
        with pytest.raises(PlatformError, match="hook refused"):
            Action().update(context, state, changed | {"content": content + "# refused\n"})
        assert Action().read(context, state) == state
        branches = [item["id"] for item in http.get("/repositories/gated/branches").json()["results"]]
        assert branches == ["main"], "nothing is left of the refused change"

        BranchProtection().delete(context, access(lake, repository="gated", branches=["main"]))
        Action().delete(context, state)  # at once, while the dropped rule still acts
        assert Action().read(context, state) is None


def test_refused_first_action_leaves_nothing_staged(lake: Server, context: Context) -> None:
    Repository().create(context, repository(lake, "refused"))
    with Hook() as hook, client(lake) as http:
        hook.status = 422
        content = action_yaml("gate", ["main"], hook.url)
        with pytest.raises(PlatformError, match="hook refused"):
            Action().create(context, access(lake, repository="refused", branch="main", path=PATH, content=content))
        assert http.get("/repositories/refused/branches/main/diff").json()["results"] == []


def test_action_never_commits_what_others_staged(lake: Server, context: Context) -> None:
    Repository().create(context, repository(lake, "staged"))
    content = action_yaml("gate", ["main"], "http://127.0.0.1:9/")
    with client(lake) as http:
        http.post("/repositories/staged/branches/main/objects", params={"path": "x"}, content=b"1").raise_for_status()
    with pytest.raises(PlatformError, match="nobody committed"):
        Action().create(context, access(lake, repository="staged", branch="main", path=PATH, content=content))


def test_content_of_another_stacks_repository_is_refused(lake: Server, context: Context) -> None:
    Repository().create(context, repository(lake, "foreign"))
    with pytest.raises(RefusedError, match="another stack"):
        BranchProtection().create(context, access(lake, repository="foreign", branches=["main"], stack="other-dev"))


def test_every_accepted_action_file_is_one_lakefs_can_read(lake: Server, context: Context) -> None:
    """Both halves: what is refused beforehand would have answered 500, and what is accepted does not."""
    good = action_yaml("gate", ["other"], "http://127.0.0.1:9/")
    bad = [
        good.replace("name: gate", "name: x"),
        good.replace("pre-merge", "before-merge"),
        good.replace("id: validate", "id: 1"),
        good.replace("type: webhook", "type: carrier-pigeon"),
        good.replace("url:", "link:"),
    ]
    Repository().create(context, repository(lake, "forms"))
    with client(lake) as http:
        for number, text in enumerate(bad):
            with pytest.raises(ConfigError):
                Action().check(access(lake, repository="forms", branch="main", path=PATH, content=text))
            # A branch each: lakeFS remembers a branch's action files for some seconds.
            route = f"/repositories/forms/branches/bad-{number}"
            body = {"name": f"bad-{number}", "source": "main"}
            http.post("/repositories/forms/branches", json=body).raise_for_status()
            http.post(f"{route}/objects", params={"path": PATH}, content=text.encode()).raise_for_status()
            assert http.post(f"{route}/commits", json={"message": "bad"}).status_code == 500, text
    Action().create(context, Action().check(access(lake, repository="forms", branch="main", path=PATH, content=good)))


def test_unreachable_is_not_gone(lake: Server, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state = Repository().create(context, repository(lake, "away"))
    warnings.clear()
    wrong = Repository().read(context, state | {"secretFile": str(lake.files["key_id"])})
    assert wrong is not None and "missing" not in wrong and warnings, "refused credentials say nothing about the data"
    lake.stop()
    try:
        with pytest.raises(UnreachableError, match="does not answer"):
            Repository().read(context, state)
        with pytest.raises(UnreachableError):
            Repository().delete(context, state)
        monkeypatch.setenv(DELETE_DATA, "flights-dev")
        Repository().delete(context, state)
    finally:
        lake.start()
    assert Repository().read(context, state) == state


def test_lakefs_called_nobody(lake: Server, outside: Outside, tmp_path: Path) -> None:
    # A lakeFS that may ask its vendor about itself shows that calls are caught, and how long after the start they come.
    with Outside() as heard, lakefs_server(tmp_path, env=heard.env, config="{}\n") as control:
        control.stop()
        begun = time.monotonic()
        control.start()
        while not (calls := heard.calls()):
            assert time.monotonic() - begun < 60, "no call of lakeFS is caught"
            time.sleep(0.1)
        took = time.monotonic() - begun
    assert calls[0].startswith("CONNECT "), calls
    lake.stop()
    begun = time.monotonic()
    lake.start()
    while time.monotonic() - begun < 1 + 2 * took:
        assert outside.calls() == []
        time.sleep(0.2)


def _wait_until_protected(http: httpx.Client, name: str) -> None:
    end = time.monotonic() + 30
    while http.post(f"/repositories/{name}/branches/main/commits", json={"message": "probe"}).status_code != 403:
        assert time.monotonic() < end, "the protection does not act"
        time.sleep(0.5)
