"""Bodies which come packed, unpacked within bounds."""

from __future__ import annotations

import zlib

from ..http.errors import Problem

__all__ = ["ENCODINGS", "unpack"]

ENCODINGS = ("gzip", "deflate")
_MOST_LAYERS = 2
# Members of one gzip file; each costs a copy of what follows it.
_MOST_MEMBERS = 16
# Window bits: gzip's own header; zlib's header; none, which some clients send for deflate.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """Return `body` without the `encoding` its header names.

    Never more than `limit` bytes are made, whatever the body claims.

    Args:
        body: as it came.
        encoding: the value of Content-Encoding.
        limit: on the size of what is returned.

    Raises:
        Problem: 400, it is not so packed; 413, it holds more than `limit`; 415, another encoding.
    """
    layers = [layer.strip().lower() for layer in encoding.split(",")]
    layers = [{"x-gzip": "gzip"}.get(layer, layer) for layer in layers if layer not in ("", "identity")]
    if len(layers) > _MOST_LAYERS or any(layer not in ENCODINGS for layer in layers):
        raise Problem(
            415,
            f"bodies may be packed with {' or '.join(ENCODINGS)}",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    for layer in reversed(layers):
        body = _gunzip(body, limit) if layer == "gzip" else _inflate(body, limit)
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = body
    # A gzip file may be several, one after the other.
    for _ in range(_MOST_MEMBERS):
        part, rest = _one(rest, _GZIP, limit - size)
        parts.append(part)
        size += len(part)
        if not rest:
            return b"".join(parts)
    raise Problem(400, f"the packed body has more than {_MOST_MEMBERS} parts")


def _inflate(body: bytes, limit: int) -> bytes:
    zlib_header = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
    whole, rest = _one(body, _ZLIB if zlib_header else _RAW, limit)
    if rest:
        raise Problem(400, "there is something after the end of the packed body")
    return whole


def _one(body: bytes, bits: int, limit: int) -> tuple[bytes, bytes]:
    """Return what one packed stream at the start of `body` holds, and what follows it."""
    stream = zlib.decompressobj(bits)
    try:
        # One byte more than allowed: a stream which is done exactly at the limit is told from one which goes on.
        made = stream.decompress(body, limit + 1)
    except zlib.error:
        raise Problem(400, "the body is not packed as its Content-Encoding says") from None
    if len(made) > limit:
        raise Problem(413, f"the body holds more than {limit} bytes", headers={"Connection": "close"})
    if not stream.eof:
        raise Problem(400, "the packed body is cut off")
    return made, stream.unused_data
