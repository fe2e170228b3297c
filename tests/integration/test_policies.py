"""The policy pack in the real engine: through `tidemill`, and through a plain `pulumi preview --policy-pack`.

That the programs of docker and aws pass it, in development and in production, their own tests show: the pack is on.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_docker as docker
import pytest
import yaml
from tidemill.components import tools
from tidemill.runtime.common.errors import RefusedError
from tidemill.stacks.engine.policies import EXECUTABLE, PACK
from tidemill.stacks.loading import project_settings

from tests.support.langhost import install
from tests.support.policy_samples import LABELS, TAGS
from tests.support.standin.backend import shared_state
from tests.support.standin.engine import StandinStack, plugins_of

# The SDK leaves the event loop of an inline program which failed to the garbage collector, and calls parts of its own
# deprecated.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CONTAINER = "docker:index/container:Container"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def container(name: str = "serving", **changes: Any) -> docker.Container:
    right: dict[str, Any] = {
        "image": "tidemill/serving:1.0",
        "envs": ["A=b"],
        "memory": 512,
        "read_only": True,
        "security_opts": ["no-new-privileges:true"],
        "user": "10001:10001",
        "ports": [docker.ContainerPortArgs(internal=8080, external=8080, ip="127.0.0.1")],
        "labels": [docker.ContainerLabelArgs(label=key, value=value) for key, value in LABELS.items()],
    }
    return docker.Container(name, **(right | changes))


def bucket(name: str = "data", *, blocked: bool = True, **changes: Any) -> aws.s3.Bucket:
    given: dict[str, Any] = {"tags": TAGS, **changes}
    made = aws.s3.Bucket(name, **given)
    aws.s3.BucketPublicAccessBlock(
        name,
        bucket=made.id,
        block_public_acls=blocked,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
    )
    aws.s3.BucketServerSideEncryptionConfiguration(
        name,
        bucket=made.id,
        rules=[
            aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                apply_server_side_encryption_by_default=aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                    sse_algorithm="aws:kms"
                )
            )
        ],
    )
    return made


def stack_of(folder: Path, make: Callable[[], object], config: dict[str, Any] | None = None) -> StandinStack:
    """Return a stack of what `make` declares, and of nothing else."""
    return StandinStack(folder, "docker", config, program=lambda _: (make(), None)[1])


def right() -> None:
    container()
    bucket()
    group = aws.ec2.SecurityGroup("edge", vpc_id="vpc-1", tags=TAGS)
    aws.vpc.SecurityGroupIngressRule(
        "world", security_group_id=group.id, cidr_ipv4="0.0.0.0/0", ip_protocol="tcp", from_port=443, to_port=443
    )
    aws.lb.LoadBalancer("edge", security_groups=[group.id], subnets=["a", "b"], tags=TAGS)


def test_what_is_right_passes_in_preview_and_in_up(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, right)
    for action in ("preview", "up", "up"):
        run = stack.run(action)
        assert not [event for event in run.events if "(rule " in event.text]
        assert not [event for event in run.events if EXECUTABLE in event.text], "how it is started is nobody's concern"
    assert run.outcome.changed == 0
    folder = stack.project / ".tidemill" / "policies"
    assert (folder / EXECUTABLE).stat().st_mode & 0o777 == 0o700


def in_group(open_: bool) -> None:
    group = aws.ec2.SecurityGroup("edge", vpc_id="vpc-1", tags=TAGS)
    aws.vpc.SecurityGroupIngressRule(
        "world",
        security_group_id=group.id,
        cidr_ipv4="0.0.0.0/0" if open_ else "10.0.0.0/16",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
    )
    aws.ecs.Service(
        "serving",
        tags=TAGS,
        network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(security_groups=[group.id], subnets=["a"]),
    )


WRONG: dict[str, tuple[Callable[[], object], str, str]] = {
    "a public bucket": (
        lambda: bucket(acl="public-read"),
        "aws-bucket-private",
        "aws:s3/bucket:Bucket data: acl is public-read; remove it",
    ),
    "a block with a gap": (
        lambda: bucket(blocked=False),
        "aws-bucket-private",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock data: blockPublicAcls is not true; set it to true",
    ),
    "a bucket without a block": (
        lambda: aws.s3.Bucket("data", tags=TAGS),
        "aws-bucket-blocked",
        "aws:s3/bucket:Bucket data: bucket does not block public access; add an",
    ),
    "a service within what is open": (
        lambda: in_group(True),
        "aws-ingress-balancer",
        "aws:ecs/service:Service serving: securityGroups include edge, which world opens to the internet; remove edge",
    ),
    "a secret in an environment": (
        lambda: container(envs=["A=b", pulumi.Output.concat("X=", pulumi.Output.secret("hunter2"))]),
        "secret-not-in-environment",
        f"{CONTAINER} serving: envs contains a value that is marked as secret; put it into a file",
    ),
    "a privileged container": (
        lambda: container(privileged=True),
        "container-unprivileged",
        f"{CONTAINER} serving: privileged gives it control of the host; remove it",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_by_preview_with_what_to_do(tmp_path: Path, case: str) -> None:
    make, rule, text = WRONG[case]
    stack = stack_of(tmp_path, make)
    with pytest.raises(RefusedError) as caught:
        stack.run("preview")
    assert caught.value.exit_code == 1
    assert f"(rule {rule})" in str(caught.value)
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_only_what_lets_the_world_in_is_refused(tmp_path: Path) -> None:
    assert stack_of(tmp_path, lambda: in_group(False)).run("preview").outcome.changed > 0


def test_up_itself_does_not_make_what_is_refused(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, lambda: container(image="tidemill/serving:latest"))
    with pytest.raises(RefusedError, match="has the tag latest"):
        stack.run("up")
    assert [entry for entry in stack.entries() if entry.type == CONTAINER] == []


def test_levels_exceptions_and_parameters_are_those_of_the_config(tmp_path: Path) -> None:
    wrong = lambda: container(read_only=False, memory=0, image="tidemill/serving")  # noqa: E731
    policies: dict[str, Any] = {
        "container-read-only": "advisory",
        "container-memory": "disabled",
        "image-pinned": {"except": {"serv*": "it is built on this very machine"}},
    }
    stack = stack_of(tmp_path, wrong, {"policies": policies})
    told = {event.text: event.severity for event in stack.run("preview").events if "(rule " in event.text}
    [(text, severity)] = told.items()
    assert severity == "warning"
    assert text.endswith("(rule container-read-only)")
    stack.write({"policies": {**policies, "docker-labelled": {"parameters": {"names": ["cost-center"]}}}})
    with pytest.raises(RefusedError, match="labels lack cost-center"):
        stack.run("preview")


def test_production_is_asked_more(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, lambda: bucket(force_destroy=True))
    assert stack.run("preview").outcome.changed > 0
    stack.write({"environment": "prod"})
    with pytest.raises(RefusedError) as caught:
        stack.run("preview")
    assert "forceDestroy is true; remove it in production" in str(caught.value)
    assert "bucket does not keep earlier versions of its objects" in str(caught.value)


def test_a_public_bucket_is_refused_in_the_program_of_aws(tmp_path: Path) -> None:
    def opened(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_ != "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock":
            return None
        return pulumi.ResourceTransformResult({**args.props, "restrictPublicBuckets": False}, args.opts)

    def program(whole: Callable[[], None]) -> None:
        pulumi.runtime.register_resource_transform(opened)
        whole()

    settings = {"region": "eu-central-1", "domain": "ml.example.org", "zone": "Z123ABC"}
    with shared_state() as environment:
        stack = StandinStack(tmp_path, "aws", {"aws": settings}, environment=environment, program=program)
        (stack.project / "uv.lock").write_bytes((Path(__file__).resolve().parents[2] / "uv.lock").read_bytes())
        with pytest.raises(RefusedError) as caught:
            stack.run("preview")
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock private: restrictPublicBuckets is not true; set it to "
        "true: nothing in this stack is public (rule aws-bucket-private)"
    )


# The command line.


def test_preview_and_up_of_the_command_line_refuse_before_anything_is_made(tmp_path: Path) -> None:
    policies = {"docker-labelled": {"parameters": {"names": ["cost-center"]}}}
    stack = StandinStack(tmp_path, "docker", {"policies": policies})
    (stack.project / "uv.lock").write_bytes((Path(__file__).resolve().parents[2] / "uv.lock").read_bytes())
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
    for words in (["preview", "--policy"], ["up", "--yes", "--policy", "--no-wait"]):
        done = subprocess.run(
            [str(Path(sys.executable).parent / "tidemill"), *words, "--stack", stack.stack],
            cwd=stack.project,
            env={**clean, "STANDIN_RECORD": str(stack.record), "STANDIN_GONE": str(stack.gone)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert "container:Container mlflow: labels lack cost-center; add them (rule docker-labelled)" in done.stderr
    made = [entry for entry in stack.entries() if entry.action == "create" and not entry.preview]
    assert made == []


# The user's own `pulumi`.

PROGRAM = """
import pulumi, pulumi_docker as docker

