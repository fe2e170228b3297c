"""The parts of a graph of AWS by what they are called there, and what in it refers to nothing."""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tidemill.runtime.cloud.task_files import secret_variable

from tests.support.standin.outputs import id_of, outputs_of

NATIVE = "tidemill-native"
DEFINITION, SERVICE = "aws:ecs/taskDefinition:TaskDefinition", "aws:ecs/service:Service"
OBJECT, POLICY, ROLE = "aws:s3/bucketObjectv2:BucketObjectv2", "aws:iam/policy:Policy", "aws:iam/role:Role"
LOST = {"prometheus", "grafana"}
_NO_FILES: Mapping[str, Any] = {"config": {}, "secrets": [], "values": [], "stores": {}}
_IN_THE_TASK = ("@{secret:", "@{bcrypt:")


_MODULES = (
    *("acm", "amp", "appautoscaling", "cloudwatch", "dynamodb", "ec2", "ecr", "ecs", "iam", "kms", "lb", "rds"),
    *("route53", "s3", "secretsmanager", "servicediscovery", "vpc"),
)


@functools.cache
def load() -> None:
    """Fill the modules of the SDK: under mocks two threads would else do so at a time, which Python 3.11 forbids."""
    for name in _MODULES:
        getattr(importlib.import_module(f"pulumi_aws.{name}"), "anything", None)


@dataclass(frozen=True)
class TaskView:
    """One task definition, read.

    Attributes:
        name: of the service, job or training.
        containers: name -> container.
        files: the `TaskFiles` it finds.
        start, run: statements of what ECS may do before it, and of what itself may do.
    """

    name: str
    inputs: Mapping[str, Any]
    containers: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Any]
    start: list[dict[str, Any]]
    run: list[dict[str, Any]]

    @property
    def main(self) -> Mapping[str, Any]:
        return self.containers["main"]

    @property
    def env(self) -> dict[str, str]:
        return {one["name"]: one["value"] for one in self.main["environment"]}

    @property
    def handed(self) -> dict[str, str]:
        """Variable -> ARN of every secret which any of its containers gets."""
        return {one["name"]: one["valueFrom"] for part in self.containers.values() for one in part.get("secrets", ())}

    @property
    def text(self) -> str:
        """All that the main container is told, as one text."""
        told = [self.main.get("entryPoint"), self.main.get("command"), self.env, self.files.get("config", {})]
        return "\n".join(strings(told))


