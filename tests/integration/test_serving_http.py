"""The real server, without a registry: misbehaving clients, a failing disk, and its shutdown."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psutil
import pytest
from tidemill.runtime.capture import read_capture

from tests.support.alone import server_of
from tests.support.serving import ModelServer, small_pipeline

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PIPELINE, FRAME = small_pipeline(1)
ROW = {"distance": 1400.0, "hour": 17, "carrier": "UA"}
BODY = json.dumps({"dataframe_records": [ROW]}).encode()
LIMITS = {"header_seconds": 1.0, "body_seconds": 1.0, "connections": 200, "body_bytes": 100_000}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with server_of(tmp_path_factory.mktemp("alone"), PIPELINE, FRAME, limits=LIMITS, drain_seconds=1.5) as one:
        yield one


def head(served: ModelServer, *more: str, length: int = len(BODY)) -> bytes:
    lines = (
        "POST /invocations HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {served.key}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *more,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def connection(served: ModelServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as made:
        yield made


def received(made: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    parts: list[bytes] = []
    try:
        while part := made.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answers(served: ModelServer) -> bool:
    with served.client() as client:
        return client.post("/invocations", content=BODY, headers={"Content-Type": "application/json"}).is_success


def test_a_head_which_never_ends_is_cut_off(served: ModelServer) -> None:
    with connection(served) as slow, connection(served) as silent, connection(served) as second:
        second.sendall(head(served, "Connection: keep-alive") + BODY)
        told = b""
        while not told.endswith(b"}"):
            told += second.recv(65536)
        assert told.startswith(b"HTTP/1.1 200")
        second.sendall(b"POST /invocations HT")
        slow.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\n")
        for made in (slow, silent, second):
            assert received(made) == b""
    assert answers(served)


def test_a_head_which_is_too_long_is_refused(served: ModelServer) -> None:
    with connection(served) as made:
        made.sendall(b"GET /healthz HTTP/1.1\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(40):
                made.sendall(b"X-Filler: " + b"x" * 4096 + b"\r\n")
        # The refusal may be lost when what was sent meanwhile is never read; an answer it is in no case.
        assert not received(made).startswith(b"HTTP/1.1 2")
    assert answers(served)


def test_a_body_which_comes_by_drops_is_answered_408(served: ModelServer) -> None:
    with connection(served) as made:
        made.sendall(head(served) + BODY[:10])
        told = received(made)
    assert told.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in told
    assert b"application/problem+json" in told
    assert answers(served)


def test_half_closed_and_reset_connections_are_no_trouble(served: ModelServer) -> None:
    assert served.process
    process = psutil.Process(served.process.pid)
    with connection(served) as made:
        made.sendall(head(served) + BODY)
        made.shutdown(socket.SHUT_WR)
        assert b"predictions" in made.recv(65536)
    for sent in (b"", b"GET", head(served), head(served) + BODY[:20], head(served) + BODY):
        for linger in (False, True):
            with connection(served) as made:
                made.sendall(sent)
                if linger:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing resets
    assert answers(served)
    served.wait(lambda: process.num_fds() < 80)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_forgotten(served: ModelServer, raw: bytes) -> None:
    with connection(served) as made:
        made.sendall(raw)
        made.shutdown(socket.SHUT_WR)
        told = received(made)
    assert not told or told[9:10] == b"4", told
    assert answers(served)


def test_pipelined_requests_are_answered_in_order(served: ModelServer) -> None:
    with connection(served) as made:
        for number in range(20):
            made.sendall(head(served, f"X-Request-Id: p{number}") + BODY)
        told = b""
        while told.count(b'"client_request_id":"p') < 20:
            told += made.recv(65536)
    order = [told.index(f'"client_request_id":"p{number}"'.encode()) for number in range(20)]
    assert order == sorted(order)
    assert told.count(b"HTTP/1.1 200") == 20


def told_of(served: ModelServer, raw: bytes, parts: int = 1) -> tuple[bytes, dict[bytes, bytes], Any]:
    """Return status line, headers and document of the answer to `raw`, sent in `parts`, without what differs always."""
    with connection(served) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = -(-len(raw) // parts)
        for start in range(0, len(raw), size):
            made.sendall(raw[start : start + size])
            time.sleep(0.01 if parts > 1 else 0)
        told = b""
        while b"\r\n\r\n" not in told:
            told += made.recv(65536)
        first, _, body = told.partition(b"\r\n\r\n")
        status, *lines = first.split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        while len(body) < int(headers[b"content-length"]):
            body += made.recv(65536)
    assert headers.pop(b"x-request-id")
    if b"traceparent" in headers:
        headers[b"traceparent"] = headers[b"traceparent"][:36]
    try:
        document = json.loads(body)
    except ValueError:
        return status, headers, body
    assert document.pop("request_id")
    return status, headers, document


def rows_of(number: int) -> bytes:
    data = [list(ROW.values())] * number
    return json.dumps({"dataframe_split": {"columns": list(ROW), "data": data}}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("status", "body", "more", "parts"),
    [
        (200, BODY, (), 1),
        (200, BODY, (), 40),
        (200, BODY, ("Connection: close",), 1),
        (200, BODY, ("X-Request-Id: mine", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), 1),
        (200, BODY, ("Accept: text/csv",), 1),
        (200, gzip.compress(BODY, mtime=0), ("Content-Encoding: gzip",), 1),
        (200, rows_of(1500), (), 1),
        (200, rows_of(4500), (), 3),
        (400, b"{", (), 1),
        (400, BODY, ("X-Request-Id: caf\u00e9",), 1),
        (401, BODY, ("Authorization: Bearer wrong",), 1),
        (401, BODY, ("Authorization: Bearer wrong",), 3),
        (406, BODY, ("Accept: image/png",), 1),
        (413, b"x" * 150_000, (), 3),
        (415, BODY, ("Content-Encoding: br",), 1),
        (422, b"{}", (), 1),
    ],
)
def test_both_ways_through_the_server_give_the_same(
    served: ModelServer, status: int, body: bytes, more: tuple[str, ...], parts: int
) -> None:
    """A request with a query string goes through ASGI."""
    raw = head(served, *more, length=len(body)) + body
    told = told_of(served, raw, parts)
    assert told == told_of(served, raw.replace(b"/invocations", b"/invocations?long", 1), parts)
    assert told[0].startswith(b"HTTP/1.1 %d " % status)


def test_a_body_in_chunks_and_one_which_waits_to_be_asked_for(served: ModelServer) -> None:
    plain = head(served).replace(b"Content-Length: %d\r\n" % len(BODY), b"")
    chunked = plain.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:10], BODY[10:])) + b"0\r\n\r\n"
    assert told_of(served, chunked + chunks) == told_of(served, head(served) + BODY)
    with connection(served) as made:
        made.sendall(head(served, "Expect: 100-continue"))
        assert made.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        made.sendall(BODY)
        assert b"predictions" in made.recv(65536)


def test_an_older_client_is_told_that_the_connection_ends(served: ModelServer) -> None:
    for more in ((), ("Connection: keep-alive",)):
        with connection(served) as made:
            made.sendall(head(served, *more).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY)
            told = received(made)
        assert b"\r\nconnection: close\r\n" in told
        assert b"predictions" in told


def test_other_requests_between_are_answered_in_order(served: ModelServer) -> None:
    other = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connection(served) as made:
        made.sendall((head(served) + BODY + other) * 10 + head(served, "Connection: close") + BODY)
        told = received(made)
    kinds = [b"predictions" in answer for answer in told.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert kinds == [True, False] * 10 + [True]


def test_refused_before_its_body_came_a_connection_goes_on(served: ModelServer) -> None:
    with connection(served) as made:
        made.sendall(head(served, "Authorization: Bearer wrong") + BODY[:10])
        assert made.recv(65536).startswith(b"HTTP/1.1 401 ")
        made.sendall(BODY[10:] + head(served) + BODY)
        assert b"predictions" in made.recv(65536)


def test_more_connections_than_there_may_be_are_closed(served: ModelServer) -> None:
    made = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(260)]
    try:
        closed = 0
        for each in made[-20:]:
            try:
                closed += each.recv(1) == b""
            except ConnectionResetError:
                closed += 1
        assert closed == 20
    finally:
        for each in made:
            each.close()
    served.wait(lambda: answers(served))


def test_a_capture_folder_which_is_gone_stops_labels_and_no_prediction(served: ModelServer) -> None:
    with served.client() as client:
        asked = client.post("/invocations", content=BODY, headers={"Content-Type": "application/json"}).json()
        label = {"labels": [{"request_id": asked["request_id"], "row": 0, "label": 1}]}
        assert client.post("/labels", json=label).status_code == 200
        shutil.rmtree(served.capture)
        served.capture.write_text("a file stands where the folder was")
        try:
            refused = client.post("/labels", json=label)
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
            assert int(refused.headers["retry-after"]) > 0
            for _ in range(50):
                assert client.post(
                    "/invocations", content=BODY, headers={"Content-Type": "application/json"}
                ).is_success
        finally:
            served.capture.unlink()
        served.wait(lambda: client.post("/labels", json=label).status_code == 200)
        last = client.post("/invocations", content=BODY, headers={"Content-Type": "application/json"}).json()

        def kept() -> bool:
            table = read_capture(served.capture)
            return table is not None and last["request_id"] in table["request_id"].to_pylist()

        served.wait(kept)


def test_it_says_that_it_is_not_ready_before_it_goes(served: ModelServer) -> None:
    """The last test but one: it ends the server."""
    assert served.process
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def ask() -> None:
        with served.client() as client:
            while not stop.is_set():
                try:
                    ready = client.get("/readyz").status_code
                    asked = client.post("/invocations", content=BODY, headers={"Content-Type": "application/json"})
                    seen.append((ready, asked.status_code))
                except httpx.TransportError:
                    return
                time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    served.wait(lambda: len(seen) > 3)
    os.kill(served.process.pid, signal.SIGTERM)
    assert served.process.wait(30) == 0
    stop.set()
    thread.join()
    served.process = None
    assert (200, 200) in seen
    assert (503, 200) in seen, "predictions go on while it drains"
    assert {answered for _, answered in seen} == {200}


def test_nothing_was_an_error_of_the_server(served: ModelServer) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in served.log.splitlines()]
    assert not [line for line in lines if line.get("exception")], "a traceback is in the log"
    assert {line["status"] for line in lines if line["logger"] == "access" and line["status"] >= 500} <= {503}
