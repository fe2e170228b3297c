"""The component `Lake`: lakeFS, its repositories, and the validation service that gates merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pulumi

from ..runtime.common.errors import ConfigError
from ..runtime.validation.action import GATE_ACTION, action_yaml
from .access import as_json, host_of, lake_settings, listen_settings, refuse_unreachable
from .layout import find_project
from .settings import SIGNING_KEY, RepositoryConfig, numbered_name
from .targets.base import (
    EndpointArgs,
    EndpointRef,
    HealthCheck,
    JobArgs,
    LakeAccess,
    SecretArgs,
    SecretRef,
    ServiceArgs,
    ServiceRef,
    Target,
)

_ACTION = f"_lakefs_actions/{GATE_ACTION}.yaml"
UNPROTECTED_PATHS = ("/metrics", "/metrics/*", "/_pprof/*")
"""Patterns of the paths with metrics and profiles, which lakeFS serves without credentials and cannot turn off.

lakeFS compares these prefixes byte for byte, before it decodes a path: `/%6Detrics` and `//metrics` are not metrics. So
a load balancer that refuses these patterns refuses all of them.
"""


@dataclass(frozen=True)
class ExistingLake:
    """An existing lakeFS server. The stack does not start, stop or delete it.

    Attributes:
        url: its URL for this machine, the services and their jobs.
        key_id: an access key that can create repositories, a secret output.
        secret: the secret access key, a secret output.
        namespace: prefix of a repository's storage namespace, such as `s3://BUCKET/`.
        hook: the server's variable LAKEFSACTION_HOOK, a secret output, with which it authenticates to the validation
            service. Repositories with a gate need it, and the server must be able to reach the validation service.
        metrics: whether the server has metrics at `/metrics`.
    """

    url: pulumi.Input[str]
    key_id: pulumi.Output[str]
    secret: pulumi.Output[str]
    namespace: str
    hook: pulumi.Output[str] | None = None
    metrics: bool = False


@dataclass(frozen=True)
class LakeArgs:
    """The arguments of a lake.

    Attributes:
        target: the target on which it runs.
        project: the folder of Pulumi.yaml, the base of paths in `repositories`; by default that of the running program.
        repositories: name -> its protected branches, gate and seed.
        port, validation_port: fixed ports of lakeFS (unless it exists already) and of the validation service, or None.
        existing: an existing server; None creates one.
        verdict_keys: numbers of the trusted keys of the gate; the last one signs.
        hook_secret: number of the secret with which a created lakeFS calls the gate.
    """

    target: Target
    repositories: Mapping[str, RepositoryConfig] = field(default_factory=dict[str, RepositoryConfig])
    project: Path = field(default_factory=find_project)
    port: int | None = None
    validation_port: int | None = None
    existing: ExistingLake | None = None
    verdict_keys: Sequence[int] = (1,)
    hook_secret: int = 1

    def check(self) -> None:
        """Check that the arguments fit together.

        Raises:
            ConfigError: they do not, or services of the target cannot reach servers outside the stack.
        """
        if self.existing is None:
            return
        refuse_unreachable(self.target, self.port)
        gated = [name for name, config in self.repositories.items() if config.gate]
        if gated and self.existing.hook is None:
            raise ConfigError(
                "is missing, but a repository has a gate",
                field="existing.hook",
                value=gated[0],
                hint="give the value of the server's variable LAKEFSACTION_HOOK",
            )


class Lake(pulumi.ComponentResource):
    """LakeFS with its repositories; the validation service checks merges into repositories with a gate.

    Attributes:
        endpoint: the endpoint of lakeFS.
        service: the server; None if it existed.
        metrics: whether it has metrics.
        validation: the endpoint of the validation service; None if no repository has a gate.
        key_id, secret: the key pair of lakeFS.
        verdict_keys: the public keys with which readers verify the gate's verdicts; empty without a gate.
        content: repository -> its last resource, on which its users depend.
    """

    endpoint: EndpointRef
    validation: EndpointRef | None
    validation_token: SecretRef | None
    service: ServiceRef | None
    metrics: bool
    key_id: SecretRef
    secret: SecretRef
    verdict_keys: list[pulumi.Output[str]]
    content: dict[str, pulumi.Resource]

    def __init__(self, name: str, args: LakeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tidemill:components:Lake", name, None, opts)
        args.check()
        child = pulumi.ResourceOptions(parent=self)
        target = args.target
        hook = self._use(target, args.existing, child) if args.existing else self._make(args, child)
        self.validation, self.validation_token, gate = None, None, None
        self.verdict_keys = []
        if any(config.gate for config in args.repositories.values()):
            self.validation = target.endpoint("validation", EndpointArgs(port=args.validation_port), child)
            self.validation_token = target.secret("validation-token", SecretArgs(), child)
            signing_key, self.verdict_keys = _signing_keys(target, args.verdict_keys, child)
            secrets = _GateSecrets(self.validation_token, hook, signing_key)
            gate = self._validation(target, args, self.validation, secrets, child)
        access = LakeAccess(url=self.endpoint.public_url, key_id=self.key_id, secret=self.secret)
        namespace = args.existing.namespace if args.existing else target.lakefs().namespace
        self.content = {
            repository: self._repository(target, access, repository, namespace, config, gate)
            for repository, config in args.repositories.items()
        }
        self._target = target
        self.register_outputs({"url": self.endpoint.public_url})

    def _make(self, args: LakeArgs, child: pulumi.ResourceOptions) -> SecretRef:
        """Start a server; return the secret with which it authenticates to the validation service."""
        target = args.target
        self.endpoint = target.endpoint("lakefs", EndpointArgs(public=True, port=args.port), child)
        self.key_id = target.secret("lakefs-key-id", SecretArgs(format="lakefs-key-id"), child)
        self.secret = target.secret("lakefs-secret", SecretArgs(format="lakefs-secret"), child)
        *_, hook = _numbered(target, "lakefs-hook", args.hook_secret, SecretArgs(), child)
        self.service = self._lakefs(target, hook, child)
        self.metrics = True
        return hook

    def _use(self, target: Target, existing: ExistingLake, child: pulumi.ResourceOptions) -> SecretRef:
        """Use an existing server; return the secret with which it authenticates to the validation service."""
        url = pulumi.Output.from_input(existing.url).apply(lambda text: text.rstrip("/"))
        self.endpoint = EndpointRef("lakefs", url=url, public_url=url, address=url.apply(host_of), resource=self)
        self.key_id = target.secret("lakefs-key-id", SecretArgs(value=existing.key_id), child)
        self.secret = target.secret("lakefs-secret", SecretArgs(value=existing.secret), child)
        self.service = None
        self.metrics = existing.metrics
        return target.secret("lakefs-hook", SecretArgs(value=existing.hook), child)

    def seed(
        self, repository: str, command: list[str], runtime: pulumi.Input[str], secrets: list[SecretRef]
    ) -> pulumi.Resource:
        """Run `command` once to fill a new repository; `runtime` is the text of its RuntimeSettings."""
        job = self._target.job(
            f"seed-{repository}",
            JobArgs(
                argv=[_python(part) for part in command],
                image="runtime",
                env={"TIDEMILL_RUNTIME": "@{config}/runtime.json"},
                config_files={"runtime.json": runtime},
                secrets=[self.key_id, self.secret, *secrets],
                triggers={"command": " ".join(command)},
                cwd=".",
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[self.content[repository]]),
        )
        self.content[repository] = job.resource
        return job.resource

    def _lakefs(self, target: Target, hook: SecretRef, child: pulumi.ResourceOptions) -> ServiceRef:
        launch = target.lakefs()
        return target.service(
            "lakefs",
            ServiceArgs(
                argv=[*launch.argv, "run", "--config", "@{config}/lakefs.yaml"],
                image="lakefs",
                endpoints=[self.endpoint],
                env={**launch.env, "LAKEFS_LISTEN_ADDRESS": "@{host}:@{port}"},
                secret_env={
                    "LAKEFS_INSTALLATION_ACCESS_KEY_ID": self.key_id,
                    "LAKEFS_INSTALLATION_SECRET_ACCESS_KEY": self.secret,
                    "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": target.secret("lakefs-encrypt", SecretArgs(), child),
                    "LAKEFS_BLOCKSTORE_SIGNING_SECRET_KEY": target.secret("lakefs-signing", SecretArgs(), child),
                    "LAKEFSACTION_HOOK": hook,
                },
                config_files={"lakefs.yaml": _LAKEFS},
                databases=[target.database("lakefs", child)],
                stores=[target.object_store("lakefs-objects", child)],
                health=HealthCheck(path="/_health", timeout=60.0),
            ),
            child,
        )

    def _validation(
        self,
        target: Target,
        args: LakeArgs,
        endpoint: EndpointRef,
        secrets: _GateSecrets,
        child: pulumi.ResourceOptions,
    ) -> ServiceRef:
        gates = {repository: config.gate for repository, config in args.repositories.items() if config.gate}
        suites = {f"suite-{repository}.json": args.project / gate for repository, gate in gates.items()}
        settings = {
            "listen": listen_settings(secrets.token.name, target, endpoint),
            "hook_secret_file": f"@{{secret-file:{secrets.hook.name}}}",
            "signing_key_file": f"@{{secret-file:{secrets.signing_key.name}}}",
            "lake": lake_settings(self),
            "suites": {repository: f"@{{config}}/suite-{repository}.json" for repository in gates},
            "reports": "@{store:validation-reports}",
        }
        return target.service(
            "validation",
            ServiceArgs(
                argv=["@{python}", "-m", "tidemill.runtime.validation", "--settings", "@{config}/settings.json"],
                image="runtime",
                endpoints=[endpoint],
                secrets=[self.key_id, self.secret, secrets.hook, secrets.token, secrets.signing_key],
                config_files={
                    "settings.json": as_json(settings),
                    **{name: path.read_text(encoding="utf-8") for name, path in suites.items()},
                },
                stores=[target.object_store("validation-reports", child)],
            ),
            child,
        )

    def _repository(
        self,
        target: Target,
        access: LakeAccess,
        name: str,
        namespace: pulumi.Input[str],
        config: RepositoryConfig,
        gate: ServiceRef | None,
    ) -> pulumi.Resource:
        before = [self.service.resource] if self.service else [self.key_id.resource, self.secret.resource]
        after = pulumi.ResourceOptions(parent=self, depends_on=before)
        storage = pulumi.Output.concat(namespace, name)
        last = target.content.repository(name, lake=access, namespace=storage, opts=after)
        if config.gate and self.validation and gate:
            last = target.content.action(
                f"gate-{name}",
                lake=access,
                repository=name,
                branch="main",
                path=_ACTION,
                content=self.validation.url.apply(
                    lambda url: action_yaml(GATE_ACTION, config.protect, f"{url}/hooks/lakefs")
                ),
                # lakeFS calls the gate for the commit of the action file, and then for the seed.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[last, gate.resource]),
            )
        if config.protect:
            last = target.content.branch_protection(
                f"protect-{name}",
                lake=access,
                repository=name,
                branches=list(config.protect),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[last]),
            )
        return last


@dataclass(frozen=True)
class _GateSecrets:
    """The secrets of the validation service: its clients' token, lakeFS's hook secret, the key that signs verdicts."""

    token: SecretRef
    hook: SecretRef
    signing_key: SecretRef


def _signing_keys(
    target: Target, numbers: Sequence[int], opts: pulumi.ResourceOptions
) -> tuple[SecretRef, list[pulumi.Output[str]]]:
    """Create the private keys up to the highest number; return the one that signs, and the trusted public keys."""
    made = _numbered(target, SIGNING_KEY, max(numbers), SecretArgs(format="ed25519"), opts)
    chosen = [made[number - 1] for number in numbers]
    return chosen[-1], [key.public for key in chosen if key.public is not None]


def _numbered(
    target: Target, name: str, highest: int, args: SecretArgs, opts: pulumi.ResourceOptions
) -> list[SecretRef]:
    """Create the secrets `name`, `name-2`, ... up to a number. Earlier ones stay: the engine protects secrets."""
    return [target.secret(numbered_name(name, number), args, opts) for number in range(1, highest + 1)]


def _python(part: str) -> str:
    return "@{python}" if part == "python" else part


# Settings without secrets; https://docs.lakefs.io/reference/configuration/.
_LAKEFS = """\
stats:
  enabled: false
usage_report:
  enabled: false
security:
  check_latest_version: false
  # Empty: lakeFS would ask its vendor at each start and each day, with the installation's id, whether it is safe. The
  # other way, an interval of zero, makes it ask without pause.
  audit_check_url: ""
email_subscription:
  enabled: false
graveler:
  branch_ownership:
    enabled: true
committed:
  local_cache:
    dir: "@{scratch}/cache"
actions:
  enabled: true
  env:
    enabled: true
    prefix: LAKEFSACTION_
installation:
  user_name: tidemill
logging:
  level: WARN
  format: json
  output: ["-"]
  audit_log_level: DEBUG
"""
