"""The public name of the error tree: training code catches `tidemill.runtime.errors.GateError`."""

from .common.errors import *  # noqa: F403 - exactly the names of its `__all__`
