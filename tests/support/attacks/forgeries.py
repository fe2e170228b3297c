"""Forged calls of services: hooks of the lake, alerts, labels."""

from __future__ import annotations

import json
import secrets as random
import time
import uuid
from typing import Any

import httpx

from tests.support.attacks.doors import basic, doors, secrets
from tests.support.drill import Drill
from tests.support.platform import RunningPlatform
from tests.support.scenario import ask, retrainings

AREA = "forgeries"
_REFUSED = {401, 403}
_ALERT: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "TidemillDrift", "model": "flights", "reason": "drift", "version": "1"},
    "annotations": {},
}


def hooks(platform: RunningPlatform, drill: Drill) -> None:
    """Call the validation service as if lakeFS did."""
    if "validation" not in {door.service for door in doors(platform)}:
        return
    event = {"event_type": "pre-merge", "repository_id": "flights", "branch_id": "main", "source_ref": "main"}
    with drill(AREA, "hooks of the lake") as attack, _client(platform, "validation") as client:

        def call(what: str, headers: dict[str, str], expected: set[int], content: bytes | None = None) -> None:
            body = json.dumps(event).encode() if content is None else content
            answer = client.post("/hooks/lakefs", content=body, headers=headers)
            attack.tried(what, answer.status_code in expected, f"{answer.status_code} {answer.text}")

        for value in ("", "x", "None", "null", "{{ ENV.LAKEFSACTION_HOOK }}", "0", "*"):
            call(f"secret {value!r}", {"X-Tidemill-Hook": value}, _REFUSED)
        call("no secret", {}, _REFUSED)
        for name, value in secrets(platform).items():
            if name != "lakefs-hook":
                call(f"secret {name}", {"X-Tidemill-Hook": value}, _REFUSED)
            call(f"{name} as a token", {"Authorization": f"Bearer {value}"}, _REFUSED)
        # Someone who has read the secret gets no verdict for what lakeFS does not know.
        right = {"X-Tidemill-Hook": platform.secret("lakefs-hook")}
        for what, content in (
            ("no event", b""),
            ("a list", b"[]"),
            ("deep", b"[" * 30_000),
            ("large", b'{"a": "' + b"x" * 200_000 + b'"}'),
            ("another repository", json.dumps({**event, "repository_id": "../other"}).encode()),
            ("an odd branch", json.dumps({**event, "source_ref": "../../../settings"}).encode()),
            ("an unknown commit", json.dumps({**event, "commit_id": "0" * 64}).encode()),
        ):
            call(f"the right secret, {what}", right, {400, 413, 422, 503, *_REFUSED}, content)


def alerts(platform: RunningPlatform, drill: Drill) -> None:
    """Start a retraining with a forged alert."""
    with drill(AREA, "alerts") as attack:
        before = _trainings(platform)
        every = secrets(platform)
        webhook = {"version": "4", "alerts": [_ALERT]}
        if "retraining" in {door.service for door in doors(platform)}:
            token = platform.secret("retraining-token")
            with _client(platform, "retraining") as client:
                headers = [{}, {"Authorization": "Bearer"}, {"Authorization": basic("admin", token)}]
                headers += [{"Authorization": f"Bearer {value}"} for value in every.values() if value != token]
                for header in headers:
                    answer = client.post("/alerts", json=webhook, headers=header)
                    attack.tried("without its token", answer.status_code in _REFUSED, answer.status_code)
                own = {"Authorization": f"Bearer {token}"}
                for what, body in (
                    ("another version of the body", {**webhook, "version": "9"}),
                    ("an unknown model", {"version": "4", "alerts": [_alert(model="../../x")]}),
                    ("an unknown reason", {"version": "4", "alerts": [_alert(reason="because")]}),
                    ("another version of the model", {"version": "4", "alerts": [_alert(version="999")]}),
                    ("labels that are no text", {"version": "4", "alerts": [_alert(model=["flights"])]}),
                    ("very many", {"version": "4", "alerts": [_alert(model="x")] * 1001}),
                ):
                    answer = client.post("/alerts", json=body, headers=own)
                    attack.tried(what, answer.status_code < 500, answer.status_code)
                answer = client.post("/alerts", content=b"[" * 900_000, headers=own)
                attack.tried("a deep body", answer.status_code in {413, 422}, answer.status_code)
        with _client(platform, "alertmanager") as client:
            posted = [{"labels": _ALERT["labels"]}]
            for value in ["", *(value for name, value in every.items() if name != "alertmanager-admin")]:
                header = {"Authorization": basic("admin", value)} if value else {}
                answer = client.post("/api/v2/alerts", json=posted, headers=header)
                attack.tried("through Alertmanager", answer.status_code in _REFUSED, answer.status_code)
        time.sleep(1)  # a training begins within a second
        after = _trainings(platform)
        attack.tried("no training began", after == before, after)


