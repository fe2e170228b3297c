"""What a real provider tells of what it has made, invented: from its SDK's classes, and by hand where they are dull.

Every output which the SDK's class of a resource declares, and which is no input, gets a value of its type. `SPECIAL`
says better where a program needs a value of a certain shape; `REPLACES` says whose change asks for a new resource, and
`INVOKES` what data sources answer.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pulumi

ACCOUNT = "123456789012"
REGION = "eu-central-1"
Inputs = dict[str, Any]

_importing = threading.Lock()
_SERVICES = {"lb": "elasticloadbalancing", "cloudwatch": "logs", "amp": "aps"}
_SDKS = {"docker": "pulumi_docker", "docker-build": "pulumi_docker_build", "aws": "pulumi_aws"}


def digest(*parts: str, length: int = 17) -> str:
    """Return hexadecimal digits which are always the same for the same parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def id_of(token: str, name: str, inputs: Inputs) -> str:
    """Return the id of a resource; each real provider has its own shape."""
    found = _IDS.get(token)
    if found:
        return found(name, inputs)
    return str(inputs.get("name") or f"{token.rsplit(':', 1)[-1].lower()}-{digest(token, name)}")


def outputs_of(token: str, name: str, inputs: Inputs) -> Inputs:
    """Return the outputs of a resource that are not inputs."""
    declared = {key: value for key, value in _declared(token, name).items() if key not in inputs}
    special = SPECIAL.get(token)
    return declared | (special(name, inputs) if special else {})


def _declared(token: str, name: str) -> Inputs:
    kind = class_of(token)
    if kind is None:
        return {}
    found: Inputs = {}
    for attribute, value in inspect.getmembers(kind, lambda member: isinstance(member, property)):
        if attribute in {"id", "urn"} or value.fget is None:
            continue
        wire = getattr(value.fget, "_pulumi_name", None) or _camel(attribute)
        found[wire] = _value(_annotation(value.fget), token, name, wire)
    return {key: value for key, value in found.items() if value is not None}


def _annotation(getter: Callable[..., Any]) -> str:
    return str(inspect.get_annotations(getter).get("return", ""))


def _value(annotation: str, token: str, name: str, key: str) -> Any:
    found = re.search(r"Output\[(.*)\]", annotation)
    inner = re.sub(r"(_?builtins|typing|collections\.abc)\.", "", found[1] if found else "").strip("'\"")
    if inner.startswith("Optional[") or "None" in inner:
        return None
    if inner == "str":
        return _text(token, name, key)
    if inner == "bool":
        return False
    if inner in {"int", "float"}:
        return 1
    if inner.startswith("Sequence["):
        return []
    return {} if inner.startswith("Mapping[") else None


def _text(token: str, name: str, key: str) -> str:
    package, module, kind = token.split(":")
    service = module.split("/")[0]
    if key == "arn" and package == "aws":
        place = "" if service in {"iam", "s3"} else REGION
        return _arn(_SERVICES.get(service, service), f"{kind.lower()}/{name}", region=place)
    return f"{key}-of-{name}"


def _camel(text: str) -> str:
    first, *rest = text.rstrip("_").split("_")
    return first + "".join(word.title() for word in rest)


@functools.cache
def class_of(token: str) -> type | None:
    """Return the SDK's class for `token`, or None for a package without an SDK here."""
    package, module, kind = token.split(":")
    sdk = _SDKS.get(package)
    if sdk is None:
        return None
    place = module.split("/")[0]
    # Modules of the SDK are filled when they are first looked into, which two threads must not do at a time.
    with _importing:
        home = importlib.import_module(sdk if place == "index" else f"{sdk}.{place}")
        found = getattr(home, kind, None)
    assert isinstance(found, type) and issubclass(found, pulumi.Resource), f"{sdk} has no {token}"
    return found


def _arn(service: str, path: str, *, region: str = REGION) -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{path}"


def _revision(inputs: Inputs) -> int:
    """Another task definition is another revision; ECS counts, which no stand-in can."""
    return int(digest(json.dumps(inputs, sort_keys=True, default=str), length=4), 16) + 1


