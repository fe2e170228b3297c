"""Labels: what is acknowledged is on the disk; many at a time; sent in bulk until the server has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from tidemill.runtime import data
from tidemill.runtime.capture import LABELS, list_segments, read_labels, write_segment
from tidemill.runtime.common.errors import ConfigError, PlatformError, UnreachableError
from tidemill.runtime.common.ids import uuid7
from tidemill.runtime.serving.recording import labels as labels_module
from tidemill.runtime.serving.recording.labels import LabelWriter

from tests.support.captured import labels
from tests.support.ports import free_ports


@contextmanager
def writer(directory: Path) -> Iterator[LabelWriter]:
    made = LabelWriter(directory)
    made.start()
    try:
        yield made
    finally:
        made.close()


def kept(directory: Path) -> dict[tuple[str, int], float]:
    return {(row["request_id"], row["row"]): row["label"] for row in read_labels(directory).to_pylist()}


def test_a_label_is_on_the_disk_when_it_is_acknowledged_and_the_last_one_counts(tmp_path: Path) -> None:
    with writer(tmp_path) as made:
        assert made.submit(labels(1.0, 0.0, request_id="r")).result(60) == 2
        assert kept(tmp_path) == {("r", 0): 1.0, ("r", 1): 0.0}
        for again in (1.0, 1.0, 5.0):
            made.submit(labels(again, request_id="r")).result(60)
    assert kept(tmp_path) == {("r", 0): 5.0, ("r", 1): 0.0}


def test_what_comes_while_one_is_written_shares_the_next_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        writing.set()
        assert go_on.wait(60)
        return write_segment(*arguments)

    monkeypatch.setattr(labels_module, "write_segment", slow)
    with writer(tmp_path) as made:
        first = made.submit(labels(1.0, request_id="first"))
        assert writing.wait(60)
        later = [made.submit(labels(1.0, request_id=f"r{index}")) for index in range(20)]
        left = made.submit(labels(1.0, request_id="the client left"))
        assert left.cancel()
        assert not first.done()
        go_on.set()
        assert [future.result(60) for future in (first, *later)] == [1] * 21
        assert len(list_segments(tmp_path, LABELS)) == 2
    assert len(kept(tmp_path)) == 21


def test_no_store_no_acknowledgement_and_it_goes_on_when_the_store_is_back(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with writer(store) as made:
        made.submit(labels(1.0, request_id="r")).result(60)
        shutil.rmtree(store)
        store.write_text("")
        for _ in range(2):
            with pytest.raises(OSError):
                made.submit(labels(2.0, request_id="r")).result(60)
        store.unlink()
        made.submit(labels(3.0, request_id="r")).result(60)
    assert kept(store) == {("r", 0): 3.0}
    with pytest.raises(OSError, match="ends"):
        made.submit(labels(1.0, request_id="r")).result(60)


def test_what_was_submitted_before_the_end_is_kept(tmp_path: Path) -> None:
    futures: list[Future[int]] = []
    with writer(tmp_path) as made:
        futures += [made.submit(labels(1.0, request_id=f"r{index}")) for index in range(50)]
    assert [future.result(0) for future in futures] == [1] * 50
    assert len(kept(tmp_path)) == 50


_CHILD = """
import sys
from pathlib import Path
from tests.support.captured import labels
from tidemill.runtime.serving.recording.labels import LabelWriter
writer = LabelWriter(Path(sys.argv[1]))
writer.start()
def say(name):
    return lambda future: future.exception() or print(name, flush=True)
turn = 0
while True:
    turn += 1
    futures = []
    for part in range(5):
        name = f"{sys.argv[2]}-{turn}-{part}"
        futures.append(writer.submit(labels(1.0, 0.0, request_id=name)))
        futures[-1].add_done_callback(say(name))
    for future in futures:
        future.result()
