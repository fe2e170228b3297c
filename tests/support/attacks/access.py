"""Attacks on ports: without credentials, with wrong ones, and with those of another service or a browser."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
from tidemill.components.lake import UNPROTECTED_PATHS

from tests.support.attacks import wire
from tests.support.attacks.doors import Door, basic, doors, secrets, user_of
from tests.support.drill import Drill
from tests.support.platform import RunningPlatform

AREA = "ports"
_REFUSED = {401, 403}
_ODD_HEADERS = (
    "", "Basic", "Basic !!!", "Basic YWRtaW4=", "Basic Og==", "Bearer", "Bearer ", "Bearer x", "Bearer null",
    "Bearer \xff", "Digest username=admin", "AWS a:b", "bearer:x", "Basic " + "A" * 7000, "Negotiate x",
)  # fmt: skip


def no_credentials_and_odd_ones(platform: RunningPlatform, drill: Drill) -> None:
    for door in doors(platform):
        url = platform.url(door.service)
        with drill(AREA, "no or odd credentials", on=door.service) as attack:
            answer = wire.send(url, wire.request(url, door.path))
            attack.tried("no header", answer.status in _REFUSED, answer.status)
            for value in _ODD_HEADERS:
                header = f"Authorization: {value}".encode("latin-1")
                answer = wire.send(url, wire.request(url, door.path, header))
                attack.tried(value[:40], answer.status in {400, *_REFUSED}, answer.status)


def secrets_of_other_services(platform: RunningPlatform, drill: Drill) -> None:
    every = secrets(platform)
    for door in doors(platform):
        own = {user_of(platform, user): platform.secret(secret) for user, secret in door.accounts.items()}
        with drill(AREA, "secrets of other services", on=door.service) as attack, _client(platform, door) as client:
            for user, secret in own.items():
                header = basic(user, secret) if user else f"Bearer {secret}"
                answer = client.get(door.path, headers={"Authorization": header})
                assert answer.status_code == 200, f"{door.service} refuses its own account {user}: {answer.text}"
            for name, value in every.items():
                # Some passwords open the door, but only for their own user.
                headers = [basic(user or "admin", value) for user, secret in own.items() if secret != value][:2]
                if value not in own.values():
                    headers.append(f"Bearer {value}")
                for header in headers:
                    answer = client.get(door.path, headers={"Authorization": header})
                    attack.tried(f"{name} as {header.split()[0]}", answer.status_code in _REFUSED, answer.status_code)


def pages_of_other_sites(platform: RunningPlatform, drill: Drill) -> None:
    """A page of another site cannot read or change anything through the browser of a logged-in person."""
    for door in doors(platform):
        user, secret = next(iter(door.accounts.items()))
        value = platform.secret(secret)
        name = user_of(platform, user)
        allowed = {"Authorization": basic(name, value) if name else f"Bearer {value}"}
        with drill("browsers", "pages of other sites", on=door.service) as attack, _client(platform, door) as client:
            for origin in ("http://evil.example", "null", f"http://127.0.0.1.evil.example:{client.base_url.port}"):
                answer = client.get(door.path, headers={**allowed, "Origin": origin})
                attack.tried(f"read from {origin}", not _readable(answer, origin), dict(answer.headers))
                # Without credentials, a page may read the answer only if it has no data.
                answer = client.get(door.path, headers={"Origin": origin})
                attack.tried(f"read without credentials from {origin}", answer.status_code in _REFUSED, answer.text)
                asked = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
                answer = client.options(door.path, headers=asked)
                methods = answer.headers.get("access-control-allow-methods", "")
                permitted = _readable(answer, origin) and "DELETE" in methods
                attack.tried(f"preflight from {origin}", not permitted, dict(answer.headers))
    if any(door.service == "alertmanager" for door in doors(platform)):
        with drill("browsers", "form posts", on="alertmanager") as attack, _alertmanager(platform) as client:
            for path in ("/api/v2/alerts", "/api/v2/silences", "/api/v1/alerts"):
                for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                    headers = {"Origin": "http://evil.example", "Content-Type": kind}
                    answer = client.post(path, content=_FORGED, headers=headers)
                    attack.tried(f"{path} as {kind}", answer.status_code in {404, 410, 415}, answer.status_code)


def foreign_host_headers(platform: RunningPlatform, drill: Drill) -> None:
    """A site whose name resolves to this machine (DNS rebinding) gets nothing from the project's own services."""
    for door in doors(platform):
        if door.health not in {"/healthz", "/health"}:
            continue  # lakeFS, Prometheus and Alertmanager do not check; their credentials protect them.
        user, secret = next(iter(door.accounts.items()))
        value = platform.secret(secret)
        allowed = {"Authorization": basic(user, value) if user else f"Bearer {value}"}
        with drill("browsers", "foreign Host headers", on=door.service) as attack, _client(platform, door) as client:
            port = client.base_url.port
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", f"127.0.0.1@evil:{port}"):
                answer = client.get(door.path, headers={**allowed, "Host": host})
                attack.tried(host, answer.status_code in {400, 403, 421}, answer.status_code)