_IDS: dict[str, Callable[[str, Inputs], str]] = {
    "docker:index/container:Container": lambda name, inputs: digest("container", name, length=64),
    "docker:index/network:Network": lambda name, inputs: digest("network", name, length=64),
    "aws:ec2/vpc:Vpc": lambda name, inputs: f"vpc-{digest('vpc', name)}",
    "aws:ec2/subnet:Subnet": lambda name, inputs: f"subnet-{digest('subnet', name)}",
    "aws:ec2/securityGroup:SecurityGroup": lambda name, inputs: f"sg-{digest('sg', name)}",
    "aws:s3/bucket:Bucket": lambda name, inputs: str(inputs.get("bucket") or name),
    "aws:s3/bucketV2:BucketV2": lambda name, inputs: str(inputs.get("bucket") or name),
}

SPECIAL: dict[str, Callable[[str, Inputs], Inputs]] = {
    "docker:index/container:Container": lambda name, inputs: {
        "networkDatas": [
            {"networkName": network["name"], "ipAddress": "172.18.0.2", "gateway": "172.18.0.1", "ipPrefixLength": 16}
            for network in inputs.get("networksAdvanced", [])
        ],
    },
    "aws:rds/instance:Instance": lambda name, inputs: {
        "address": f"{inputs.get('identifier', name)}.abcdef.{REGION}.rds.amazonaws.com",
        "masterUserSecrets": [
            {"kmsKeyId": "key", "secretArn": _arn("secretsmanager", f"secret:rds!db-{name}"), "secretStatus": "active"}
        ],
    },
    "aws:acm/certificate:Certificate": lambda name, inputs: {
        "domainValidationOptions": [
            {
                "domainName": inputs.get("domainName", ""),
                "resourceRecordName": f"_x.{name}.",
                "resourceRecordType": "CNAME",
                "resourceRecordValue": "_y.acm-validations.aws.",
            }
        ],
    },
    "aws:acm/certificateValidation:CertificateValidation": lambda name, inputs: {
        "certificateArn": inputs.get("certificateArn"),
    },
    "aws:ecr/repository:Repository": lambda name, inputs: {
        "repositoryUrl": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{inputs.get('name', name)}",
        "arn": _arn("ecr", f"repository/{inputs.get('name', name)}"),
    },
    "aws:s3/bucket:Bucket": lambda name, inputs: {
        "arn": f"arn:aws:s3:::{inputs.get('bucket', name)}",
        "bucket": inputs.get("bucket", name),
    },
    "aws:ecs/cluster:Cluster": lambda name, inputs: {"arn": _arn("ecs", f"cluster/{inputs.get('name', name)}")},
    "aws:ecs/taskDefinition:TaskDefinition": lambda name, inputs: {
        "arn": _arn("ecs", f"task-definition/{inputs.get('family', name)}:{_revision(inputs)}"),
        "revision": _revision(inputs),
    },
    "aws:secretsmanager/secret:Secret": lambda name, inputs: {
        "arn": _arn("secretsmanager", f"secret:{inputs.get('name', name)}-AbCdEf"),
    },
    "aws:iam/role:Role": lambda name, inputs: {
        "arn": _arn("iam", f"role/{inputs.get('name', name)}", region=""),
    },
    "aws:iam/policy:Policy": lambda name, inputs: {
        "arn": _arn("iam", f"policy/{inputs.get('name', name)}", region=""),
    },
    "aws:cloudwatch/logGroup:LogGroup": lambda name, inputs: {
        "arn": _arn("logs", f"log-group:{inputs.get('name', name)}"),
    },
    "aws:kms/key:Key": lambda name, inputs: {"arn": _arn("kms", f"key/{digest('key', name)}")},
    "aws:amp/workspace:Workspace": lambda name, inputs: {
        "arn": _arn("aps", f"workspace/ws-{name}"),
        "prometheusEndpoint": f"https://aps-workspaces.{REGION}.amazonaws.com/workspaces/ws-{name}/",
    },
    "aws:dynamodb/table:Table": lambda name, inputs: {"arn": _arn("dynamodb", f"table/{inputs.get('name', name)}")},
    "docker:index/remoteImage:RemoteImage": lambda name, inputs: {
        "imageId": f"sha256:{digest('image', str(inputs.get('name')), length=64)}",
        "repoDigest": f"{str(inputs.get('name')).partition('@')[0].rpartition(':')[0]}"
        f"@sha256:{digest('repo', str(inputs.get('name')), length=64)}",
    },
    "docker-build:index:Image": lambda name, inputs: {
        "digest": f"sha256:{digest('built', name, length=64)}",
        "contextHash": digest("context", name, json.dumps(inputs.get("context"), sort_keys=True), length=64),
        "ref": f"{(inputs.get('tags') or [name])[0]}@sha256:{digest('built', name, length=64)}",
    },
}
"""Resource type -> what it tells, where the declared types say too little."""

