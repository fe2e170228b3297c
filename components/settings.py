"""The sections of a stack config for components; `tidemill.stacks.settings` combines them.

This module imports no Pulumi, so that `validate`, `status` and editors work with the light install.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from ..runtime.common.settings import PromoteSettings, Settings
from ..runtime.serving.settings import (
    BatchSettings,
    CompileSettings,
    IsolationSettings,
    LabelSettings,
    LimitSettings,
    OutputSettings,
    Trusted,
)

NAME_PATTERN = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
"""Pattern of a model's name, which becomes part of service, file and metric names."""

_DURATION = r"^(0|[1-9][0-9]*)(ms|s|m|h|d|w)$"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_duration(value: Any) -> Any:
    """Return the text `value` (a whole number and one of ms, s, m, h, d, w) as a timedelta; accept a timedelta, too.

    >>> parse_duration("30d").days
    30
    """
    if isinstance(value, timedelta):
        return value
    match = re.match(_DURATION, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration; write a whole number and a unit (ms, s, m, h, d, w), for example 15s or 30d")
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ValueError("too long a duration; write fewer days") from None


def format_duration(value: timedelta) -> str:
    """Return `value` as a whole number and a unit, as Prometheus and `parse_duration` read it.

    >>> format_duration(timedelta(minutes=90))
    '90m'
    """
    milliseconds = round(value / timedelta(milliseconds=1))
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION, "examples": ["15s", "30d"]}),
]
"""A length of time: `15s`, `10m`, `30d`."""

CommandLine = Annotated[list[str], Field(min_length=1)]
"""A program and its arguments; no shell runs it. `python` is the Python with tidemill."""

Port = Annotated[int, Field(ge=1, le=65535)]


class SecretName(Settings):
    """The name of a secret in the stack config."""

    secret: str = Field(
        min_length=1, description="Key of the secret: `pulumi config set --secret KEY`.", examples=["slackUrl"]
    )


class RepositoryConfig(Settings):
    """A lakeFS repository, one per data product."""

    protect: list[str] = Field(default=["main"], min_length=1, description="Branches that only merges can change.")
    gate: str | None = Field(
        default=None,
        description="Great Expectations suite, as JSON, that data must meet before a merge.",
        examples=["stacks/flights/expectations.json"],
    )
    seed: CommandLine | None = Field(
        default=None,
        description="Command that fills a new repository; it runs in the folder of Pulumi.yaml.",
        examples=[["python", "stacks/flights/seed.py"]],
    )


SIGNING_KEY = "verdict-signing-key"
"""Name of the secret that signs the gate's verdicts; see `numbered_name`."""

KeyNumber = Annotated[int, Field(ge=1, le=99)]


def numbered_name(name: str, number: int) -> str:
    """Return the name of the secret `name` with a number.

    >>> numbered_name("key", 1), numbered_name("key", 2)
    ('key', 'key-2')
    """
    return name if number == 1 else f"{name}-{number}"


class LakeConfig(Settings):
    """The team's versioned data."""

    repositories: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{2,62}$")], RepositoryConfig] = Field(
        default_factory=dict[str, RepositoryConfig],
        description="Name -> repository. Default: one repository with the team's name.",
        examples=[{"flights": {"protect": ["main"]}}],
    )
    verdict_keys: list[KeyNumber] = Field(
        default=[1],
        min_length=1,
        description="Numbers of the trusted keys of the gate; the last one signs. Add the next number to rotate, "
        "and remove a number to stop trusting that key.",
        examples=[[1, 2]],
    )
    hook_secret: KeyNumber = Field(
        default=1,
        description="Number of the secret with which lakeFS calls the gate. Use the next number to rotate the secret.",
    )

    @model_validator(mode="after")
    def _require_distinct_keys(self) -> LakeConfig:
        if len(set(self.verdict_keys)) != len(self.verdict_keys):
            raise ValueError("verdict_keys: a number is given twice; give each number once")
        return self


