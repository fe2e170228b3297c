"""The state of one request while it is answered, and its headers as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class Headers(Mapping[str, str]):
    """The headers of a request, decoded when they are read."""

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


@dataclass(slots=True)
class RequestContext:
    """A request while it is answered.

    Attributes:
        headers: names in lower case.
        received_at: Unix time.
        started: `time.perf_counter` when the head was complete.
        client_request_id: the header `X-Request-Id`.
        key: name of the API key.
        trace: the header `traceparent`, if it is valid.
        version: the model version that answered; empty if none did.
        rows: rows read from the body.
        over: answered or abandoned; work on it can stop.
    """

    path: str
    headers: Mapping[bytes, bytes]
    request_id: str
    received_at: float
    started: float
    client_request_id: str | None = None
    key: str | None = None
    trace: str | None = None
    version: str = ""
    rows: int = 0
    over: bool = False