def open_paths_of_lakefs(platform: RunningPlatform, drill: Drill) -> None:
    """Open paths of lakeFS show no secret, and a load balancer that hides them also hides other spellings."""
    url = platform.url("lakefs")
    every = secrets(platform)
    with drill("lakeFS", "secrets and names in metrics and profiles") as attack:
        for path in ("metrics", "_pprof/cmdline", "_pprof/heap?debug=1", "_pprof/goroutine?debug=2",
                     "_pprof/allocs?debug=1", "_pprof/trace?seconds=0.2", "openapi.json", "_health"):  # fmt: skip
            content = httpx.get(f"{url}/{path}", timeout=30).content
            found = [name for name, value in every.items() if value.encode() in content]
            attack.tried(path, not found, found)
            attack.tried(f"{path}: names of data", path == "openapi.json" or b"departures" not in content)
    hidden = [re.compile(re.escape(pattern).replace(r"\*", ".*").encode(), re.DOTALL) for pattern in UNPROTECTED_PATHS]
    with drill("lakeFS", "spellings of /metrics and /_pprof/ that a load balancer lets through") as attack:
        leaks = 0
        for target in _spellings():
            answer = wire.send(url, wire.request(url, target))
            leaked = answer.status == 200 and any(mark in answer.body for mark in _LEAKS)
            leaks += leaked
            path = target.split(b"?")[0]
            path = b"/" + path.split(b"/", 3)[3] if path.startswith(b"http://") else path
            covered = any(pattern.fullmatch(path) for pattern in hidden)
            attack.tried(target.decode("latin-1"), covered or not leaked, answer.head[:60])
        assert leaks > 4, "lakeFS protects them now: remove the exception"


def operations_of_lakefs(platform: RunningPlatform, drill: Drill) -> None:
    """Every operation of lakeFS's interface requires credentials, except those that describe the login."""
    url = platform.url("lakefs")
    document = httpx.get(f"{url}/openapi.json", timeout=30).json()
    filled = {"repository": "flights", "branch": "main", "ref": "main", "path": "departures", "userId": "tidemill"}
    # `/user` answers an empty user; `/oidc/callback` an empty page.
    public = {"/healthcheck", "/setup_lakefs", "/auth/login", "/auth/capabilities", "/user", "/oidc/callback"}
    with drill("lakeFS", "operations without credentials") as attack, httpx.Client(base_url=url, timeout=30) as client:
        for path, operations in document["paths"].items():
            route = re.sub(r"\{(\w+)\}", lambda match: filled.get(match[1], "x"), path)
            for method in operations:
                if method not in {"get", "put", "post", "delete", "patch", "head"}:
                    continue
                body: dict[str, Any] = {"json": {}} if method in {"put", "post", "patch"} else {}
                answer = client.request(method, f"/api/v1{route}", **body)
                harmless = path in public and method in {"get", "head"}
                attack.tried(f"{method} {path}", harmless or answer.status_code >= 400, answer.status_code)
        again = client.post("/api/v1/setup_lakefs", json={"username": "mine", "key": {
            "access_key_id": "AKIAJMINE", "secret_access_key": "mine"}})  # fmt: skip
        attack.tried("a second administrator", again.status_code == 409, again.status_code)


_FORGED = json.dumps(
    [{"labels": {"alertname": "TidemillDrift", "model": "flights", "reason": "drift", "version": "1"}}]
)
_LEAKS = (b"go_goroutines", b"lakefs\0run", b"Types of profiles", b"goroutine profile", b"heap profile")


def _spellings() -> list[bytes]:
    found: list[bytes] = []
    for path in ("/metrics", "/_pprof/cmdline", "/_pprof/"):
        found += [path.encode(), path.upper().encode()]
        found += [f"{path[:at]}%{ord(letter):02X}{path[at + 1 :]}".encode() for at, letter in enumerate(path) if at]
        found += [
            spelling.format(path).encode()
            for spelling in (
                "/{0}", "/.{0}", "/x/..{0}", "/..{0}", "{0}/", "{0}//", "{0}/x", "{0}/..", "{0}%2f", "{0}%00", "{0}%20",
                "{0};a", "{0}?a", "{0}#a", "{0}%3f", "{0}%23", "/%2f{0}", "/%2e{0}", "/\\..{0}", "/api/v1/../..{0}",
                "http://lakefs{0}", "http://lakefs/{0}", "{0}\t", "/%252e{0}", "//lakefs{0}", "/;{0}", "/ {0}",
            )
        ]  # fmt: skip
    return found


def _readable(answer: httpx.Response, origin: str) -> bool:
    """Tell whether a browser lets a page of `origin` read `answer` to a request with a person's credentials.

    Alertmanager allows `*`, which cannot be turned off. Browsers refuse that for a request with credentials.
    """
    return answer.headers.get("access-control-allow-origin") == origin


def _client(platform: RunningPlatform, door: Door) -> httpx.Client:
    return httpx.Client(base_url=platform.url(door.service), timeout=60, trust_env=False)


def _alertmanager(platform: RunningPlatform) -> httpx.Client:
    return platform.client("alertmanager", user="admin", secret="alertmanager-admin")
