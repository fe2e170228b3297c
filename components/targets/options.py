"""Resource options that all targets use."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi


def protected(opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """Return `opts` for a resource with data, or a secret that gives access to data: the engine does not delete it."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))


def after(opts: pulumi.ResourceOptions, resources: Iterable[pulumi.Resource]) -> pulumi.ResourceOptions:
    """Return `opts` for a resource that depends on `resources`."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(resources)))
