"""Creates the stack's secrets in Secrets Manager."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi
import pulumi_aws as aws

from ...provider import resources as native
from ..base import SecretArgs, SecretRef
from ..options import protected
from .core import Core
from .tasks import StoredSecret

_RECOVERY_DAYS = {False: 0, True: 30}


class Secrets:
    """Creates secrets.

    Args:
        core: the stack's shared values.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._made: dict[str, StoredSecret] = {}

    def make(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Create a secret. A generated value is stored nowhere else."""
        core = self._core
        stack = core.names.stack
        secret = aws.secretsmanager.Secret(
            f"secret-{name}",
            name=core.names.path(name),
            description=f"{name} of the tidemill stack {stack}",
            kms_key_id=core.key.arn,
            recovery_window_in_days=_RECOVERY_DAYS[core.production],
            tags=core.tags(name),
            opts=protected(core.with_provider(opts)),
        )
        value = native.SecretValue(
            name,
            name=name,
            stack=stack,
            region=core.region,
            secret=secret.arn,
            format=args.format,
            value=args.value,
            opts=protected(opts),
        )
        self._made[name] = StoredSecret(secret.arn, value.version, value)
        return SecretRef(name, value, value.public)

    def stored(self, name: str) -> StoredSecret:
        """Return the secret `name`."""
        return self._made[name]

    def all_of(self, secrets: Iterable[SecretRef]) -> dict[str, StoredSecret]:
        """Return name -> secret for references to secrets."""
        return {secret.name: self._made[secret.name] for secret in secrets}
