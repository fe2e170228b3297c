"""Each rule of the policy pack refuses what it is there for, and judges nothing that is right or not known."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi_aws
import pulumi_policy
import pytest
import typer.main
import yaml
from pulumi.automation import CommandResult, EngineEvent
from pulumi.automation.errors import CommandError
from pulumi.automation.events import PolicyEvent
from pulumi_policy import policy as sdk
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy
from tidemill.components.policies.base import UNKNOWN, Finding, Resource, Rule, Situation
from tidemill.components.policies.rules import RULES, rule
from tidemill.components.policies.settings import PolicyRule
from tidemill.components.policies.tagging import TAGGED
from tidemill.components.provider.base import lookup
from tidemill.runtime.common.errors import ConfigError, RefusedError, TidemillError
from tidemill.stacks.cli.app import app
from tidemill.stacks.engine.events import Event, Translator
from tidemill.stacks.engine.failures import explain
from tidemill.stacks.engine.policies import EXECUTABLE, PACK, install
from tidemill.stacks.engine.policy_pack import StackValues, mark_secrets, policies_of, resource_of
from tidemill.stacks.loading import load_stack, project_settings
from typer.testing import CliRunner

from tests.support.policy_samples import BAD, DIGEST, GOOD, TAGS, one
from tests.support.standin.outputs import class_of
from tests.support.tree import ROOT

PRODUCTION = Situation(production=True)
_SIGNATURE, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"


def asked(name: str, resources: list[Resource], situation: Situation = PRODUCTION) -> list[Finding]:
    found = rule(name)
    return [
        *(finding for resource in resources for finding in found.ask(resource, situation)),
        *found.ask_all(resources, situation),
    ]


def cases(samples: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    return [
        pytest.param(name, found, id=f"{name}: {label}")
        for name, labelled in samples.items()
        for label, found in labelled.items()
    ]


@pytest.mark.parametrize(("name", "sample"), cases(BAD))
def test_what_is_wrong_is_refused_by_the_name_of_its_property(name: str, sample: tuple[str, list[Resource]]) -> None:
    field, resources = sample
    found = asked(name, resources)
    assert field in {finding.field for finding in found}
    for finding in found:
        text = finding.text(finding.of or resources[0])
        assert finding.problem
        assert finding.hint
        assert (finding.of or resources[0]).name in text


@pytest.mark.parametrize(("name", "resources"), cases(GOOD))
def test_what_is_right_passes(name: str, resources: list[Resource]) -> None:
    assert asked(name, resources) == []


def test_each_rule_has_what_it_refuses_and_what_it_does_not() -> None:
    names = [one.name for one in RULES]
    assert len(set(names)) == len(names)
    assert set(BAD) == set(GOOD) == set(names)
    assert all((one.each is None) != (one.whole is None) for one in RULES)


def test_what_a_value_holds_is_in_no_message() -> None:
    for _field, resources in BAD["secret-not-in-environment"].values():
        for finding in asked("secret-not-in-environment", resources):
            text = finding.text(resources[0])
            assert not re.search(r"hunter2|abcdef|MII|ABCDEFGH", text), text


def _mutations(value: Any) -> Iterator[Any]:
    """Yield `value` with each part of it, one at a time, not known."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield {**value, key: UNKNOWN}
            yield from ({**value, key: other} for other in _mutations(item))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield [*value[:index], UNKNOWN, *value[index + 1 :]]
            yield from ([*value[:index], other, *value[index + 1 :]] for other in _mutations(item))


def test_what_is_not_known_is_not_judged_and_breaks_nothing() -> None:
    count = 0
    for name, labelled in BAD.items():
        for field, resources in labelled.values():
            for index, resource in enumerate(resources):
                for properties in _mutations(dict(resource.properties)):
                    other = one(resource.type, resource.name, **properties)
                    found = asked(name, [*resources[:index], other, *resources[index + 1 :]])
                    top = re.split(r"[.\[]", field)[0]
                    count += 1
                    # Of a website's settings it is wrong that there are any.
                    alone = len(resources) == 1 and not resource.type.endswith(":BucketWebsiteConfiguration")
                    if alone and properties.get(top) is UNKNOWN:
                        assert field not in {finding.field for finding in found}, (name, field)
    assert count > 150


SAMPLES = [
    *(resource for labelled in BAD.values() for _, found in labelled.values() for resource in found),
    *(resource for labelled in GOOD.values() for found in labelled.values() for resource in found),
]


def _inputs(type_: str) -> set[str]:
    if type_.startswith("tidemill-native:"):
        native = lookup(type_)
        return {*native.required, *native.optional}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK imports what it calls deprecated itself
        # A word of Python's own has another name there.
        kind: Any = pulumi_aws.lambda_.Function if "aws:lambda/" in type_ else class_of(type_)
    names = inspect.signature(kind._internal_init).parameters
    return {re.sub(r"_(\w)", lambda found: found[1].upper(), name.rstrip("_")) for name in names}


