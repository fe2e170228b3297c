"""Decompresses gzip and deflate bodies up to a size limit."""

from __future__ import annotations

import zlib

from ..http.errors import Problem
from ..http.limit_errors import too_large

ENCODINGS = ("gzip", "deflate")
_MAX_ENCODINGS = 2
# Members of one gzip body; each costs a copy of the rest.
_MAX_MEMBERS = 16
# Window bits: gzip header; zlib header; no header, which some clients send for deflate.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return `body` decompressed; never produces more than `limit` bytes.

    Args:
        body: as received.
        encoding: the value of the Content-Encoding header.
        limit: maximum size of the result in bytes.

    Raises:
        Problem: 400: not compressed as the header says; 413: larger than `limit`; 415: unsupported encoding.
    """
    encodings = [name.strip().lower() for name in encoding.split(",")]
    encodings = [{"x-gzip": "gzip"}.get(name, name) for name in encodings if name not in ("", "identity")]
    if len(encodings) > _MAX_ENCODINGS or any(name not in ENCODINGS for name in encodings):
        raise Problem(
            415,
            f"unsupported Content-Encoding; use {' or '.join(ENCODINGS)}",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    for name in reversed(encodings):
        body = _gunzip(body, limit) if name == "gzip" else _inflate(body, limit)
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = body
    for _ in range(_MAX_MEMBERS):
        part, rest = _decompress_stream(rest, _GZIP, limit, size)
        parts.append(part)
        size += len(part)
        if not rest:
            return b"".join(parts)
    raise Problem(400, f"the gzip body has more than {_MAX_MEMBERS} members")


def _inflate(body: bytes, limit: int) -> bytes:
    zlib_header = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
    decompressed, rest = _decompress_stream(body, _ZLIB if zlib_header else _RAW, limit)
    if rest:
        raise Problem(400, "extra bytes follow the compressed body")
    return decompressed


def _decompress_stream(body: bytes, bits: int, allowed: int, size: int = 0) -> tuple[bytes, bytes]:
    """Return the content of the compressed stream at the start of `body`, and the bytes after it.

    Args:
        body: as received.
        bits: of zlib's window, which select the format.
        allowed: maximum size of the decompressed body.
        size: of the part that is already decompressed.
    """
    limit = allowed - size
    stream = zlib.decompressobj(bits)
    try:
        # One byte more than allowed, to detect streams that go on after the limit.
        content = stream.decompress(body, limit + 1)
    except zlib.error:
        raise Problem(400, "the body is not compressed as its Content-Encoding says") from None
    if len(content) > limit:
        raise too_large(f"the decompressed body has more than {allowed} bytes", allowed)
    if not stream.eof:
        raise Problem(400, "the compressed body is truncated")
    return content, stream.unused_data