labels = pulumi.Config("x").require_object("labels")
docker.Container(
    "serving", image=pulumi.Config("x").require("image"), memory=512, read_only=True, user="10001",
    security_opts=["no-new-privileges:true"],
    labels=[docker.ContainerLabelArgs(label=key, value=value) for key, value in labels.items()],
)
"""


class Plain:
    """A project which a plain `pulumi` runs, with a language host that does as the vendor's."""

    def __init__(self, folder: Path, *, found: bool) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        (self.folder / "__main__.py").write_text(PROGRAM)
        binaries = Path(sys.executable).parent
        (self.folder / ".venv").symlink_to(sys.prefix, target_is_directory=True)
        plugins: dict[str, Any] = {"providers": plugins_of(folder / "bin", "docker")}
        if found:  # as the project's own Pulumi.yaml says
            plugins["analyzers"] = [{"name": EXECUTABLE.removeprefix("pulumi-analyzer-"), "path": ".venv/bin"}]
        settings = {"name": "plain", "runtime": {"name": "python", "options": {"virtualenv": ".venv"}}}
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "plugins": plugins}))
        state = folder / "state"
        state.mkdir()
        path = [str(install(folder / "host")), *([] if found else [str(binaries)]), os.environ["PATH"]]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")},
            "PATH": os.pathsep.join(path),
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "STANDIN_RECORD": str(folder / "record.jsonl"),
        }

    def config(self, stack: str, image: str, **more: Any) -> None:
        config = {"x:image": image, "x:labels": LABELS, **more}
        (self.folder / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump({"config": config}))
        project_settings.cache_clear()

    def pulumi(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tools.ensure("pulumi")), *args, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.mark.parametrize("found", [True, False], ids=["named in Pulumi.yaml", "on PATH"])