@pytest.mark.parametrize("type_", sorted({resource.type for resource in SAMPLES} - {"aws:s3/bucketV2:BucketV2"}))
def test_the_samples_speak_of_properties_which_there_are(type_: str) -> None:
    said = {key for resource in SAMPLES if resource.type == type_ for key in resource.properties} - {"id"}
    assert said - _inputs(type_) == set()


@pytest.mark.parametrize("type_", sorted(TAGGED))
def test_what_must_bear_tags_can(type_: str) -> None:
    assert "tags" in _inputs(type_)


def test_outside_production_less_is_asked() -> None:
    for one_ in RULES:
        if "production" in one_.name:
            for _, resources in BAD[one_.name].values():
                assert asked(one_.name, resources) != []
                assert asked(one_.name, resources, Situation()) == []


def test_a_resource_is_excepted_by_a_pattern_of_its_name() -> None:
    for name in ("aws-bucket-private", "aws-bucket-blocked"):
        bucket = one("aws:s3/bucket:Bucket", "pages-of-the-team", acl="public-read")
        assert asked(name, [bucket], Situation(settings={"except": {"pages-*": "they are for everybody"}})) == []
        assert asked(name, [bucket], Situation(settings={"except": {"page": "they are for everybody"}})) != []


def test_parameters_change_what_is_asked() -> None:
    group = [one("aws:cloudwatch/logGroup:LogGroup")]
    assert asked("aws-own-key", group) == []
    assert [found.field for found in asked("aws-own-key", group, Situation(settings={"of": ["logs"]}))] == ["kmsKeyId"]
    bucket = [one("aws:s3/bucket:Bucket", tags=TAGS)]
    [missing] = asked("aws-tagged", bucket, Situation(settings={"names": ["cost-center"]}))
    assert "cost-center" in missing.problem
    named = [one("tidemill-native:docker:Job", env={"PASSWORD": "abc"})]
    assert asked("secret-not-in-environment", named, Situation(settings={"names": ["PASSWORD"]})) == []
    database = [one("aws:rds/instance:Instance", backupRetentionPeriod=7)]
    assert asked("aws-production-backups", database, Situation(True, {"days": 30})) != []
    role = [one("aws:iam/role:Role", managedPolicyArns=["arn:aws:iam::aws:policy/AmazonS3FullAccess"])]
    assert asked("aws-permissions-managed", role, Situation(settings={"allowed": ["AmazonS3FullAccess"]})) == []


# As the engine asks.


def as_told(properties: dict[str, Any]) -> Any:
    """Return properties as the SDK gives them to a policy, from what the engine sends."""
    return unknown_checking_proxy(mark_secrets(sdk.deserialize_properties)(properties))


def secret(value: Any) -> dict[str, Any]:
    return {_SIGNATURE: _SECRET, "value": value}


def given(type_: str, properties: dict[str, Any], provider: dict[str, Any] | None = None, **config: Any) -> Any:
    options = pulumi_policy.PolicyResourceOptions(
        False, [], None, [], pulumi_policy.PolicyCustomTimeouts(0, 0, 0), [], None
    )
    made = pulumi_policy.PolicyProviderResource("pulumi:providers:aws", as_told(provider or {}), "urn", "aws")
    return pulumi_policy.ResourceValidationArgs(
        type_, as_told(properties), "urn:pulumi:s::p::t::it", "it", options, made, config or None
    )


def test_marks_of_secrets_and_what_is_not_known_reach_the_rules() -> None:
    found = resource_of(
        given(
            "t",
            {
                "plain": "a",
                "hidden": secret("b"),
                "list": ["a", secret("b"), {"inner": secret({"deep": "c"})}],
                "unknown": UNKNOWN_STRING_VALUE,
                "both": secret(UNKNOWN_STRING_VALUE),
                "map": {"a": UNKNOWN_STRING_VALUE, "b": 1.0},
            },
        )
    )
    assert found.properties == {
        "plain": "a",
        "hidden": "b",
        "list": ["a", "b", {"inner": {"deep": "c"}}],
        "unknown": UNKNOWN,
        "both": UNKNOWN,
        "map": {"a": UNKNOWN, "b": 1.0},
    }
    assert found.secrets == {"hidden", "list[1]", "list[2].inner", "both"}
    assert found.holds_secret("list")
    assert not found.holds_secret("map")


@pytest.mark.parametrize("tags", [{"tags": TAGS}, json.dumps({"tags": TAGS})], ids=["an object", "a text"])
def test_tags_of_the_provider_count(tags: Any) -> None:
    assert resource_of(given("aws:s3/bucket:Bucket", {}, {"defaultTags": tags})).tags() == TAGS