class CaptureConfig(Settings):
    """Which traffic is captured."""

    fraction: float = Field(default=1.0, ge=0, le=1, description="Share of requests to capture.")
    leave_out: list[str] = Field(
        default_factory=list[str],
        description="Columns to leave out, such as personal or very large data.",
        examples=[["passenger_name"]],
    )
    hash: list[str] = Field(
        default_factory=list[str],
        description="Columns to store as a keyed hash, so that the rows of one subject can still be found.",
        examples=[["customer_id"]],
    )
    retention: Duration | None = Field(
        default=None, description="Age at which captured rows and labels are deleted. Default: never."
    )
    segment_rows: int = Field(default=50_000, ge=1, description="Rows after which a capture file is closed.")
    segment_seconds: float = Field(
        default=5.0, gt=0, description="Age of its first row, in seconds, after which a capture file is closed."
    )


Fraction = Annotated[float, Field(ge=0, le=1)]


def _capture(value: Any) -> Any:
    """Accept a number as the fraction."""
    return {"fraction": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class ServeConfig(Settings):
    """How a model is served."""

    workers: int = Field(default=1, ge=1, le=64, description="Worker processes on one port.")
    batch: BatchSettings = Field(default=BatchSettings(), description="How requests are batched.")
    compile: CompileSettings = Field(
        default=CompileSettings(),
        description="Whether a compiled form of the model serves, and under which conditions.",
    )
    isolation: IsolationSettings = Field(
        default=IsolationSettings(), description="What to do if a model's requirements differ from the server's."
    )
    trust: list[Trusted] = Field(
        default_factory=list[Trusted],
        description="What the model's files may hold: `pickle` loads versions that are stored as a pickle. Loading a "
        "pickle runs any code that its author put into it, as the user of the server.",
        examples=[["pickle"]],
    )
    outputs: OutputSettings = Field(default=OutputSettings(), description="What happens with NaN and infinities.")
    shadow: str | None = Field(
        default=None,
        min_length=1,
        description="Alias of a second version that gets the same requests; clients never see its answers.",
        examples=["challenger"],
    )
    capture: Annotated[CaptureConfig, BeforeValidator(_capture, json_schema_input_type=CaptureConfig | Fraction)] = (
        Field(default=CaptureConfig(), description="Which traffic is captured; a number is the share of requests.")
    )
    labels: LabelSettings = Field(default=LabelSettings(), description="Which labels are accepted.")
    poll_seconds: float = Field(
        default=2.0, gt=0, le=3600, description="Seconds between two checks of the registry's alias."
    )
    limits: LimitSettings = Field(
        default=LimitSettings(), description="Limits of a single request, and of all together."
    )
    access_log: float = Field(
        default=1.0, ge=0, le=1, description="Share of successful requests to log; failed requests are always logged."
    )
    hosts: list[Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)$")]] = Field(
        default_factory=list[str],
        description="More host names under which clients reach the server, such as that of your own proxy; `*` accepts "
        "every name. The stack's own names, `localhost` and IP addresses are always accepted.",
        examples=[["models.example.org"]],
    )
    drain: Duration = Field(
        default=timedelta(0), description="Time, at shutdown, between reporting not ready and closing the port."
    )


class WatchConfig(Settings):
    """When drift is reported."""

    window: Duration = Field(
        default=timedelta(days=30), description="Period of event time that is compared with the reference."
    )
    label_delay: Duration = Field(default=timedelta(days=1), description="Maximum delay of labels.")
    min_rows: int = Field(default=200, ge=1, description="Minimum number of rows in a window.")
    drift_threshold: float = Field(default=0.1, gt=0, description="Distance at which a feature counts as drifted.")
    drift_share: float = Field(default=0.5, gt=0, le=1, description="Share of drifted features that raises the alert.")
    publish_min_rows: int = Field(
        default=1000, ge=1, description="Minimum number of labelled rows for a commit in the lake."
    )
    max_share_per_key: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Maximum share of one API key in the labels of a published window, if several keys send labels.",
    )
    interval: Duration = Field(default=timedelta(seconds=5), description="Time between two checks of the capture.")