def test_a_plain_pulumi_runs_the_pack(tmp_path: Path, found: bool) -> None:
    plain = Plain(tmp_path, found=found)
    assert plain.pulumi("stack", "init", "flights-dev").returncode == 0
    plain.config("flights-dev", "tidemill/serving:latest")
    preview = ("preview", "--policy-pack", str(PACK), "--stack", "flights-dev")
    refused = plain.pulumi(*preview)
    assert refused.returncode != 0
    assert f"{CONTAINER} serving: image is tidemill/serving:latest, which has the tag latest" in refused.stdout
    plain.config("flights-dev", "tidemill/serving:1.0")
    passed = plain.pulumi(*preview)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "tidemill" in passed.stdout.partition("Policies:")[2], "it says which packs were asked"


def test_a_plain_pulumi_is_told_by_the_stacks_config_and_by_a_file(tmp_path: Path) -> None:
    plain = Plain(tmp_path, found=True)
    assert plain.pulumi("stack", "init", "flights-dev").returncode == 0
    platform = {"team": "flights", "environment": "dev", "policies": {"image-pinned": "advisory"}}
    plain.config("flights-dev", "tidemill/serving:latest", **{"tidemill:stack": platform})
    preview = ("preview", "--policy-pack", str(PACK), "--stack", "flights-dev")
    passed = plain.pulumi(*preview)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "which has the tag latest" in passed.stdout
    file = tmp_path / "policies.json"
    file.write_text(json.dumps({"image-pinned": {"enforcementLevel": "mandatory"}}))
    assert plain.pulumi(*preview, "--policy-pack-config", str(file)).returncode != 0
    plain.config(
        "flights-dev", "tidemill/serving:1.0", **{"tidemill:stack": {**platform, "policies": {"x": "advisory"}}}
    )
    wrong = plain.pulumi(*preview)
    assert wrong.returncode != 0
    assert "no such rule" in wrong.stdout + wrong.stderr
