"""Jinja2 templates and the one strict `render`."""

from __future__ import annotations

from .rendering import render

__all__ = ["render"]
