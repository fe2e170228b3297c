"""Attacks on lakeFS's S3 gateway: unsigned, wrongly signed and altered requests."""

from __future__ import annotations

import datetime
import json
import secrets as random
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import httpx
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tidemill.runtime.common.settings import LakeSettings
from tidemill.runtime.data.lake_client import Lake
from tidemill.stacks.loading import load_stack, project_settings
from tidemill.stacks.training_settings import runtime_file

from tests.support.attacks.doors import secrets
from tests.support.drill import Drill
from tests.support.platform import RunningPlatform

_TARGET = "/flights/main/departures/unsigned.parquet"


def s3_gateway(platform: RunningPlatform, drill: Drill) -> None:
    url = platform.url("lakefs")
    own = (platform.secret("lakefs-key-id"), platform.secret("lakefs-secret"))
    with Lake(lake_settings(platform)) as lake:
        known = next(item.path for item in lake.objects("flights", "main", "departures"))
    path = f"/flights/main/{known}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        good = client.request("GET", path, headers=_signed(url, "GET", path, own))
        assert (good.status_code, good.content[:4]) == (200, b"PAR1"), "the right signature must be accepted"

        def read(attack: Any, what: str, headers: dict[str, str], target: str = path) -> None:
            answer = client.get(target, headers=headers)
            attack.tried(what, b"PAR1" not in answer.content, answer.status_code)

        with drill("S3 gateway", "reads without a right signature") as attack:
            read(attack, "unsigned", {})
            read(attack, "signature version 2", {"Authorization": f"AWS {own[0]}:{'A' * 28}"})
            read(attack, "an empty signature", {"Authorization": _signed(url, "GET", path, own)["Authorization"][:-64]})
            read(attack, "zeros", {**_signed(url, "GET", path, own), "Authorization": _zeroed(url, path, own)})
            read(attack, "wrong secret", _signed(url, "GET", path, (own[0], "wrong" * 8)))
            read(attack, "empty secret", _signed(url, "GET", path, (own[0], "")))
            read(attack, "key of another stack", _signed(url, "GET", path, (_key_id(), random.token_urlsafe(30))))
            read(attack, "another path's signature", _signed(url, "GET", _TARGET, own))
            read(attack, "another method's signature", _signed(url, "DELETE", path, own))
            for name, value in secrets(platform).items():
                if value != own[1]:
                    read(attack, f"secret {name}", _signed(url, "GET", path, (own[0], value)))
                if value != own[0]:
                    read(attack, f"user and secret {name}", _signed(url, "GET", path, (value, value)))
            for what, target in (
                ("expired link", _link(url, path, own, -3600)),
                ("longer link", _link(url, path, own, -3600).replace("Expires=60", "Expires=604800")),
                ("another path's link", path + "?" + urlsplit(_link(url, _TARGET, own, 0)).query),
                ("wrong link", _link(url, path, (own[0], "wrong" * 8), 0)),
                ("link without signature", _link(url, path, own, 0).partition("&X-Amz-Signature")[0]),
                ("anonymous list", "/flights/main?list-type=2"),
                ("repositories", "/?x-id=ListBuckets"),
            ):
                answer = client.get(target)
                seen = b"PAR1" in answer.content or b"departures" in answer.content or b"<Bucket>" in answer.content
                attack.tried(what, not seen, answer.status_code)
        old = {"x-amz-date": "20130101T000000Z"}
        with drill("S3 gateway", "writes without a right signature") as attack:
            for what, headers in (
                ("unsigned", {}),
                ("wrong secret", _signed(url, "PUT", _TARGET, (own[0], "wrong" * 8), b"forged")),
                ("signature of a read", _signed(url, "GET", _TARGET, own)),
                ("altered body", _signed(url, "PUT", _TARGET, own, b"forgex")),
                ("altered time", {**_signed(url, "PUT", _TARGET, own, b"forged"), **old}),
            ):
                answer = client.put(_TARGET, content=b"forged", headers=headers)
                there = client.head(_TARGET, headers=_signed(url, "HEAD", _TARGET, own)).status_code == 200
                attack.tried(what, not there, answer.status_code)
                if there:
                    client.delete(_TARGET, headers=_signed(url, "DELETE", _TARGET, own))
            client.delete(path)
            there = client.head(path, headers=_signed(url, "HEAD", path, own)).status_code == 200
            attack.tried("unsigned deletion", there)


def lake_settings(platform: RunningPlatform) -> LakeSettings:
    """Return the settings of a client of the platform's lake on this machine."""
    project_settings.cache_clear()
    file = runtime_file(load_stack(platform.project, platform.stack), platform.operations())
    assert file is not None
    return LakeSettings.model_validate(json.loads(file.read_text())["lake"])


def _signed(url: str, method: str, path: str, key: tuple[str, str], body: bytes = b"") -> dict[str, str]:
    request = AWSRequest(method=method, url=url + path, data=body, headers={"Host": urlsplit(url).netloc})
    S3SigV4Auth(Credentials(*key), "s3", "us-east-1").add_auth(request)
    return {str(name): str(value) for name, value in request.headers.items()}


def _zeroed(url: str, path: str, key: tuple[str, str]) -> str:
    return _signed(url, "GET", path, key)["Authorization"].rpartition("=")[0] + "=" + "0" * 64


def _link(url: str, path: str, key: tuple[str, str], shift: int) -> str:
    """Return a signed link of one minute, signed `shift` seconds from now."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=shift)
    request = AWSRequest(method="GET", url=url + path)
    with mock.patch("botocore.auth.get_current_datetime", lambda: moment):
        S3SigV4QueryAuth(Credentials(*key), "s3", "us-east-1", expires=60).add_auth(request)
    return str(request.url).removeprefix(url)


def _key_id() -> str:
    return "AKIAJ" + random.token_hex(7).upper() + "Q"
