"""Builds the pages: each is one HTML document that loads nothing from other hosts and runs only its own scripts.

Styles and scripts are inline, and the content security policy lists their hashes: text that gets into a page never
runs. The pages need no key and contain no data; they show the documents at `/status` and `/openapi.json`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_STYLES = ("base.css",)
_PAGES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # path: document, styles, scripts
    "/": ("status.html", (*_STYLES, "status.css"), ("common.js", "charts.js", "form.js", "panels.js", "status.js")),
    "/docs": ("docs.html", (*_STYLES, "docs.css"), ("common.js", "schema.js", "docs.js")),
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        headers: all response headers, including the content type.
        etag: hash of the content, quoted.
    """

    body: bytes
    headers: Mapping[str, str]
    etag: str

    @property
    def content_type(self) -> str:
        """The media type."""
        return self.headers["Content-Type"]

    def respond(self, if_none_match: str | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body for a request with the header `If-None-Match`, or without it."""
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        if self.etag in known or "*" in known:
            return 304, {name: value for name, value in self.headers.items() if name != "Content-Type"}, b""
        return 200, self.headers, self.body


@cache
def pages() -> Mapping[str, Page]:
    """Return the pages by path: `/` and `/docs`."""
    return {path: _page(*parts) for path, parts in _PAGES.items()}


def _page(document: str, styles: tuple[str, ...], scripts: tuple[str, ...]) -> Page:
    style = "\n".join(_asset(name) for name in styles)
    # The scripts of a page share one scope and add no names to the window.
    script = "(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in scripts) + "})();\n"
    html = _asset(document)
    for marker, text in (
        ("<!-- head -->\n", _asset("head.html")),
        ("<!-- key form -->\n", _asset("key_form.html")),
        ("/* style */", style),
        ("/* script */", script),
    ):
        html = html.replace(marker, text)
    body = html.encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _policy(style, script),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        # Browsers must revalidate: the page has to match the server's version.
        "Cache-Control": "no-cache",
        "ETag": etag,
    }
    return Page(body, headers, etag)


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (files(__package__ or __name__) / "assets" / name).read_text(encoding="utf-8")
