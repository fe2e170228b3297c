"""Errors of preparing and loading a version."""

from __future__ import annotations

from ...common.errors import RefusedError


class UnfitError(RefusedError):
    """A version that cannot serve; the message says why."""


class UnsupportedError(Exception):
    """A step, estimator or kernel that cannot be compiled; the message names it."""