"""


def test_a_killed_server_loses_no_label_which_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for turn in range(3):
        argv = [sys.executable, "-c", _CHILD, str(tmp_path), str(turn)]
        root = Path(__file__).parents[4]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=root) as process:
            assert process.stdout
            acknowledged |= {process.stdout.readline().strip() for _ in range(23)}
            process.kill()
            acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    found = kept(tmp_path)
    assert len(acknowledged) >= 69
    assert {(name, row) for name in acknowledged for row in (0, 1)} <= set(found)


# --- in bulk --------------------------------------------------------------------------------------------------------


@dataclass
class Store:
    """A server which is asked for `POST /labels`, and answers what `script` says before it takes them."""

    url: str
    key_file: Path
    script: list[tuple[int, dict[str, str]]] = field(default_factory=list[tuple[int, dict[str, str]]])
    labels: dict[tuple[str, int], float] = field(default_factory=dict[tuple[str, int], float])
    sizes: list[int] = field(default_factory=list[int])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    key = tmp_path / "key"
    key.write_text("key\n")
    [port] = free_ports(1)
    made = Store(f"http://127.0.0.1:{port}", key)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] != "Bearer key" or self.path != "/labels":
                return self.answer(401, {}, {"detail": "a valid API key is needed"})
            if made.script:
                status, headers = made.script.pop(0)
                return self.answer(status, headers, {"detail": f"no: {status}"})
            made.sizes.append(len(body["labels"]))
            made.labels |= {(label["request_id"], label["row"]): label["label"] for label in body["labels"]}
            return self.answer(200, {}, {"accepted": len(body["labels"])})

        def answer(self, status: int, headers: dict[str, str], document: dict[str, Any]) -> None:
            text = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def known(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"request_id": [str(uuid7()) for _ in range(count)], "row": 0, "label": [0.0, 1.0] * (count // 2)}
    )


def test_labels_go_in_parts_and_are_counted(store: Store) -> None:
    frame = known(10)
    frame.loc[3, "label"] = None
    sent = data.send_labels(frame, store.url, key_file=store.key_file, rows=4)
    assert (sent.labels, sent.unlabelled, sent.requests, sent.retries) == (9, 1, 3, 0)
    assert store.sizes == [4, 4, 1]
    expected = frame.dropna()
    assert store.labels == {(r, 0): v for r, v in zip(expected["request_id"], expected["label"], strict=True)}


def test_tables_booleans_and_a_missing_row_column_are_taken(store: Store) -> None:
    table = pa.table({"request_id": ["a", "b"], "label": [True, False], "other": [None, None]})
    assert data.send_labels(table, store.url, key_file=store.key_file).labels == 2
    assert store.labels == {("a", 0): 1.0, ("b", 0): 0.0}
    assert data.send_labels(table.slice(0, 0), store.url, key_file=store.key_file).requests == 0


def test_a_busy_server_is_asked_again(store: Store) -> None:
    store.script = [(503, {"retry-after": "0"}), (429, {"retry-after": "0.1"}), (503, {"retry-after": "0"})]
    sent = data.send_labels(known(4), store.url, key_file=store.key_file, rows=2)
    assert (sent.labels, sent.requests, sent.retries) == (4, 2, 3)
    assert len(store.labels) == 4


def test_a_server_which_stays_busy_or_away_is_an_error_which_says_what_is_kept(store: Store) -> None:
    frame = known(4)
    store.script = [(503, {"retry-after": "20"})]
    with pytest.raises(UnreachableError, match="no: 503; 0 of 4 labels"):
        data.send_labels(frame, store.url, key_file=store.key_file, patience=1)
    with pytest.raises(UnreachableError, match="does not answer"):
        data.send_labels(frame, f"http://127.0.0.1:{free_ports(1)[0]}", key_file=store.key_file, patience=0)


@pytest.mark.parametrize(("status", "error"), [(422, ConfigError), (413, ConfigError), (500, PlatformError)])
def test_what_would_be_refused_again_is_not_sent_again(store: Store, status: int, error: type[Exception]) -> None:
    store.script = [(status, {}), (status, {})]
    with pytest.raises(error, match=f"no: {status}"):
        data.send_labels(known(2), store.url, key_file=store.key_file)
    assert len(store.script) == 1


def test_a_wrong_key_is_the_users_mistake(store: Store) -> None:
    store.key_file.write_text("another")
    with pytest.raises(ConfigError, match="a valid API key"):
        data.send_labels(known(2), store.url, key_file=store.key_file)


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        (pd.DataFrame({"request_id": ["a"]}), "labels"),
        (pd.DataFrame({"label": [1.0]}), "labels"),
        (pd.DataFrame({"request_id": ["a"], "label": ["late"]}), "labels.label"),
        (pd.DataFrame({"request_id": ["a"], "row": [1.5], "label": [1]}), "labels.row"),
        (pd.DataFrame({"request_id": ["a", None], "label": [1, 1]}), "labels.request_id"),
    ],
)
def test_what_are_no_labels_is_said_before_anything_is_sent(store: Store, frame: pd.DataFrame, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        data.send_labels(frame, store.url, key_file=store.key_file)
    assert caught.value.field == field
    assert store.sizes == []