REPLACES: dict[str, frozenset[str] | None] = {
    # The provider changes these in place; all else of a container asks for a new one.
    "docker:index/container:Container": frozenset(
        {"restart", "memory", "memorySwap", "memoryReservation", "cpuShares", "cpus", "cpuSet", "maxRetryCount",
         "mustRun", "start", "wait", "waitTimeout", "destroyGraceSeconds", "removeVolumes", "logs", "attach", "rm"}
    ),
    "docker:index/network:Network": frozenset(),
    "docker:index/volume:Volume": frozenset(),
    "docker:index/remoteImage:RemoteImage": frozenset({"keepLocally", "forceRemove"}),
    # A revision of a task definition never changes.
    "aws:ecs/taskDefinition:TaskDefinition": frozenset({"tags"}),
    "aws:s3/bucketObjectv2:BucketObjectv2": frozenset({"content", "contentType", "tags"}),
    "aws:iam/policy:Policy": frozenset({"policy", "tags"}),
}  # fmt: skip
"""Resource type -> the inputs which change in place; types which are not here change in place altogether."""


def _policy_document(inputs: Inputs) -> Inputs:
    """Answer iam:getPolicyDocument as AWS would: the statements as a policy's JSON."""
    statements: list[Inputs] = []
    for statement in inputs.get("statements", []):
        made: Inputs = {"Effect": statement.get("effect", "Allow"), "Action": statement.get("actions", [])}
        if "sid" in statement:
            made["Sid"] = statement["sid"]
        if "resources" in statement:
            made["Resource"] = statement["resources"]
        if "principals" in statement:
            made["Principal"] = {one["type"]: one["identifiers"] for one in statement["principals"]}
        if "conditions" in statement:
            made["Condition"] = {one["test"]: {one["variable"]: one["values"]} for one in statement["conditions"]}
        statements.append(made)
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}, sort_keys=True)
    return {"json": text, "minifiedJson": text, "id": digest(text)}


INVOKES: dict[str, Callable[[Inputs], Inputs]] = {
    "aws:index/getAvailabilityZones:getAvailabilityZones": lambda inputs: {
        "id": REGION,
        "names": [f"{REGION}{letter}" for letter in "abc"],
        "zoneIds": [f"euc1-az{number}" for number in (1, 2, 3)],
        "groupNames": [REGION],
        "region": REGION,
    },
    "aws:index/getCallerIdentity:getCallerIdentity": lambda inputs: {
        "id": ACCOUNT, "accountId": ACCOUNT, "arn": f"arn:aws:iam::{ACCOUNT}:user/engineer", "userId": "AIDAENGINEER",
    },
    "aws:index/getRegion:getRegion": lambda inputs: {
        "id": REGION, "name": REGION, "region": REGION, "description": "Europe",
        "endpoint": f"ec2.{REGION}.amazonaws.com",
    },
    "aws:index/getPartition:getPartition": lambda inputs: {
        "id": "aws", "partition": "aws", "dnsSuffix": "amazonaws.com", "reverseDnsPrefix": "com.amazonaws",
    },
    "aws:iam/getPolicyDocument:getPolicyDocument": _policy_document,
    "aws:ecr/getAuthorizationToken:getAuthorizationToken": lambda inputs: {
        "id": REGION, "userName": "AWS", "password": "standin-registry-password", "expiresAt": "2030-01-01T00:00:00Z",
        "authorizationToken": "QVdTOng=", "proxyEndpoint": f"https://{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com",
        "region": REGION,
    },
}  # fmt: skip
"""Function -> what it answers; one which is not here fails the program."""
