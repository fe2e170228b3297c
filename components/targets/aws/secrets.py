"""The stack's secrets in Secrets Manager."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi
import pulumi_aws as aws

from ...provider import resources as native
from ..base import SecretArgs, SecretRef
from .core import Core, kept
from .tasks import Held

__all__ = ["Secrets"]

_RECOVERY_DAYS = {False: 0, True: 30}


class Secrets:
    """Makes secrets, and knows them by their names.

    Args:
        core: what all parts share.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._made: dict[str, Held] = {}

    def make(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Make a secret; a generated value is nowhere else."""
        core = self._core
        stack = core.names.stack
        secret = aws.secretsmanager.Secret(
            f"secret-{name}",
            name=core.names.path(name),
            description=f"{name} of the tidemill stack {stack}",
            kms_key_id=core.key.arn,
            recovery_window_in_days=_RECOVERY_DAYS[core.production],
            tags=core.tags(name),
            opts=kept(core.of(opts)),
        )
        value = native.SecretValue(
            name,
            name=name,
            stack=stack,
            region=core.region,
            secret=secret.arn,
            format=args.format,
            value=args.value,
            opts=kept(opts),
        )
        self._made[name] = Held(secret.arn, value.version, value)
        return SecretRef(name, value)

    def held(self, name: str) -> Held:
        """Return the secret `name`, which was made."""
        return self._made[name]

    def all_of(self, secrets: Iterable[SecretRef]) -> dict[str, Held]:
        """Return name -> secret of those referred to."""
        return {secret.name: self._made[secret.name] for secret in secrets}
