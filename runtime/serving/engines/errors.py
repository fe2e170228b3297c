"""Errors of preparing and loading a version."""

from __future__ import annotations

from ...common.errors import RefusedError


class UnfitError(RefusedError):
    """A version that cannot serve; the message says why."""


class TemporaryError(UnfitError):
    """A version that cannot serve now; a later attempt may succeed, such as after a failed download."""


class UnsupportedError(Exception):
    """A step, estimator or kernel that cannot be compiled; the message names it."""
