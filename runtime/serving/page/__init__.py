"""What people see of the model server: the page at `/`, the API reference at `/docs`, and what they are filled from."""

from __future__ import annotations

from ..telemetry.recent import Recent, merged
from .pages import Served, routes

__all__ = ["Recent", "Served", "merged", "routes"]
