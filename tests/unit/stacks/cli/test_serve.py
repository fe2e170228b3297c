"""`serve` and `score` before anything is started: what is refused, in which sentence, and what is written down."""

from __future__ import annotations

import builtins
import json
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from tidemill.runtime.batch_scoring.model_uri import ModelUri, folder_name, registry_settings
from tidemill.runtime.common.errors import NotFoundError, UserError
from tidemill.runtime.common.settings import ListenSettings, load_settings
from tidemill.runtime.serving.http.limit_errors import OPTIONS
from tidemill.runtime.serving.settings import LimitSettings, ServingSettings
from tidemill.stacks.cli import serving_options
from tidemill.stacks.cli.app import run
from tidemill.stacks.cli.server_startup import curl_line, url_of

from tests.support.servers import free_port, secret_file


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "MLFLOW_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    """What the command would have become; nothing is."""
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *given: calls.append(given))
    monkeypatch.setattr("tidemill.stacks.cli.server_startup.announce_in_background", lambda _: None)
    return calls


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run(words)
    output = capsys.readouterr()
    assert "Traceback" not in output.err, output.err
    return code, output.out + output.err


def settings_of(call: tuple[str, list[str], dict[str, str]]) -> ServingSettings:
    program, arguments, _ = call
    assert program == arguments[0] == sys.executable
    assert arguments[1:4] == ["-m", "tidemill.runtime.serving", "--settings"]
    return load_settings(Path(arguments[4]), ServingSettings)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["absent"], "the folder does not exist"),
        (["."], "has no MLmodel file"),
        (["models:/flights"], "write models:/flights@champion"),
        (["models:/flights/newest"], "neither a version nor an alias"),
        (["models:/flights@"], "neither a version nor an alias"),
        (["runs:/abc/model"], "not a model URI"),
        (["s3://bucket/model"], "not a model URI"),
        (["models:/flights@champion"], "--tracking-uri"),
        (["models:/flights/3", "--shadow", "challenger"], "serve models:/flights@champion"),
        (["model", "--shadow", "challenger"], "a shadow requires an alias"),
        (["models:/flights@champion", "--name", "x"], "already has a name"),
        (["model", "--name", "a/b"], "invalid name"),
        (["model", "--host", "0.0.0.0"], "or --plain-http behind a proxy"),  # noqa: S104
        (["model", "--host", "::"], "or --plain-http behind a proxy"),
        (["model", "--tls-cert", "cert.pem"], "give both or none"),
        (["model", "--tls-cert", "cert.pem", "--tls-key", "key.pem"], "no such file"),
        (["model", "--key-file", "absent"], "cannot read the secret"),
        (["model", "--keys-file", "absent/keys.json"], "no such folder"),
        (["model", "--port", "99999"], "--port"),
        (["model", "--workers", "0"], "--workers"),
        (["model", "--settings", "absent.json"], "absent.json"),
        (["model", "--settings", "wrong.json"], "limits.rowz: Extra inputs are not permitted in wrong.json"),
        (["model", "--settings", "taken.json"], "the command line sets this"),
        (["models:/a@b", "--tracking-uri", "http://me:s3cret@host"], "MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path,
    started: list[Any],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    text: str,
) -> None:
    (place / "wrong.json").write_text('{"limits": {"rowz": 5}}')
    (place / "taken.json").write_text('{"listen": {"port": 1}}')
    code, output = said(capsys, "serve", *words, *(() if "--port" in words else ("--port", "0")))
    assert (code, text in output) == (2, True), output
    assert len(output.strip().splitlines()) == 1
    assert "s3cret" not in output
    assert started == []


def test_a_port_which_is_taken_is_the_platforms_failure(
    place: Path, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = said(capsys, "serve", "model", "--port", str(port))
    assert (code, f"127.0.0.1:{port}" in output, "--port 0" in output) == (3, True, True), output
    assert started == []


def test_a_folder_is_served_with_a_key_which_is_made_once(
    place: Path, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "serve", "model", "--port", "0")[0] == 0
    first = settings_of(started[0])
    key_file = first.listen.token_file
    key = key_file.read_text()
    code, output = said(
        capsys, "serve", "./model/", "--port", str(free_port()), "--name", "delays", "--workers", "3", "--no-compile",
        "--capture", "kept", "--keys-file", "keys.json",
    )  # fmt: skip
    assert code == 0
    assert key.startswith("tm_")
    assert key not in output
    second = settings_of(started[1])
    assert (first.model, first.workers, first.capture, first.path) == ("model", 1, None, place / "model")
    assert (second.model, second.workers, second.compile.engines) == ("delays", 3, [])
    assert second.capture and second.capture.directory == place / "kept"
    assert second.keys_file == place / "keys.json"
    assert f"the API key is in {second.listen.token_file}" in output
    assert f"at http://127.0.0.1:{second.listen.port}" in output
    said(capsys, "serve", "model", "--port", "0")
    assert settings_of(started[2]).listen.token_file == key_file
    assert key_file.read_text() == key
    for path in (place / "home").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.is_dir(), path
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700


def test_an_alias_is_followed_and_a_version_is_not(
    place: Path, started: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    assert said(capsys, "serve", "models:/flights@blue", "--port", "0", "--shadow", "green")[0] == 0
    said(capsys, "serve", "models:/flights/12", "--port", "0")
    alias, version = (settings_of(call) for call in started)
    assert (alias.model, alias.alias, alias.version, alias.shadow) == ("flights", "blue", None, "green")
    assert (version.model, version.version) == ("flights", "12")
    assert alias.cache != version.cache
    assert alias.registry and alias.registry.password_file
    assert alias.registry.username == "reader"
    assert alias.registry.password_file.read_text() == "s3cret"
    assert stat.S_IMODE(alias.registry.password_file.stat().st_mode) == 0o600
    for _, arguments, environment in started:
        assert "s3cret" not in " ".join([*arguments, *environment.values()])
        assert "s3cret" not in Path(arguments[4]).read_text()


def test_further_settings_come_from_a_file_and_options_win(
    place: Path, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    further = {"workers": 2, "limits": {"rows": 5}, "capture": {"directory": "elsewhere", "fraction": 0.5}}
    (place / "more.json").write_text(json.dumps(further))
    said(capsys, "serve", "model", "--port", "0", "--settings", "more.json", "--capture", "kept")
    found = settings_of(started[0])
    assert (found.workers, found.limits.rows) == (2, 5)
    assert found.capture and (found.capture.fraction, found.capture.directory) == (0.5, place / "kept")


def test_the_options_of_the_limits_that_refusals_name_exist(
    place: Path, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "more.json").write_text(json.dumps({"limits": {"rows": 5, "depth": 9}}))
    options = [part for number, option in enumerate(OPTIONS.values(), 100) for part in (option, str(number))]
    assert said(capsys, "serve", "model", "--port", "0", "--settings", "more.json", *options)[0] == 0
    limits = settings_of(started[0]).limits
    assert [getattr(limits, name) for name in OPTIONS] == [100, 101, 102, 103]
    assert limits.depth == 9
    assert said(capsys, "serve", "model", "--port", "0")[0] == 0
    assert settings_of(started[1]).limits == LimitSettings()
    # The help says the defaults.
    help_text = " ".join(said(capsys, "serve", "--help")[1].replace("│", " ").split())
    for name, option in OPTIONS.items():
        described = help_text.partition(f"{option} ")[2].partition("Default: ")[2]
        assert described.startswith(f"{getattr(LimitSettings(), name)}."), option


def test_the_platforms_registry_is_taken_where_none_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password = secret_file(place / "secrets", "password", "pw")
    registry = {"tracking_uri": "http://127.0.0.1:5000", "username": "trainer", "password_file": str(password)}
    lake = {"endpoint": "http://127.0.0.1:8000", "key_id_file": str(password), "secret_file": str(password)}
    runtime = place / "runtime.json"
    runtime.write_text(json.dumps({"stack": "a-b", "lake": lake, "registry": registry}))
    monkeypatch.setenv("TIDEMILL_RUNTIME", str(runtime))
    assert registry_settings(None).model_dump(mode="json") == registry
    assert registry_settings("http://127.0.0.1:5000/").username == "trainer"
    other = registry_settings("sqlite:///mlflow.db")
    assert (other.username, other.password_file) == (None, None)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD: is not set"):
        registry_settings("http://elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", " ")
    with pytest.raises(UserError, match="empty"):
        registry_settings("http://elsewhere")


def test_two_registries_never_share_a_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = ModelUri.parse("models:/flights@champion")
    one, other = registry_settings("http://one"), registry_settings("http://other")
    here = registry_settings("sqlite:///mlflow.db")
    names = [folder_name(uri, one), folder_name(uri, other), folder_name(uri, here)]
    monkeypatch.chdir(place / "model")
    names.append(folder_name(uri, here))
    assert len(set(names)) == 4
    assert folder_name(uri, one) == names[0]


def test_a_folder_may_have_any_name(place: Path) -> None:
    odd = place / "my model (2)"
    odd.mkdir()
    (odd / "MLmodel").write_text("")
    assert ModelUri.parse(str(odd)).name == "my-model-2"
    assert ModelUri.parse(str(odd), name="delays").name == "delays"
    with pytest.raises(NotFoundError):
        ModelUri.parse(str(place / "nothing"))


def test_the_curl_line_holds_no_key_and_survives_odd_paths(tmp_path: Path) -> None:
    key = secret_file(tmp_path / "it's here", "key")
    listen = ListenSettings(
        host="0.0.0.0",  # noqa: S104
        port=8443, token_file=key, tls_cert_file=tmp_path / "c.pem", tls_key_file=tmp_path / "k.pem",
    )  # fmt: skip
    line = curl_line(listen, {"inputs": ["it's"]})
    assert line.startswith(f"curl -s --cacert {tmp_path / 'c.pem'} https://127.0.0.1:8443/invocations ")
    assert key.read_text() not in line
    assert url_of(ListenSettings(host="::1", port=80, token_file=key)) == "http://[::1]:80"


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("fastapi", ["serve", "model"], "serve"),
        ("msgspec", ["score", "model", "in.csv", "out.csv"], "serve"),
        ("sqlalchemy", ["score", "models:/a@b", "in.csv", "out.csv", "--tracking-uri", "sqlite:///x.db"], "platform"),
        ("treelite", ["serve", "model", "--compile"], "compiled"),
    ],
)
def test_a_missing_extra_is_named(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    words: list[str],
    extra: str,
) -> None:
    gone = {missing, "tl2cgen", "onnxruntime"} if extra == "compiled" else {missing}
    monkeypatch.setattr(serving_options, "find_spec", lambda name: None if name in gone else object())
    code, output = said(capsys, *words)
    assert (code, f'pip install "tidemill[{extra}]"' in output) == (2, True), output


def test_neither_command_loads_anything_heavy_to_refuse(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def light(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name.partition(".")[0] not in ("mlflow", "pandas", "sklearn", "fastapi"), name
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", light)
    assert said(capsys, "serve", "absent", "--port", "0")[0] == 2
