"""Resources which each rule of the policy pack must refuse, and their like which it must not.

`BAD` and `GOOD` hold rule -> label -> resources; what is refused stands in `BAD` beside the property that is named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidemill.components.policies.base import UNKNOWN, Resource

CONTAINER = "docker:index/container:Container"
TASK = "aws:ecs/taskDefinition:TaskDefinition"
BUCKET = "aws:s3/bucket:Bucket"
DATABASE = "aws:rds/instance:Instance"
TABLE = "aws:dynamodb/table:Table"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
OPEN = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
POLICY = "aws:iam/policy:Policy"
ROLE = "aws:iam/role:Role"
JOB = "tidemill-native:docker:Job"
DIGEST = "sha256:" + "0" * 64
LOCK: dict[str, Any] = dict.fromkeys(
    ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), True
)
TAGS = {"managed-by": "tidemill", "tidemill:stack": "a-b", "tidemill:team": "a", "tidemill:environment": "b"}
LABELS = {name.replace(":", "."): value for name, value in TAGS.items()}
BUILD = "docker-build:index:Image"
FAKE_KEY = "AKIA" + "ABCDEFGHIJKLMNOP"
PEM = "-----BEGIN " + "RSA PRIVATE KEY-----\nMII"


def one(
    type_: str,
    name_: str = "it",
    /,
    *,
    secrets: tuple[str, ...] = (),
    refers: Mapping[str, Any] | None = None,
    defaults: Mapping[str, str] | None = None,
    **properties: Any,
) -> Resource:
    return Resource(
        type=type_,
        name=name_,
        urn=f"urn:pulumi:s::p::{type_}::{name_}",
        properties=properties,
        secrets=frozenset(secrets),
        refers={key: frozenset(resource.urn for resource in found) for key, found in (refers or {}).items()},
        defaults=defaults or {},
    )


def tasks(*containers: dict[str, Any], secrets: tuple[str, ...] = (), **more: Any) -> Resource:
    return one(TASK, containerDefinitions=json.dumps(containers), secrets=secrets, **more)


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **found} for found in statements]})


PLAIN = one(BUCKET, "plain")
OPEN_GROUP = one(GROUP, "open")
OPEN_RULE = one(OPEN, "world", refers={"securityGroupId": [OPEN_GROUP]}, cidrIpv4="0.0.0.0/0", securityGroupId=UNKNOWN)
TLS = {"ipProtocol": "tcp", "fromPort": 443, "toPort": 443}
READ = {"Sid": "Read", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/a/*"]}
NARROW = {"Sid": "Read", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/a"]}
ANYBODY = {"Sid": "All", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/a"}

Samples = dict[str, dict[str, tuple[str, list[Resource]]]]

BAD: Samples = {
    "image-pinned": {
        "no tag": ("image", [one(CONTAINER, image="lakefs")]),
        "no tag behind a port": ("image", [one(CONTAINER, image="registry.example:5000/lakefs")]),
        "latest": ("image", [one(CONTAINER, image="treeverse/lakefs:latest")]),
        "a digest which is none": ("image", [one(CONTAINER, image="lakefs@sha256:12")]),
        "in a job": ("image", [one(JOB, image="lakefs")]),
        "in a task": ("containerDefinitions[a].image", [tasks({"name": "a", "image": "lakefs:latest"})]),
        "pulled": ("name", [one("docker:index/remoteImage:RemoteImage", name="postgres")]),
        "built": ("tags[1]", [one(BUILD, tags=["a:1", "a:latest"])]),
        "built by the daemon": ("imageName", [one("docker:index/image:Image", imageName="a")]),
    },
    "secret-not-in-environment": {
        "by name": ("envs.POSTGRES_PASSWORD", [one(CONTAINER, envs=["A=1", "POSTGRES_PASSWORD=hunter2"])]),
        "by another name": ("env.SLACK_TOKEN", [one(JOB, env={"SLACK_TOKEN": "abcdefgh"})]),
        "by value": ("envs.URL", [one(CONTAINER, envs=["URL=postgresql://u:hunter2@h/d"])]),
        "a key of AWS": ("env.A", [one(JOB, env={"A": FAKE_KEY})]),
        "a private key": ("env.A", [one(JOB, env={"A": PEM})]),
        "by its mark": ("env.A", [one(JOB, env={"A": "abc"}, secrets=("env.A",))]),
        "the whole marked": ("env.A", [one(JOB, env={"A": "abc"}, secrets=("env",))]),
        "a list with a mark": ("envs", [one(CONTAINER, envs=["A=b"], secrets=("envs[0]",))]),
        "a task with a mark": (
            "containerDefinitions[a].environment",
            [tasks({"name": "a", "environment": [{"name": "A", "value": "b"}]}, secrets=("containerDefinitions",))],
        ),
        "a task by name": (
            "containerDefinitions[a].environment.API_KEY",
            [tasks({"name": "a", "environment": [{"name": "API_KEY", "value": "b"}]})],
        ),
        "an argument of a build": ("buildArgs.TOKEN", [one(BUILD, buildArgs={"TOKEN": "abc"})]),
        "a process of this machine": (
            "env.LAKEFS_SECRET",
            [one("tidemill-native:local:Service", env={"LAKEFS_SECRET": "abcdef"})],
        ),
        "a function": (
            "environment.variables.SECRET",
            [one("aws:lambda/function:Function", environment={"variables": {"SECRET": "abc"}})],
        ),
    },
    "container-unprivileged": {
        "privileged": ("privileged", [one(CONTAINER, privileged=True)]),
        "a capability": ("capabilities.adds", [one(CONTAINER, capabilities={"adds": ["CAP_SYS_ADMIN"]})]),
        "network": ("networkMode", [one(CONTAINER, networkMode="host")]),
        "processes": ("pidMode", [one(CONTAINER, pidMode="host")]),
        "devices": ("devices", [one(CONTAINER, devices=[{"hostPath": "/dev/sda"}])]),
        "unconfined": ("securityOpts", [one(CONTAINER, securityOpts=["seccomp=unconfined"])]),
        "a task": ("containerDefinitions[a].privileged", [tasks({"name": "a", "privileged": True})]),
        "a task's capability": (
            "containerDefinitions[a].linuxParameters.capabilities.add",
            [tasks({"name": "a", "linuxParameters": {"capabilities": {"add": ["SYS_PTRACE"]}}})],
        ),
        "a task's processes": ("pidMode", [tasks({"name": "a"}, pidMode="host")]),
    },
    "container-no-socket": {
        "mounted": (
            "mounts[0].source",
            [one(CONTAINER, mounts=[{"type": "bind", "source": "/var/run/docker.sock", "target": "/s"}])],
        ),
        "as a volume": ("volumes[0].hostPath", [one(CONTAINER, volumes=[{"hostPath": "/run/podman/podman.sock"}])]),
        "the host itself": ("mounts[0].source", [one(CONTAINER, mounts=[{"type": "bind", "source": "/"}])]),
        "its settings": ("volumes[0].hostPath", [one(CONTAINER, volumes=[{"hostPath": "/etc"}])]),
        "a job": ("mounts[0].volume", [one(JOB, mounts=[{"volume": "/var/run/docker.sock"}])]),
        "a task": ("volumes[0].hostPath", [tasks(volumes=[{"name": "s", "hostPath": "/var/run/docker.sock"}])]),
    },
    "container-loopback": {
        "everywhere": ("ports[0].ip", [one(CONTAINER, ports=[{"internal": 8080, "external": 80}])]),
        "everywhere by name": ("ports[0].ip", [one(CONTAINER, ports=[{"internal": 8080, "ip": "0.0.0.0"}])]),  # noqa: S104 - what is refused
        "a network": ("ports[1].ip", [one(CONTAINER, ports=[{"ip": "127.0.0.1"}, {"ip": "192.168.1.4"}])]),
        "all": ("publishAllPorts", [one(CONTAINER, publishAllPorts=True)]),
    },
    "container-read-only": {
        "not said": ("readOnly", [one(CONTAINER)]),
        "false": ("readOnly", [one(CONTAINER, readOnly=False)]),
        "a task": ("containerDefinitions[a].readonlyRootFilesystem", [tasks({"name": "a"})]),
    },
    "container-no-new-privileges": {
        "not said": ("securityOpts", [one(CONTAINER)]),
        "something else": ("securityOpts", [one(CONTAINER, securityOpts=["label=disable"])]),
        "switched off": ("securityOpts", [one(CONTAINER, securityOpts=["no-new-privileges:false"])]),
    },
    "container-memory": {
        "not said": ("memory", [one(CONTAINER)]),
        "none": ("memory", [one(CONTAINER, memory=0)]),
        "a job": ("memoryMb", [one(JOB)]),
        "a task": ("containerDefinitions[a].memory", [tasks({"name": "a"})]),
    },
    "container-user": {
        "not said": ("user", [one(CONTAINER)]),
        "root": ("user", [one(CONTAINER, user="root")]),
        "by number": ("user", [one(JOB, user="0:10001")]),
    },
    "aws-bucket-private": {
        "an ACL": ("acl", [one(BUCKET, acl="public-read")]),
        "everybody who has an account": ("acl", [one("aws:s3/bucketAcl:BucketAcl", acl="authenticated-read")]),
        "of old": ("acl", [one("aws:s3/bucketV2:BucketV2", acl="public-read-write")]),
        "a grant": (
            "grants",
            [one(BUCKET, grants=[{"uri": "http://acs.amazonaws.com/groups/global/AllUsers", "permissions": ["READ"]}])],
        ),
        "a website": ("website", [one(BUCKET, website={"indexDocument": "index.html"})]),
        "made a website": ("bucket", [one("aws:s3/bucketWebsiteConfiguration:BucketWebsiteConfiguration", bucket="b")]),
        "a policy": ("policy", [one("aws:s3/bucketPolicy:BucketPolicy", policy=document(ANYBODY))]),
        "a policy for every account": (
            "policy",
            [one("aws:s3/bucketPolicy:BucketPolicy", policy=document({**ANYBODY, "Principal": {"AWS": ["*"]}}))],
        ),
        "a block with a gap": (
            "ignorePublicAcls",
            [one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", **{**LOCK, "ignorePublicAcls": False})],
        ),
        "a block which says nothing": (
            "restrictPublicBuckets",
            [one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket="b")],
        ),
    },
    "aws-bucket-blocked": {
        "none": ("bucket", [PLAIN]),
        "another's": (
            "bucket",
            [PLAIN, one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", "x", bucket="other", **LOCK)],
        ),
    },
    "aws-ingress": {
        "ssh": ("cidrIpv4", [one(OPEN, cidrIpv4="0.0.0.0/0", ipProtocol="tcp", fromPort=22, toPort=22)]),
        "everything": ("cidrIpv6", [one(OPEN, cidrIpv6="::/0", ipProtocol="-1")]),
        "half the world": ("cidrIpv4", [one(OPEN, cidrIpv4="128.0.0.0/1", ipProtocol="tcp", fromPort=80, toPort=80)]),
        "a range with 443": ("cidrIpv4", [one(OPEN, cidrIpv4="0.0.0.0/0", ipProtocol="tcp", fromPort=0, toPort=443)]),
        "443 of UDP": ("cidrIpv4", [one(OPEN, cidrIpv4="0.0.0.0/0", ipProtocol="udp", fromPort=443, toPort=443)]),
        "within a group": (
            "ingress[0].cidrBlocks",
            [one(GROUP, ingress=[{"protocol": "tcp", "fromPort": 80, "toPort": 80, "cidrBlocks": ["0.0.0.0/0"]}])],
        ),
        "of old": (
            "ipv6CidrBlocks",
            [
                one(
                    "aws:ec2/securityGroupRule:SecurityGroupRule",
                    type="ingress",
                    protocol="tcp",
                    fromPort=5432,
                    toPort=5432,
                    ipv6CidrBlocks=["::/0"],
                )
            ],
        ),
    },
    "aws-ingress-balancer": {
        "a database is in it": (
            "securityGroups",
            [
                OPEN_GROUP,
                OPEN_RULE,
                one(DATABASE, vpcSecurityGroupIds=[UNKNOWN], refers={"vpcSecurityGroupIds": [OPEN_GROUP]}),
            ],
        ),
        "a service is in it": (
            "securityGroups",
            [
                OPEN_GROUP,
                OPEN_RULE,
                one(
                    "aws:ecs/service:Service",
                    refers={"networkConfiguration": [OPEN_GROUP]},
                    networkConfiguration=UNKNOWN,
                ),
            ],
        ),
        "a group which is open in itself": (
            "securityGroups",
            [
                one(
                    GROUP,
                    "a",
                    id="sg-1",
                    ingress=[{"cidrBlocks": ["0.0.0.0/0"], "protocol": "tcp", "fromPort": 443, "toPort": 443}],
                ),
                one("aws:ecs/service:Service", networkConfiguration={"securityGroups": ["sg-1"]}),
            ],
        ),
    },
    "aws-private": {
        "a database": ("publiclyAccessible", [one(DATABASE, publiclyAccessible=True)]),
        "a task": (
            "networkConfiguration.assignPublicIp",
            [one("aws:ecs/service:Service", networkConfiguration={"assignPublicIp": True})],
        ),
        "a machine": ("associatePublicIpAddress", [one("aws:ec2/instance:Instance", associatePublicIpAddress=True)]),
    },
    "aws-tls": {
        "plain": ("protocol", [one("aws:lb/listener:Listener", protocol="HTTP", defaultActions=[{"type": "forward"}])]),
        "old": (
            "sslPolicy",
            [one("aws:lb/listener:Listener", protocol="HTTPS", sslPolicy="ELBSecurityPolicy-2016-08")],
        ),
        "the default": ("sslPolicy", [one("aws:alb/listener:Listener", protocol="HTTPS")]),
    },
    "aws-encrypted": {
        "a database": ("storageEncrypted", [one(DATABASE)]),
        "a cluster": ("storageEncrypted", [one("aws:rds/cluster:Cluster", storageEncrypted=False)]),
        "a table": ("serverSideEncryption.enabled", [one(TABLE)]),
        "a disk": ("encrypted", [one("aws:ebs/volume:Volume")]),
        "a file system": ("encrypted", [one("aws:efs/fileSystem:FileSystem", encrypted=False)]),
        "a machine's disk": (
            "rootBlockDevice.encrypted",
            [one("aws:ec2/instance:Instance", rootBlockDevice={"volumeSize": 8})],
        ),
        "a further disk": (
            "ebsBlockDevices[0].encrypted",
            [one("aws:ec2/instance:Instance", ebsBlockDevices=[{"deviceName": "b", "encrypted": False}])],
        ),
        "a template's disk": (
            "blockDeviceMappings[0].ebs.encrypted",
            [one("aws:ec2/launchTemplate:LaunchTemplate", blockDeviceMappings=[{"ebs": {"encrypted": "false"}}])],
        ),
        "a queue": ("sqsManagedSseEnabled", [one("aws:sqs/queue:Queue", sqsManagedSseEnabled=False)]),
        "a parameter": ("type", [one("aws:ssm/parameter:Parameter", type="String", value="x", secrets=("value",))]),
    },
    "aws-bucket-encrypted": {"not said": ("bucket", [PLAIN])},
    "aws-own-key": {"a secret": ("kmsKeyId", [one("aws:secretsmanager/secret:Secret")])},
    "aws-permissions-narrow": {
        "a resource": ("policy.Read", [one(POLICY, policy=document(READ))]),
        "an action": ("policy.Read", [one(POLICY, policy=document({**NARROW, "Action": "s3:*"}))]),
        "without a name": (
            "policy.Statement[1]",
            [one(POLICY, policy=document(NARROW, {"Action": "s3:Get*", "Resource": "arn:aws:s3:::b/a"}))],
        ),
        "everything but": (
            "policy.Rest",
            [
                one(
                    POLICY,
                    policy=document({"Sid": "Rest", "NotAction": ["iam:CreateUser"], "Resource": "arn:aws:s3:::b"}),
                )
            ],
        ),
        "a reason for another": (
            "policy.Read",
            [one(POLICY, policy=document(READ), description="Write: objects are many")],
        ),
        "a reason which is none": ("policy.Read", [one(POLICY, policy=document(READ), description="Read: needed")]),
        "of a role": ("policy.Read", [one("aws:iam/rolePolicy:RolePolicy", policy=document(READ))]),
        "within a role": (
            "inlinePolicies[0].policy.Read",
            [one(ROLE, inlinePolicies=[{"name": "a", "policy": document(READ)}])],
        ),
    },
    "aws-permissions-managed": {
        "attached": (
            "policyArn",
            [
                one(
                    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
                    policyArn="arn:aws:iam::aws:policy/AdministratorAccess",
                )
            ],
        ),
        "all of a service": (
            "managedPolicyArns[0]",
            [one(ROLE, managedPolicyArns=["arn:aws:iam::aws:policy/AmazonS3FullAccess"])],
        ),
    },
    "aws-trust": {
        "a role": (
            "assumeRolePolicy",
            [one(ROLE, assumeRolePolicy=document({"Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}))],
        ),
        "a queue": ("policy", [one("aws:sqs/queue:Queue", policy=document({**ANYBODY, "Action": "sqs:SendMessage"}))]),
        "a key": ("policy", [one("aws:kms/key:Key", policy=document({**ANYBODY, "Action": "kms:Decrypt"}))]),
    },
    "aws-tagged": {
        "none": ("tags", [one(BUCKET)]),
        "one is missing": (
            "tags",
            [one(BUCKET, tags={key: value for key, value in TAGS.items() if "team" not in key})],
        ),
        "one is empty": ("tags", [one(BUCKET, tags={**TAGS, "tidemill:team": ""})]),
        "any which has some": ("tags", [one("aws:glue/job:Job", tags={"Name": "x"})]),
    },
    "docker-labelled": {
        "none": ("labels", [one(CONTAINER)]),
        "one is missing": (
            "labels",
            [one("docker:index/volume:Volume", labels=[{"label": "managed-by", "value": "tidemill"}])],
        ),
        "ours": ("labels", [one("tidemill-native:docker:Volume", labels={"managed-by": "tidemill"})]),
    },
    "aws-production-protected": {
        "a database": ("deletionProtection", [one(DATABASE)]),
        "its last copy": ("skipFinalSnapshot", [one(DATABASE, deletionProtection=True, skipFinalSnapshot=True)]),
        "a table": ("deletionProtectionEnabled", [one(TABLE, deletionProtectionEnabled=False)]),
        "a load balancer": ("enableDeletionProtection", [one(BALANCER)]),
        "a bucket": ("forceDestroy", [one(BUCKET, forceDestroy=True)]),
        "a secret": ("recoveryWindowInDays", [one("aws:secretsmanager/secret:Secret", recoveryWindowInDays=0)]),
    },
    "aws-production-backups": {
        "none": ("backupRetentionPeriod", [one(DATABASE)]),
        "too few": ("backupRetentionPeriod", [one(DATABASE, backupRetentionPeriod=6)]),
        "a table": ("pointInTimeRecovery.enabled", [one(TABLE, pointInTimeRecovery={"enabled": False})]),
    },
    "aws-production-versions": {
        "not said": ("bucket", [PLAIN]),
        "suspended": (
            "bucket",
            [
                PLAIN,
                one(
                    "aws:s3/bucketVersioning:BucketVersioning",
                    refers={"bucket": [PLAIN]},
                    bucket=UNKNOWN,
                    versioningConfiguration={"status": "Suspended"},
                ),
            ],
        ),
    },
    "aws-production-zones": {
        "a database": ("multiAz", [one(DATABASE, multiAz=False)]),
        "a load balancer": ("subnets", [one(BALANCER, subnets=["subnet-1"])]),
    },
    "aws-registry": {
        "tags which move": (
            "imageTagMutability",
            [
                one(
                    "aws:ecr/repository:Repository",
                    imageTagMutability="MUTABLE",
                    imageScanningConfiguration={"scanOnPush": True},
                )
            ],
        ),
        "no scan": (
            "imageScanningConfiguration.scanOnPush",
            [one("aws:ecr/repository:Repository", imageTagMutability="IMMUTABLE")],
        ),
    },
}

GOOD: dict[str, dict[str, list[Resource]]] = {
    "image-pinned": {
        "a tag": [one(CONTAINER, image="registry.example:5000/treeverse/lakefs:1.86.0")],
        "a digest": [one(CONTAINER, image=f"treeverse/lakefs:latest@{DIGEST}")],
        "an id": [one(CONTAINER, image=DIGEST)],
        "not known": [one(CONTAINER, image=UNKNOWN), one(TASK, containerDefinitions=UNKNOWN)],
        "tasks": [tasks({"name": "a", "image": f"1.dkr.example/a@{DIGEST}"})],
        "built": [one(BUILD, tags=["a:1.0-abc"])],
    },
    "secret-not-in-environment": {
        "a file": [one(CONTAINER, envs=["POSTGRES_PASSWORD_FILE=/run/secrets/p", "PGPASSFILE=/run/p", "A=b"])],
        "a file under any name": [one(JOB, env={"MY_SECRET": "/run/secrets/my"})],
        "a placeholder": [
            one("tidemill-native:local:Service", env={"URL": "postgres://u:@{secret:p}@h/d", "TOKEN": "@{secret:t}"})
        ],
        "no secret": [one(JOB, env={"TOKENIZERS_PARALLELISM": "false", "USE_TOKEN": "true", "MAX_TOKENS": "100"})],
        "named": [tasks({"name": "a", "secrets": [{"name": "API_KEY", "valueFrom": "arn:aws:secretsmanager:x"}]})],
        "not known": [one(JOB, env={"PASSWORD": UNKNOWN}), one(CONTAINER, envs=UNKNOWN)],
        "a secret elsewhere": [one(JOB, env={"A": "b"}, secrets=("argv[0]",))],
        "secrets of a build": [one(BUILD, buildArgs={"BASE": "python:3.11"}, secrets=("secrets.pip",))],
    },
    "container-unprivileged": {
        "dropped": [
            one(CONTAINER, privileged=False, capabilities={"drops": ["ALL"]}, securityOpts=["no-new-privileges:true"])
        ],
        "a weak capability": [one(CONTAINER, capabilities={"adds": ["NET_BIND_SERVICE"]})],
        "a task": [tasks({"name": "a", "linuxParameters": {"capabilities": {"drop": ["ALL"]}}})],
    },
    "container-no-socket": {
        "volumes": [
            one(CONTAINER, mounts=[{"type": "volume", "source": "data"}], volumes=[{"volumeName": "d"}]),
            one(JOB, mounts=[{"volume": "tidemill-a-files"}]),
            tasks(volumes=[{"name": "s"}]),
        ],
        "a folder of the project": [
            one(CONTAINER, mounts=[{"type": "bind", "source": "/srv/project", "target": "/p"}])
        ],
    },
    "container-loopback": {
        "v4": [one(CONTAINER, ports=[{"internal": 8080, "ip": "127.0.0.1"}])],
        "v6": [one(CONTAINER, ports=[{"internal": 8080, "ip": "::1"}])],
        "none": [one(CONTAINER)],
        "not known": [one(CONTAINER, ports=[{"ip": UNKNOWN}])],
    },
    "container-read-only": {
        "set": [one(CONTAINER, readOnly=True), tasks({"name": "a", "readonlyRootFilesystem": True})],
        "not known": [one(CONTAINER, readOnly=UNKNOWN)],
    },
    "container-no-new-privileges": {
        "set": [one(CONTAINER, securityOpts=["no-new-privileges:true"])],
        "in short": [one(CONTAINER, securityOpts=["no-new-privileges"])],
    },
    "container-memory": {
        "set": [one(CONTAINER, memory=512), one(JOB, memoryMb=256.0), tasks({"name": "a"}, memory="512")],
        "of a container": [tasks({"name": "a", "memory": 512})],
        "not known": [one(CONTAINER, memory=UNKNOWN)],
    },
    "container-user": {"a number": [one(CONTAINER, user="10001:10001"), one(JOB, user="999")]},
    "aws-bucket-private": {
        "private": [one(BUCKET, acl="private"), one(BUCKET)],
        "a block": [one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket=UNKNOWN, **LOCK)],
        "everybody is denied something": [
            one("aws:s3/bucketPolicy:BucketPolicy", policy=document({**ANYBODY, "Effect": "Deny"}))
        ],
        "everybody who is somebody": [
            one(
                "aws:s3/bucketPolicy:BucketPolicy",
                policy=document({**ANYBODY, "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}),
            )
        ],
        "not known": [one("aws:s3/bucketPolicy:BucketPolicy", policy=UNKNOWN)],
    },
    "aws-bucket-blocked": {
        "computed": [
            PLAIN,
            one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket=UNKNOWN, refers={"bucket": [PLAIN]}),
        ],
        "named": [
            one(BUCKET, bucket="data"),
            one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", bucket="data"),
        ],
    },
    "aws-ingress": {
        "443 of a load balancer": [one(OPEN, cidrIpv4="0.0.0.0/0", **TLS)],
        "a range": [one(OPEN, cidrIpv4="10.0.0.0/16", ipProtocol="tcp", fromPort=80, toPort=80)],
        "a group": [one(OPEN, referencedSecurityGroupId="sg-1", ipProtocol="-1")],
        "the way out": [
            one("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", cidrIpv4="0.0.0.0/0", ipProtocol="-1")
        ],
        "the way out, of old": [
            one("aws:ec2/securityGroupRule:SecurityGroupRule", type="egress", cidrBlocks=["0.0.0.0/0"], protocol="-1")
        ],
        "not known": [one(OPEN, cidrIpv4=UNKNOWN, ipProtocol="tcp", fromPort=22, toPort=22)],
    },
    "aws-ingress-balancer": {
        "a load balancer is in it": [
            OPEN_GROUP,
            OPEN_RULE,
            one(BALANCER, securityGroups=[UNKNOWN], refers={"securityGroups": [OPEN_GROUP]}),
            one(GROUP, "inner"),
            one(
                "aws:ecs/service:Service",
                networkConfiguration=UNKNOWN,
                refers={"networkConfiguration": [one(GROUP, "inner")]},
            ),
        ],
        "what is behind it lets it in": [
            OPEN_GROUP,
            OPEN_RULE,
            one(OPEN, "inner", refers={"referencedSecurityGroupId": [OPEN_GROUP]}, referencedSecurityGroupId=UNKNOWN),
        ],
    },
    "aws-private": {
        "within": [one(DATABASE, publiclyAccessible=False), one(DATABASE)],
        "a task": [one("aws:ecs/service:Service", networkConfiguration={"assignPublicIp": False})],
    },
    "aws-tls": {
        "TLS": [one("aws:lb/listener:Listener", protocol="HTTPS", sslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06")],
        "leads to it": [one("aws:lb/listener:Listener", protocol="HTTP", defaultActions=[{"type": "redirect"}])],
    },
    "aws-encrypted": {
        "all": [
            one(DATABASE, storageEncrypted=True),
            one(TABLE, serverSideEncryption={"enabled": True}),
            one("aws:ebs/volume:Volume", encrypted=True),
            one("aws:ec2/instance:Instance", rootBlockDevice={"encrypted": True}),
            one("aws:ec2/launchTemplate:LaunchTemplate", blockDeviceMappings=[{"ebs": {"encrypted": "true"}}]),
            one("aws:sqs/queue:Queue"),
            one("aws:ssm/parameter:Parameter", type="SecureString", value="x", secrets=("value",)),
        ],
        "a replica": [one(DATABASE, replicateSourceDb="other")],
        "not known": [one(DATABASE, storageEncrypted=UNKNOWN), one(TABLE, serverSideEncryption=UNKNOWN)],
    },
    "aws-bucket-encrypted": {
        "said": [
            PLAIN,
            one(
                "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
                bucket=UNKNOWN,
                refers={"bucket": [PLAIN]},
            ),
        ],
        "said by itself": [one(BUCKET, serverSideEncryptionConfiguration={"rule": {}})],
    },
    "aws-own-key": {
        "a key": [one("aws:secretsmanager/secret:Secret", kmsKeyId="arn:aws:kms:x")],
        "not known": [one("aws:secretsmanager/secret:Secret", kmsKeyId=UNKNOWN)],
        "not asked": [one("aws:cloudwatch/logGroup:LogGroup")],
    },
    "aws-permissions-narrow": {
        "narrow": [one(POLICY, policy=document(NARROW))],
        "a reason": [
            one(
                POLICY,
                policy=document(READ),
                description="Write: x; Read: a place in the bucket, whose objects are many",
            )
        ],
        "a reason as a tag": [one(POLICY, policy=document(READ), tags={"reason:Read": "a place in the bucket"})],
        "what is denied": [one(POLICY, policy=document({**READ, "Effect": "Deny", "Action": "*"}))],
        "not known": [one(POLICY, policy=UNKNOWN)],
        "a key's own policy": [
            one(
                "aws:kms/key:Key",
                policy=document({"Action": "kms:*", "Resource": "*", "Principal": {"AWS": "arn:aws:iam::1:root"}}),
            )
        ],
    },
    "aws-permissions-managed": {
        "of one's own": [
            one("aws:iam/rolePolicyAttachment:RolePolicyAttachment", policyArn="arn:aws:iam::123456789012:policy/a"),
            one("aws:iam/rolePolicyAttachment:RolePolicyAttachment", policyArn=UNKNOWN),
        ],
        "a narrow one of AWS's": [
            one(
                "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
                policyArn="arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy",
            )
        ],
    },
    "aws-trust": {
        "a service": [one(ROLE, assumeRolePolicy=document({"Principal": {"Service": "ecs-tasks.amazonaws.com"}}))],
        "a condition": [
            one("aws:sqs/queue:Queue", policy=document({**ANYBODY, "Condition": {"ArnEquals": {"aws:SourceArn": "a"}}}))
        ],
    },
    "aws-tagged": {
        "its own": [one(BUCKET, tags=TAGS)],
        "its provider's": [one(BUCKET, defaults=TAGS)],
        "not known": [one(BUCKET, tags=UNKNOWN)],
        "bears none": [one("aws:ec2/route:Route")],
    },
    "docker-labelled": {
        "a list": [one(CONTAINER, labels=[{"label": key, "value": value} for key, value in LABELS.items()])],
        "ours": [one("tidemill-native:docker:Volume", labels=LABELS), one("tidemill-native:docker:Bounds")],
    },
    "aws-production-protected": {
        "all": [
            one(DATABASE, deletionProtection=True),
            one(TABLE, deletionProtectionEnabled=True),
            one(BALANCER, enableDeletionProtection=True),
            one(BUCKET, forceDestroy=False),
            one("aws:secretsmanager/secret:Secret", recoveryWindowInDays=30),
        ],
    },
    "aws-production-backups": {
        "all": [one(DATABASE, backupRetentionPeriod=7), one(TABLE, pointInTimeRecovery={"enabled": True})],
        "a replica": [one(DATABASE, replicateSourceDb="other")],
    },
    "aws-production-versions": {
        "said": [
            PLAIN,
            one(
                "aws:s3/bucketVersioning:BucketVersioning",
                refers={"bucket": [PLAIN]},
                bucket=UNKNOWN,
                versioningConfiguration={"status": "Enabled"},
            ),
        ],
        "said by itself": [one(BUCKET, versioning={"enabled": True})],
    },
    "aws-production-zones": {
        "all": [one(DATABASE, multiAz=True), one(BALANCER, subnets=["a", "b"]), one(BALANCER, subnets=UNKNOWN)]
    },
    "aws-registry": {
        "all": [
            one(
                "aws:ecr/repository:Repository",
                imageTagMutability="IMMUTABLE",
                imageScanningConfiguration={"scanOnPush": True},
            )
        ]
    },
}
