"""Odd HTTP against every port: large, broken and slow requests. Afterwards each service answers and is not larger."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import psutil

from tests.support.attacks import wire
from tests.support.attacks.doors import Door, doors, ours
from tests.support.drill import Drill
from tests.support.platform import RunningPlatform
from tests.support.scenario import ask

AREA = "odd HTTP"
_MB = 2**20
_FLOOD = 48 * _MB
_CONNECTIONS = 400
# Allowed growth of a service, in MB: caches and the allocator, but not the sent bytes.
_GROWTH = 24
# What anyone may read, where `test_service_limits` does not send all of these floods.
_OPEN = {"mlflow": ("/health", "/static-files/none")}


def broken_requests(platform: RunningPlatform, drill: Drill) -> None:
    before = platform.running()
    tries = {door: list(_broken(platform.url(door.service), door)) for door in doors(platform)}
    for door, answers in _send_all(platform, tries):
        with drill(AREA, "broken requests", on=door.service) as attack:
            for what, answer in answers:
                # A page without data may come with any of them.
                served = answer.status == 200 and b"<!doctype html>" not in answer.body.lower()
                attack.tried(what, not served and answer.status != 500, f"{answer.status} {answer.body[:80]!r}")
            attack.tried("answers afterwards", wire.answers(platform.url(door.service), door.health))
            attack.tried("the same process", platform.running()[door.service] == before[door.service])


def smuggled_requests(platform: RunningPlatform, drill: Drill) -> None:
    """A request that is hidden in the body of another request is never answered."""
    tries = {door: list(_smuggled(platform.url(door.service), door)) for door in doors(platform)}
    for door, answers in _send_all(platform, tries):
        with drill(AREA, "smuggled requests", on=door.service) as attack:
            for what, answer in answers:
                attack.tried(what, answer.statuses <= 1, answer.head[:80])


def floods(platform: RunningPlatform, drill: Drill) -> None:
    """Send one huge header, a huge body and endless chunks without credentials, also to what anyone may read.

    The project's own services and MLflow keep none of it. lakeFS reads a body before it asks for credentials; it
    answers afterwards.
    """
    limited = {door.service for door in ours(platform)} | {"mlflow"}
    for door in doors(platform):
        url, pid = platform.url(door.service), platform.pid(door.service)
        with drill(AREA, "floods", on=door.service) as attack:
            floods = [(True, *flood) for flood in _floods(url, door.path, b"POST")]
            for path in _OPEN.get(door.service, ()):
                floods += [(False, f"GET {path}: {what}", raw) for what, raw in _floods(url, path, b"GET")]
            for closed, what, raw in floods:
                memory = [_memory(pid)]
                answer = wire.send(url, _watched(raw, pid, memory), timeout=3)
                grown = max(*memory, _memory(pid)) - memory[0]
                if door.service in limited:
                    attack.tried(f"{what}: memory", grown < _GROWTH, f"{grown} MB more, status {answer.status}")
                attack.tried(f"{what}: answer", not closed or answer.status != 200, answer.status)
            attack.tried("answers afterwards", wire.answers(url, door.health))


def slow_connections(platform: RunningPlatform, drill: Drill) -> None:
    """Hold many connections that never finish their request: others are still answered."""
    for door in ours(platform):
        url, pid = platform.url(door.service), platform.pid(door.service)
        with drill(AREA, "slow connections", on=door.service) as attack, contextlib.ExitStack() as held:
            before = _memory(pid)
            for _ in range(_CONNECTIONS):
                with contextlib.suppress(OSError):
                    stream: socket.socket = held.enter_context(wire.connect(url))
                    stream.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-A: ")
            attack.tried("others are answered", wire.answers(url, door.health, 10))
            if door.service == "serving-flights":
                attack.tried("the model answers", bool(ask(platform)["predictions"]))
            grown = _memory(pid) - before
            attack.tried("memory", grown < _GROWTH, f"{grown} MB more")
            held.close()
            attack.tried("answers afterwards", wire.answers(url, door.health))


def bodies_for_the_model(platform: RunningPlatform, drill: Drill) -> None:
    """Send bodies that a caller with a key may send: the answer is an error document, and never 500."""
    url = platform.url("serving-flights")
    key = f"Authorization: Bearer {platform.secret('serving-flights-key')}".encode()
    kind = b"Content-Type: application/json"
    before = _memory(platform.pid("serving-flights"))
    with drill(AREA, "bodies of a caller", on="serving-flights") as attack:
        for what, body, *more in (
            ("nothing", b""),
            ("NUL bytes", b"\0" * 1000),
            ("invalid UTF-8", b'{"dataframe_records": [{"carrier": "\xff\xfe"}]}'),
            ("half a surrogate", b'{"dataframe_records": [{"carrier": "\\ud800"}]}'),
            ("deep lists", b"[" * 500_000),
            ("deep objects", b'{"a":' * 200_000),
            ("many rows", b'{"dataframe_records": [' + b"{}," * 20_000 + b"{}]}"),
            ("many columns", json.dumps({"dataframe_records": [{f"c{at}": 1 for at in range(5000)}]}).encode()),
            ("huge number", b'{"dataframe_records": [{"hour": ' + b"9" * 100_000 + b"}]}"),
            ("one key many times", b'{"dataframe_records": [{' + b'"hour": 1,' * 5000 + b'"hour": 1}]}'),
            ("too large", b" " * 9_000_000),
            ("zip bomb", _bomb(), b"Content-Encoding: gzip"),
            ("nested zip", _bomb(2), b"Content-Encoding: gzip, gzip"),
            ("unknown encoding", b"{}", b"Content-Encoding: zstd-x"),
            ("no zip", b"{}", b"Content-Encoding: gzip"),
        ):
            length = b"Content-Length: %d" % len(body)
            raw = wire.request(url, "/invocations", key, kind, length, *more, method=b"POST", body=body)
            answer = wire.send(url, raw, timeout=20)
            attack.tried(what, 400 <= answer.status < 500, f"{answer.status} {answer.body[:80]!r}")
        grown = _memory(platform.pid("serving-flights")) - before
        attack.tried("memory", grown < 3 * _GROWTH, f"{grown} MB more")
        attack.tried("the model answers", bool(ask(platform)["predictions"]))


def _broken(url: str, door: Door) -> Iterator[tuple[str, bytes]]:
    path = door.path.encode()
    host = url.removeprefix("http://").encode()
    yield "no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64
    yield "NUL bytes", b"\0" * 4096
    yield "only line ends", b"\r\n" * 2000
    yield "no version", b"GET " + path + b"\r\n\r\n"
    yield "version 9", b"GET " + path + b" HTTP/9.9\r\nHost: " + host + b"\r\n\r\n"
    yield "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 32
    yield "no host", b"GET " + path + b" HTTP/1.1\r\nConnection: close\r\n\r\n"
    yield "two hosts", wire.request(url, path, b"Host: evil.example")
    yield "absolute target", wire.request(url, b"http://evil.example" + path)
    yield "target with a user", wire.request(url, b"http://admin:admin@" + host + path)
    yield "a tunnel", wire.request(url, host, method=b"CONNECT")
    yield "NUL in the path", wire.request(url, path.replace(b"?", b"\0?") + b"\0")
    yield "escaped NUL", wire.request(url, b"/%00" + path)
    yield "invalid UTF-8", wire.request(url, b"/\xff\xfe" + path)
    yield "overlong UTF-8", wire.request(url, b"/%c0%ae%c0%ae" + path)
    yield "parents", wire.request(url, b"/.." * 40 + b"/etc/passwd")
    yield "escaped parents", wire.request(url, b"/%2e%2e%2f" * 20 + b"etc/passwd")
    yield "backslashes", wire.request(url, b"/..\\..\\etc\\passwd")
    yield "long target", wire.request(url, b"/" + b"a" * 200_000)
    yield "NUL in a header", wire.request(url, path, b"X-A: \0")
    yield "a header without a name", wire.request(url, path, b": x")
    yield "a folded header", wire.request(url, path, b"X-A: a\r\n b")
    yield "many headers", wire.request(url, path, *[b"X-%d: x" % at for at in range(5000)])
    yield "an unknown method", wire.request(url, path, method=b"FORGE")
    yield "a method override", wire.request(url, path, b"X-HTTP-Method-Override: DELETE", method=b"POST")
    yield "trace", wire.request(url, path, method=b"TRACE")
    yield "an internal address", wire.request(url, path, b"X-Forwarded-For: 127.0.0.1", b"X-Real-IP: 127.0.0.1")
    yield "another path in a header", wire.request(url, b"/", b"X-Original-URL: " + path, b"X-Rewrite-URL: " + path)
    yield "an upgrade", wire.request(url, path, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                                     b"HTTP2-Settings: AAMAAABkAAQAAP__")  # fmt: skip
    yield "a web socket", wire.request(url, path, b"Connection: Upgrade", b"Upgrade: websocket",
                                       b"Sec-WebSocket-Key: eA==", b"Sec-WebSocket-Version: 13")  # fmt: skip


def _smuggled(url: str, door: Door) -> Iterator[tuple[str, bytes]]:
    host = url.removeprefix("http://").encode()
    hidden = b"GET " + door.health.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\nX: "
    head = b"POST " + door.health.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\n"
    long = b"Content-Length: %d\r\n" % (5 + len(hidden))
    end = b"\r\n0\r\n\r\n" + hidden
    yield "length and chunks", head + long + b"Transfer-Encoding: chunked\r\n" + end
    yield "two lengths", head + long + b"Content-Length: 0\r\n\r\n" + b"x" * 5 + hidden
    yield "space before the colon", head + b"Transfer-Encoding : chunked\r\n" + long + end
    yield "odd chunked", head + long + b"Transfer-Encoding: xchunked\r\n" + end
    yield "chunked twice", head + long + b"Transfer-Encoding: chunked, chunked\r\n" + end
    yield "negative length", head + b"Content-Length: -1\r\n\r\n" + hidden
    yield "hexadecimal length", head + b"Content-Length: 0x5\r\n\r\n" + b"x" * 5 + hidden
    yield "huge chunk", head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + hidden
    yield "bare line feeds", head.replace(b"\r\n", b"\n") + long + b"\n" + b"x" * 5 + hidden


def _floods(url: str, path: str, method: bytes) -> Iterator[tuple[str, Iterator[bytes]]]:
    block = b"a" * _MB
    start = wire.request(url, path)[:-2]
    post = wire.request(url, path, method=method)[:-2]

    def header() -> Iterator[bytes]:
        yield start + b"X-A: "
        for _ in range(_FLOOD // _MB):
            yield block
        yield b"\r\n\r\n"

    def body() -> Iterator[bytes]:
        yield post + b"Content-Length: %d\r\n\r\n" % _FLOOD
        for _ in range(_FLOOD // _MB):
            yield block

    def chunks() -> Iterator[bytes]:
        yield post + b"Transfer-Encoding: chunked\r\n\r\n"
        for _ in range(_FLOOD // _MB):
            yield b"%x\r\n" % _MB + block + b"\r\n"
        yield b"0\r\n\r\n"

    def extension() -> Iterator[bytes]:
        yield post + b"Transfer-Encoding: chunked\r\n\r\n1;"
        for _ in range(_FLOOD // _MB):
            yield block
        yield b"\r\na\r\n0\r\n\r\n"

    yield "one header", header()
    yield "a body", body()
    yield "chunks", chunks()
    yield "one chunk extension", extension()


def _bomb(times: int = 1) -> bytes:
    import gzip

    made = b"[" + b" " * 50_000_000 + b"]"
    for _ in range(times):
        made = gzip.compress(made)
    return made


def _watched(parts: Iterator[bytes], pid: int, memory: list[int]) -> Iterator[bytes]:
    """Yield `parts`, and add to `memory` how large the service is on the way."""
    for at, part in enumerate(parts):
        if at % 8 == 7:
            memory.append(_memory(pid))
        yield part


def _send_all(
    platform: RunningPlatform, tries: Mapping[Door, list[tuple[str, bytes]]]
) -> Iterator[tuple[Door, list[tuple[str, wire.Answer]]]]:
    """Send all requests at the same time, since servers wait for the rest of some; yield what came back, by port."""
    with ThreadPoolExecutor(64) as pool:
        sent = {
            door: [(what, pool.submit(wire.send, platform.url(door.service), raw, timeout=2)) for what, raw in requests]
            for door, requests in tries.items()
        }
        for door, answers in sent.items():
            yield door, [(what, answer.result()) for what, answer in answers]


def _memory(pid: int) -> int:
    """Return the memory of a service in MB, with its children."""
    total = 0
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total // _MB
