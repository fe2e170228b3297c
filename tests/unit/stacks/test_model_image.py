"""What `tidemill image` writes: nothing that is put in breaks out of its place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill.runtime.common.errors import TidemillError
from tidemill.runtime.serving.versions.model import VersionInfo
from tidemill.stacks.cli import app
from tidemill.stacks.model_image import default_tag
from tidemill.templates.rendering import render

VALUES = {
    "base": "python:3.11",
    "apt": [],
    "wheel": "tidemill-1-py3-none-any.whl",
    "isolated": True,
    "port": 8080,
    "labels": {},
}
# What the Dockerfile's own grammar says of a quoted word: a backslash takes the meaning of these away, and no other.
_ESCAPED = re.compile(r'\\(["\\$])')


def unquoted(word: str) -> str:
    """Return what Docker reads in a quoted word, which must end where the line does."""
    found = re.fullmatch(r'"((?:[^"\\$]|\\["\\$])*)"', word)
    assert found, word
    return _ESCAPED.sub(r"\1", found[1])


def instructions(dockerfile: str) -> list[str]:
    return [line for line in re.sub(r"\\\n", "", dockerfile).split("\n") if line and not line.startswith("#")]


_PRINTED = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"))
_SPECIAL = st.sampled_from(['"', "\\", "$HOME", "${BASE}", '\\"', "a b", "# x", "=", "'"])


@given(st.lists(_PRINTED | _SPECIAL, min_size=1, max_size=5))
def test_labels_stay_labels(parts: list[str]) -> None:
    value = "".join(parts)
    labels = {"tidemill.model": "flights", "tidemill.git.commit": value}
    plain = instructions(render("images/model/Dockerfile.j2", **{**VALUES, "labels": dict.fromkeys(labels, "x")}))
    hostile = instructions(render("images/model/Dockerfile.j2", **{**VALUES, "labels": labels}))
    assert len(hostile) == len(plain)
    [line] = [line for line in hostile if line.startswith("LABEL tidemill.git.commit=")]
    assert unquoted(line.partition("=")[2]) == value
    assert [mine for mine in hostile if not mine.startswith("LABEL")] == [
        mine for mine in plain if not mine.startswith("LABEL")
    ]


@pytest.mark.parametrize("value", ["a\nRUN rm -rf /", "a\rb", "\0", "a\x85b", "a\u2028b"])
def test_what_would_begin_a_line_is_refused(value: str) -> None:
    with pytest.raises(TidemillError, match="control characters"):
        render("images/model/Dockerfile.j2", **{**VALUES, "labels": {"tidemill.git.commit": value}})


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,80}", fullmatch=True), st.from_regex(r"[1-9][0-9]{0,5}", fullmatch=True))
def test_the_default_name_is_one_which_docker_takes(name: str, version: str) -> None:
    # https://github.com/distribution/reference: the grammar of a reference.
    path = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    tag = default_tag(VersionInfo(name, version, "", "", "", {}))
    assert re.fullmatch(rf"{path}(?:/{path})*:[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}", tag)


@pytest.mark.parametrize("isolated", [True, False])
def test_what_is_copied_is_let_through(isolated: bool) -> None:
    dockerfile = render("images/model/Dockerfile.j2", **{**VALUES, "isolated": isolated})
    copied = {
        word.strip('"')
        for line in instructions(dockerfile)
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    let = {
        line.removeprefix("!") for line in render("images/model/dockerignore.j2").splitlines() if line.startswith("!")
    }
    assert copied - {"tidemill-1-py3-none-any.whl"} <= let
    assert "*.whl" in let
    assert ("model.lock" in copied) == isolated
    assert instructions(dockerfile).count("COPY version /opt/tidemill/version") == 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    return folder


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--tag", "Upper:1"], "--tag"),
        (["--tag", "a b"], "--tag"),
        (["--tag=--network=host"], "--tag"),
        (["--base", "python:3\nRUN evil"], "--base"),
        (["--base", "--platform=x"], "--base"),
        (["--name", "a/../b"], "--name"),
        (["--no-build"], "--context"),
        (["--settings", "settings.json"], "listen"),
        (["--wheel", "settings.json"], "--wheel"),
    ],
)
def test_what_does_not_fit_is_the_users_mistake(
    model: Path, options: list[str], field: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    monkeypatch.setenv("TIDEMILL_CACHE", str(model.parent / "cache"))
    (model.parent / "settings.json").write_text(json.dumps({"listen": {"port": 1}}))
    given = options if "--no-build" in options else [*options, "--context", "context"]
    assert app.run(["image", str(model), *given]) == 2
    assert capsys.readouterr().err.startswith(f"tidemill: {field}: ")


def test_a_folder_with_something_in_it_is_left_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "mine").write_text("mine")
    assert app.run(["image", str(model), "--context", str(tmp_path / "context")]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "context").iterdir()] == ["mine"]


_SERVER = """
import http.server, json, ssl, sys
from pathlib import Path
status, certificate, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(status if self.path == "/healthz" else 500)
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
listen = {"port": server.server_port}
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    listen["tls_cert_file"] = certificate
(folder / "settings.json").write_text(json.dumps({"listen": listen}))
print("up", flush=True)
server.serve_forever()
"""


def self_signed(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere.example.org")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "both.pem"
    file.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_the_health_check_asks_the_way_the_server_listens(tmp_path: Path, tls: bool, status: int, well: bool) -> None:
    certificate = str(self_signed(tmp_path)) if tls else ""
    text = render("images/model/healthcheck.py.j2").replace(
        "/etc/tidemill/settings.json", str(tmp_path / "settings.json")
    )
    argv = [sys.executable, "-c", _SERVER, str(status), certificate, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        # No proxy has a way to the container's own loopback.
        environ = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
        done = subprocess.run([sys.executable, "-I", "-c", text], env=environ, check=False)
        assert (done.returncode == 0) == well
        server.kill()
    gone = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stderr) == (1, "")