class RetrainConfig(Settings):
    """When a model is retrained. Without a champion, a model is always trained."""

    triggers: list[Literal["drift"]] = Field(default=["drift"], description="Alerts that start a training.")
    cooldown: Duration = Field(
        default=timedelta(days=1), description="Minimum time between two trainings after alerts."
    )
    promotion: Literal["automatic", "manual"] = Field(
        default="automatic", description="`manual` waits for approval before it moves the alias champion."
    )
    timeout: Duration = Field(
        default=timedelta(hours=1), description="Time after which a training is stopped and has failed."
    )

    @property
    def reasons(self) -> list[Literal["no-champion", "drift"]]:
        """The reasons for a training, including `no-champion`."""
        return ["no-champion", *self.triggers]


class ModelConfig(Settings):
    """A model: its purpose and owner, its quality gate, and how it is served and retrained."""

    owner: str = Field(min_length=1, description="Owner of the model: an address.", examples=["ops@example.org"])
    purpose: str = Field(
        min_length=1,
        description="The question that it answers, in one sentence.",
        examples=["will this flight leave late?"],
    )
    code: str = Field(
        min_length=1, description="Folder with its training code, relative to Pulumi.yaml.", examples=["stacks/flights"]
    )
    train: CommandLine = Field(
        description="Command that trains it; it runs in `code`.", examples=[["python", "train.py"]]
    )
    data: str = Field(
        pattern=r"^[^/\s]+/[^/\s]+/[^/\s].*$",
        description="Its training data in the lake: REPOSITORY/BRANCH/PATH.",
        examples=["flights/main/departures"],
    )
    target: str = Field(min_length=1, description="Name of the target column.", examples=["delayed"])
    promote: PromoteSettings = Field(default=PromoteSettings(), description="The gate for the alias champion.")
    serve: ServeConfig = Field(default=ServeConfig(), description="How it is served.")
    watch: WatchConfig = Field(default=WatchConfig(), description="When drift is reported.")
    retrain: RetrainConfig = Field(default=RetrainConfig(), description="When it is retrained.")

    @property
    def repository(self) -> str:
        """The repository with its data."""
        return self.data.split("/", 2)[0]


class SlackConfig(Settings):
    """A Slack channel that receives alerts."""

    url: SecretName = Field(description="URL of the incoming webhook, a secret.")
    channel: str | None = Field(
        default=None, description="Channel, if the webhook does not fix it.", examples=["#models"]
    )


class WebhookConfig(Settings):
    """An HTTP server that receives alerts in Alertmanager's JSON format."""

    url: SecretName = Field(description="URL of the server, a secret.")


class ReceiverConfig(Settings):
    """A receiver of alerts: exactly one of `slack` and `webhook`."""

    slack: SlackConfig | None = None
    webhook: WebhookConfig | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ReceiverConfig:
        if (self.slack is None) == (self.webhook is None):
            raise ValueError("a receiver is exactly one of slack and webhook; write one list item for each")
        return self

    @property
    def url(self) -> SecretName:
        """The secret with its URL."""
        chosen = self.slack or self.webhook
        assert chosen is not None  # noqa: S101 - the validator checked it
        return chosen.url


class MonitoringConfig(Settings):
    """Metrics, rules, alerts, dashboards."""

    grafana: Literal["auto", "off"] = Field(default="auto", description="`auto` starts Grafana if it is available.")
    retention: Duration = Field(default=timedelta(days=15), description="Time for which metrics are kept.")
    scrape_interval: Duration = Field(default=timedelta(seconds=5), description="Time between two scrapes.")
    receivers: list[ReceiverConfig] = Field(
        default_factory=list[ReceiverConfig], description="Receivers of alerts, in addition to the retraining service."
    )