def labels(platform: RunningPlatform, drill: Drill) -> None:
    """Send labels that hide quality, or that are no labels."""
    mine = ask(platform)["request_id"]
    with drill(AREA, "labels") as attack, _client(platform, "serving-flights") as client:
        own = {"Authorization": f"Bearer {platform.secret('serving-flights-key')}"}
        label = {"request_id": mine, "row": 0, "label": 1}
        for name, value in {"no key": "", **secrets(platform)}.items():
            if name != "serving-flights-key":
                answer = client.post(
                    "/labels", json={"labels": [label]}, headers={"Authorization": f"Bearer {value}".strip()}
                )
                attack.tried(name, answer.status_code in _REFUSED, answer.status_code)

        def send(what: str, body: Any) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = client.post("/labels", content=content, headers={**own, "Content-Type": "application/json"})
            attack.tried(what, answer.status_code in {400, 413, 422}, f"{answer.status_code} {answer.text}")

        for value in ("NaN", "Infinity", "-Infinity", "1e999", "7", "1e308", "-1", "0.5", '"1"', "null", "[1]", "{}"):
            given = f'{{"labels": [{{"request_id": "{mine}", "row": 0, "label": {value}}}]}}'
            send(f"label {value}", given.encode())
        for row in (-1, 2**31, 2**63, 1.5, "0", True, [0]):
            send(f"row {row!r}", {"labels": [{**label, "row": row}]})
        for identifier in ("", "../../../etc/passwd", "x\0y", str(uuid.uuid4()), 7, None, mine + "'", "A" * 10_000):
            send(f"request {identifier!r:.30}", {"labels": [{**label, "request_id": identifier}]})
        send("no labels", {"labels": []})
        send("too many", {"labels": [label] * 10_001})
        send("other keys", {"labels": [label], "label": 1})
        send("deep", b'{"labels":' + b"[" * 60_000 + b"]" * 60_000 + b"}")
        send("invalid UTF-8", b'{"labels": [{"request_id": "\xff"}]}')
        good = client.post("/labels", json={"labels": [label]}, headers=own)
        assert good.is_success, good.text


def keys_of_the_model_server(platform: RunningPlatform, drill: Drill) -> None:
    """Guess a key, many times and fast: none is accepted, and the right one still is."""
    with drill(AREA, "guessed keys") as attack, _client(platform, "serving-flights") as client:
        right = platform.secret("serving-flights-key")
        guesses = [right[:-1], right + "x", right.upper(), right.lower(), right[::-1]]
        guesses += [random.token_urlsafe(32) for _ in range(300)]
        for guess in guesses:
            answer = client.post("/invocations", content=b"{}", headers={"Authorization": f"Bearer {guess}"})
            attack.tried("a guess", answer.status_code == 401, answer.status_code)
        assert ask(platform)["predictions"]


def _alert(**labels: Any) -> dict[str, Any]:
    return {**_ALERT, "labels": {**_ALERT["labels"], **labels}}


def _trainings(platform: RunningPlatform) -> list[str]:
    """Return the retrainings that launched a job; one that a forged alert queued may be closed without a job."""
    return [retraining["id"] for retraining in retrainings(platform) if retraining["started_at"]]


def _client(platform: RunningPlatform, service: str) -> httpx.Client:
    return httpx.Client(base_url=platform.url(service), timeout=60, trust_env=False)