def told(name: str, args: Any, values: StackValues = StackValues()) -> list[str]:  # noqa: B008 - it does not change
    found: list[str] = []
    [policy] = [one for one in policies_of(values) if one.name == name]
    policy.validate(args, lambda text, urn: found.append(text))
    return found


def test_a_policy_of_the_pack_reports_one_line_for_each_finding() -> None:
    task = {"containerDefinitions": secret(json.dumps([{"name": "a", "environment": [{"name": "X", "value": "y"}]}]))}
    [line] = told("secret-not-in-environment", given("aws:ecs/taskDefinition:TaskDefinition", task))
    assert line == (
        "aws:ecs/taskDefinition:TaskDefinition it: containerDefinitions[a].environment holds a value which is marked "
        "as secret; put it into AWS Secrets Manager and name it under `secrets`"
    )
    assert told("image-pinned", given("docker:index/container:Container", {"image": f"a@{DIGEST}"})) == []
    excepted = given("docker:index/container:Container", {"image": "a"}, **{"except": {"it": "is made by hand"}})
    assert told("image-pinned", excepted) == []


def test_every_rule_says_its_level_and_its_parameters_to_the_engine() -> None:
    for policy, one_ in zip(policies_of(StackValues()), RULES, strict=True):
        assert policy.name == one_.name
        assert policy.description == one_.title
        assert policy.enforcement_level == pulumi_policy.EnforcementLevel(one_.level)
        assert policy.config_schema is not None
        assert set(policy.config_schema.properties) == {"except", *one_.parameters}


def test_the_sdk_reads_properties_where_the_pack_steps_in() -> None:
    # A private name of the SDK's: another version must not silently forget which values are secret.
    assert "deserialize_properties(json_format" in inspect.getsource(sdk._PolicyAnalyzerServicer.Analyze)


# What the stack's config says.

STACK = "flights-live"


def project(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "Pulumi.yaml").write_text("name: x\nruntime: python\n")
    whole = {"team": "flights", "environment": "live", **config}
    (folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": {"tidemill:stack": whole}}))
    project_settings.cache_clear()
    return folder


def values(folder: Path, config: dict[str, Any]) -> StackValues:
    environ = {"PULUMI_STACK": STACK, "PULUMI_CONFIG": json.dumps({"tidemill:stack": "{}"})}
    return StackValues.of(environ, project(folder, config))


AWS = {"region": "eu-central-1", "domain": "ml.example.org", "zone": "Z1"}


@pytest.mark.parametrize(
    ("config", "production"),
    [
        ({}, False),
        ({"target": "aws", "aws": AWS}, False),
        ({"target": "aws", "aws": {**AWS, "production": True}}, True),
        ({"target": "docker", "aws": {**AWS, "production": True}}, False),
    ],
)
def test_what_is_production_is_the_configs_word(tmp_path: Path, config: dict[str, Any], production: bool) -> None:
    assert values(tmp_path, config).production == production


def test_a_program_which_is_not_ours_is_production_by_the_name_of_its_stack(tmp_path: Path) -> None:
    for stack, production in (("prod", True), ("shop-production", True), ("dev", False), ("products", False)):
        assert StackValues.of({"PULUMI_STACK": stack, "PULUMI_CONFIG": "{}"}, tmp_path).production == production
    assert StackValues.of({}, tmp_path) == StackValues()


def test_the_config_sets_rules_also_from_what_it_is_laid_over(tmp_path: Path) -> None:
    base = {"policies": {"container-user": "mandatory", "aws-own-key": {"parameters": {"of": ["logs"]}}}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"config": {"tidemill:stack": base}}))
    found = values(
        tmp_path,
        {
            "extends": "base.yaml",
            "policies": {
                "container-read-only": "disabled",
                "image-pinned": {"level": "advisory", "except": {"image-*": "built on this very machine"}},
            },
        },
    )
    level = pulumi_policy.EnforcementLevel
    assert found.settings() == {
        "container-user": {"enforcementLevel": level.MANDATORY},
        "aws-own-key": {"enforcementLevel": level.MANDATORY, "of": ["logs"]},
        "container-read-only": {"enforcementLevel": level.DISABLED},
        "image-pinned": {"enforcementLevel": level.ADVISORY, "except": {"image-*": "built on this very machine"}},
    }


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ({"image-pined": "advisory"}, "did you mean image-pinned?"),
        ({"aws-own-key": {"parameters": {"off": []}}}, "did you mean of?"),
        ({"image-pinned": {"parameters": {"x": 1}}}, "no such parameter"),
        ({"image-pinned": "loud"}, "mandatory"),
        ({"image-pinned": {"except": {"a": "why"}}}, "10 characters"),
    ],
)
def test_settings_which_mean_nothing_are_refused(tmp_path: Path, policies: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_stack(project(tmp_path, {"policies": policies}), STACK)
    assert words in str(caught.value)


def test_a_level_alone_stands_for_the_whole() -> None:
    assert PolicyRule.model_validate("advisory") == PolicyRule(level="advisory")


# How the engine comes to it.


def test_the_executable_is_private_and_of_this_python(tmp_path: Path) -> None:
    folder = install(tmp_path / "home")
    assert [path.name for path in folder.iterdir()] == [EXECUTABLE]
    assert (folder / EXECUTABLE).stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / EXECUTABLE).write_text("an older one")
    assert "tidemill.stacks.engine.policy_pack" in (install(tmp_path / "home") / EXECUTABLE).read_text()