class Aws:
    """A graph of the target aws."""

    def __init__(self, graph: Iterable[Any]) -> None:
        self.graph = list(graph)
        self.ids: dict[str, set[str]] = {}
        self.outputs: dict[tuple[str, str], dict[str, Any]] = {}
        for found in self.graph:
            if found.type.startswith(("aws:", "docker-build:")):
                inputs = dict(found.inputs)
                self.ids.setdefault(found.type, set()).add(id_of(found.type, found.name, inputs))
                self.outputs[found.type, found.name] = inputs | outputs_of(found.type, found.name, inputs)
        self.tasks = {view.name: view for view in map(self._view, self.of(DEFINITION))}
        self.zone = next(iter(self.of("aws:servicediscovery/privateDnsNamespace:PrivateDnsNamespace"))).inputs["name"]
        registered = {found.name for found in self.of(SERVICE)}
        named = {found.name for found in self.of("aws:servicediscovery/service:Service")}
        self.hosts = {f"{name}.{self.zone}" for name in named & registered}

    def of(self, kind: str) -> list[Any]:
        """Return the resources of type `kind`."""
        return [found for found in self.graph if found.type == kind]

    def told(self, kind: str, key: str) -> set[str]:
        """Return the output `key` of each resource of type `kind`."""
        return {told[key] for (typ, _), told in self.outputs.items() if typ == kind}

    def _view(self, found: Any) -> TaskView:
        name = found.name.removeprefix("task-")
        containers = {one["name"]: one for one in json.loads(found.inputs["containerDefinitions"])}
        objects = {one.name: one for one in self.of(OBJECT)}
        policies = {one.name: json.loads(one.inputs["policy"])["Statement"] for one in self.of(POLICY)}
        return TaskView(
            name,
            found.inputs,
            containers,
            json.loads(objects[f"files-{name}"].inputs["content"]) if f"files-{name}" in objects else _NO_FILES,
            policies.get(f"role-{name}-start", []),
            policies.get(f"role-{name}", []),
        )

    def dangling(self) -> list[str]:
        """Return every reference to something which is not there."""
        wrong = [text for task in self.tasks.values() for text in self._of_task(task)]
        definitions = self.told(DEFINITION, "arn")
        for found in self.of(SERVICE):
            wrong += [f"{found.name}: no task definition"] * (found.inputs["taskDefinition"] not in definitions)
            network = found.inputs["networkConfiguration"]
            wrong += self._of_network(found.name, network["subnets"], network["securityGroups"])
        for kind in ("Job", "Content"):
            for found in self.of(f"{NATIVE}:aws:{kind}"):
                wrong += [f"{found.name}: no task definition"] * (found.inputs["definition"] not in definitions)
                wrong += self._of_network(found.name, found.inputs["subnets"], found.inputs["securityGroups"])
        wrong += [text for found in self.of(f"{NATIVE}:aws:Content") for text in self._of_content(found)]
        return wrong

    def _of_network(self, name: str, subnets: list[str], groups: list[str]) -> list[str]:
        wrong = [f"{name}: no subnet {one}" for one in subnets if one not in self.ids["aws:ec2/subnet:Subnet"]]
        known = self.ids["aws:ec2/securityGroup:SecurityGroup"]
        return wrong + [f"{name}: no security group {one}" for one in groups if one not in known]

    def _of_task(self, task: TaskView) -> list[str]:
        wrong: list[str] = []
        roles = self.told(ROLE, "arn")
        wrong += [f"no role {key}" for key in ("executionRoleArn", "taskRoleArn") if task.inputs[key] not in roles]
        groups = {found.inputs["name"] for found in self.of("aws:cloudwatch/logGroup:LogGroup")}
        repositories = self.told("aws:ecr/repository:Repository", "repositoryUrl")
        secrets = self.told("aws:secretsmanager/secret:Secret", "arn") | {
            one["secretArn"]
            for told in self.told_list("aws:rds/instance:Instance", "masterUserSecrets")
            for one in told
        }
        for name, part in task.containers.items():
            logs = part["logConfiguration"]["options"]["awslogs-group"]
            wrong += [f"{name}: no log group {logs}"] * (logs not in groups)
            image = part["image"].partition("@")[0]
            brought = ".dkr.ecr." not in image
            wrong += [f"{name}: no image {image}"] * (not brought and image not in repositories)
            waits = {one["containerName"] for one in part.get("dependsOn", ())}
            wrong += [f"{name}: waits for {one}" for one in waits - set(task.containers)]
        readable = {one for statement in task.start if statement["Sid"] == "Secrets" for one in statement["Resource"]}
        for variable, reference in task.handed.items():
            arn = ":".join(reference.split(":")[:7])
            wrong += [f"{variable} is no secret"] * (arn not in secrets)
            wrong += [f"{variable} may not be read"] * (arn not in readable)
        wrong += [f"may read what it does not get: {arn}" for arn in readable - {
            ":".join(one.split(":")[:7]) for one in task.handed.values()
        }]  # fmt: skip
        wrong += self._of_files(task)
        return [f"{task.name}: {text}" for text in wrong]

    def told_list(self, kind: str, key: str) -> list[Any]:
        return [told[key] for (typ, _), told in self.outputs.items() if typ == kind]

    def _of_files(self, task: TaskView) -> list[str]:
        wrong: list[str] = []
        keys = {f"s3://{one.inputs['bucket']}/{one.inputs['key']}" for one in self.of(OBJECT)}
        named = {one["value"] for part in task.containers.values() for one in part["environment"]
                 if one["name"] == "TIDEMILL_TASK"}  # fmt: skip
        wrong += [f"no files {uri}" for uri in named - keys]
        for uri in named:
            bucket, key = uri.removeprefix("s3://").split("/", 1)
            wrong += [f"may not read {uri}"] * (not allowed(task.run, "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}"))
        files, values = set(task.files["secrets"]), set(task.files["values"])
        for name in files | values:
            wrong += [f"no secret {name}"] * (secret_variable(name) not in task.handed)
        config = task.files["config"]
        for kind, name in re.findall(r"@\{(secret|bcrypt):([^{}]*)\}", json.dumps(config)):
            wrong += [f"placeholder {kind} {name}"] * (name not in files | values)
        left = [text for text in re.findall(r"@\{[^{}]*\}", task.text) if not text.startswith(_IN_THE_TASK)]
        wrong += [f"placeholder {text}" for text in left]
        for part, name in re.findall(r"/run/tidemill/(config|secrets)/?([A-Za-z0-9._/-]*)", task.text):
            held = config if part == "config" else files
            if name and not any(one == name or one.startswith(f"{name.rstrip('/')}/") for one in held):
                wrong.append(f"no file {part}/{name}")
        stores = task.files["stores"]
        for name in re.findall(r"(?<![A-Za-z0-9])/data/([A-Za-z0-9._-]+)", task.text):
            wrong += [f"nothing at /data/{name}"] * (name not in stores and name not in LOST)
        for store in stores.values():
            wrong += [f"may not use {store['uri']}"] * (not self._may(task, store["uri"], store["use"]))
        for uri in re.findall(r"s3://[A-Za-z0-9./-]+", json.dumps(task.env) + json.dumps(config)):
            reached = allowed(task.run, "s3:PutObject", f"arn:aws:s3:::{uri.removeprefix('s3://')}/x")
            wrong += [f"may not use {uri}"] * (uri not in named and not reached)
        for host in re.findall(rf"[A-Za-z0-9-]+\.{re.escape(self.zone)}", task.text):
            wrong += [f"cannot reach {host}"] * (host not in self.hosts)
        return wrong

    @staticmethod
    def _may(task: TaskView, uri: str, use: str) -> bool:
        actions = {"keep": ["GetObject", "PutObject", "DeleteObject"], "send": ["PutObject"], "fetch": ["GetObject"]}
        arn = f"arn:aws:s3:::{uri.removeprefix('s3://')}/x"
        return all(allowed(task.run, f"s3:{action}", arn) for action in actions[use])

    def _of_content(self, found: Any) -> list[str]:
        arns = {told["arn"]: name for (typ, name), told in self.outputs.items() if typ == DEFINITION}
        task = self.tasks.get(arns.get(found.inputs["definition"], "").removeprefix("task-"))
        if task is None:
            return []
        properties = found.inputs["properties"]
        held = {f"/run/tidemill/secrets/{name}" for name in task.files["secrets"]}
        wrong = [
            f"{found.name}: no file {value}"
            for key, value in properties.items()
            if key.endswith("File") and value not in held
        ]
        host = re.sub(r"^https?://|:\d+$", "", properties["url"])
        return wrong + [f"{found.name}: cannot reach {host}"] * (host not in self.hosts)


def allowed(statements: Iterable[Mapping[str, Any]], action: str, arn: str) -> bool:
    """Say whether one of `statements` allows `action` on `arn`."""
    return any(
        any(fnmatchcase(action, one) for one in statement["Action"])
        and any(fnmatchcase(arn, one) for one in statement["Resource"])
        for statement in statements
    )


def strings(value: Any) -> Iterable[str]:
    """Yield every text in `value`, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)