def test_the_pack_is_in_the_wheel_and_bears_its_version() -> None:
    pack = yaml.safe_load((PACK / "PulumiPolicy.yaml").read_text())
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pack["version"] == settings["project"]["version"]
    assert f"pulumi-analyzer-policy-{pack['runtime']}" == EXECUTABLE
    assert settings["project"]["scripts"][EXECUTABLE] == "tidemill.stacks.engine.policy_pack:main"
    assert settings["tool"]["setuptools"]["package-data"]["tidemill.components.policies"] == ["PulumiPolicy.yaml"]
    plugins = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["plugins"]
    assert plugins["analyzers"] == [{"name": EXECUTABLE.removeprefix("pulumi-analyzer-"), "path": ".venv/bin"}]


# The page.

PAGE = (ROOT / "docs" / "policies.md").read_text()


def row(found: Rule) -> str:
    what = "; ".join(
        f"`{name}`: {one.description.rstrip('.')} (default `{json.dumps(one.default)}`)"
        for name, one in found.parameters.items()
    )
    return f"| `{found.name}` | {found.level} | {found.title} | {what} |"


def test_the_page_has_every_rule_as_it_is() -> None:
    listed = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z-]+` \| (mandatory|advisory) ", line)]
    assert listed == [row(found) for found in RULES]


def test_the_settings_on_the_page_are_right(tmp_path: Path) -> None:
    [text] = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "tidemill:stack" in block]
    config = yaml.safe_load(text)["config"]["tidemill:stack"]
    found = values(tmp_path, {**config, "environment": "live"}).settings()
    assert set(found) == {"container-user", "aws-tagged", "aws-bucket-private"}
    assert found["aws-tagged"]["names"][-1] == "cost-center"


def test_the_commands_on_the_page_are_there() -> None:
    result = CliRunner().invoke(app, ["policies", "--path"])
    assert result.output.strip() == str(PACK)
    listed = json.loads(CliRunner().invoke(app, ["policies", "--json"]).output)
    assert [found["name"] for found in listed["rules"]] == [found.name for found in RULES]
    shown = CliRunner().invoke(app, ["policies"]).output
    assert all(found.name in shown for found in RULES)
    for command in ("preview", "up"):
        options = [option for one in typer.main.get_command(app).commands[command].params for option in one.opts]
        assert "--policy" in options


# How a refusal ends.


def violation(level: str) -> Any:
    event = PolicyEvent(
        message="No bucket is public\naws:s3/bucket:Bucket it: acl is public-read; leave it out\n",
        color="never",
        policy_name="aws-bucket-private",
        policy_pack_name="tidemill",
        policy_pack_version="0.1.0",
        policy_pack_version_tag="0.1.0",
        enforcement_level=level,
    )
    return EngineEvent(sequence=1, timestamp=1, policy_event=event)


def ended(folder: Path, events: list[Any], *more: Event) -> TidemillError:
    translator = Translator(lambda _: None)
    for event in events:
        translator(event)
    error = CommandError(CommandResult("", "error: preview failed", 1))
    return explain(error, [*translator.errors, *more], load_stack(project(folder, {}), STACK))


def test_a_refusal_ends_with_code_1_and_a_failure_beside_it_with_3(tmp_path: Path) -> None:
    refused = ended(tmp_path, [violation("mandatory")], Event("message", text="preview failed", severity="error"))
    assert isinstance(refused, RefusedError)
    assert str(refused) == "aws:s3/bucket:Bucket it: acl is public-read; leave it out (rule aws-bucket-private)"
    assert ended(tmp_path, [violation("mandatory")], Event("message", text="no disk", severity="error")).exit_code == 3
    slow = Event("message", text="Detected that /x/pulumi-resource-aws exited prematurely.", severity="error")
    assert ended(tmp_path, [violation("mandatory")], slow).exit_code == 1, "it was only slow to end"
    assert ended(tmp_path, [], slow).exit_code == 3, "it died"


def test_advice_is_a_warning() -> None:
    heard: list[Event] = []
    translator = Translator(heard.append)
    translator(violation("advisory"))
    assert translator.errors == []
    assert [(event.severity, event.exit_code) for event in heard] == [("warning", None)]
