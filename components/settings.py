"""The sections of a stack config which belong to the components, as a team writes them.

`tidemill.stacks.settings` composes them. This module imports no Pulumi, so that `validate`, `status` and editors
work with the light install.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from ..runtime.common.settings import PromoteSettings, Settings
from ..runtime.serving.settings import BatchSettings, CompileSettings, IsolationSettings, LimitSettings

__all__ = [
    "NAME_PATTERN",
    "CaptureConfig",
    "CommandLine",
    "Duration",
    "LakeConfig",
    "ModelConfig",
    "MonitoringConfig",
    "Port",
    "ReceiverConfig",
    "RepositoryConfig",
    "RetrainConfig",
    "SecretName",
    "ServeConfig",
    "SlackConfig",
    "WatchConfig",
    "WebhookConfig",
    "format_duration",
    "parse_duration",
]

NAME_PATTERN = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
"""What a model may be called: it becomes part of service, file and metric names."""

_DURATION = r"^(0|[1-9][0-9]*)(ms|s|m|h|d|w)$"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_duration(value: Any) -> Any:
    """Return the text `value` (a whole number and one of ms, s, m, h, d, w) as a timedelta; a timedelta stays one.

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
    """Return `value` as one whole number and a unit, the form in which Prometheus and `parse_duration` read it.

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
"""A program and its arguments; never passed through a shell. `python` is the one which has tidemill."""

Port = Annotated[int, Field(ge=1, le=65535)]


class SecretName(Settings):
    """A secret of the stack config, referred to by name."""

    secret: str = Field(
        min_length=1, description="Key of the secret: `pulumi config set --secret KEY`.", examples=["slackUrl"]
    )


class RepositoryConfig(Settings):
    """A lakeFS repository, one per data product."""

    protect: list[str] = Field(
        default=["main"], min_length=1, description="Branches which only gated merges may change."
    )
    gate: str | None = Field(
        default=None,
        description="Expectations which data must meet before it is merged: a Great Expectations suite as JSON.",
        examples=["stacks/flights/expectations.json"],
    )
    seed: CommandLine | None = Field(
        default=None,
        description="Command which fills the repository when it is made, run beside Pulumi.yaml.",
        examples=[["python", "stacks/flights/seed.py"]],
    )


class LakeConfig(Settings):
    """The versioned data of the team."""

    repositories: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{2,62}$")], RepositoryConfig] = Field(
        default_factory=dict[str, RepositoryConfig],
        description="Name -> repository. Without any, the team gets one which bears its name.",
        examples=[{"flights": {"protect": ["main"]}}],
    )


class CaptureConfig(Settings):
    """What is kept of the traffic."""

    fraction: float = Field(default=1.0, ge=0, le=1, description="Share of the requests which is captured.")
    leave_out: list[str] = Field(
        default_factory=list[str],
        description="Columns which are not kept: personal data, or what is too large.",
        examples=[["passenger_name"]],
    )
    hash: list[str] = Field(
        default_factory=list[str],
        description="Columns of which only a keyed hash is kept, by which the rows of one subject can still be found.",
        examples=[["customer_id"]],
    )
    retention: Duration | None = Field(
        default=None, description="Age at which captured rows and labels are deleted. Default: they are kept."
    )
    segment_rows: int = Field(default=50_000, ge=1, description="A file is finished when it has this many rows,")
    segment_seconds: float = Field(default=5.0, gt=0, description="or when its first row is this old.")


Fraction = Annotated[float, Field(ge=0, le=1)]


def _capture(value: Any) -> Any:
    """Let a number stand for the fraction alone."""
    return {"fraction": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class ServeConfig(Settings):
    """How a model answers."""

    workers: int = Field(default=1, ge=1, le=64, description="Processes which answer on the one port.")
    batch: BatchSettings = Field(default=BatchSettings(), description="How requests are answered together.")
    compile: CompileSettings = Field(
        default=CompileSettings(), description="Whether a faster form of the model may serve, and when."
    )
    isolation: IsolationSettings = Field(
        default=IsolationSettings(), description="What happens where a model's requirements differ from the server's."
    )
    shadow: str | None = Field(
        default=None,
        min_length=1,
        description="Alias of a version which is asked the same besides, such as challenger; it answers nobody.",
        examples=["challenger"],
    )
    capture: Annotated[CaptureConfig, BeforeValidator(_capture, json_schema_input_type=CaptureConfig | Fraction)] = (
        Field(
            default=CaptureConfig(), description="What is kept of the traffic; a number is the share of the requests."
        )
    )
    poll_seconds: float = Field(
        default=2.0, gt=0, le=3600, description="Seconds between two looks at the registry's alias."
    )
    limits: LimitSettings = Field(
        default=LimitSettings(), description="Bounds on one request, and on all of them together."
    )
    access_log: float = Field(
        default=1.0, ge=0, le=1, description="Share of the answered requests which are logged; refused ones always are."
    )
    drain: Duration = Field(
        default=timedelta(0), description="Time between not being ready any more and closing the port, at the end."
    )


class WatchConfig(Settings):
    """What counts as drift."""

    window: Duration = Field(default=timedelta(days=30), description="Event time which is compared to the reference.")
    label_delay: Duration = Field(default=timedelta(days=1), description="How late labels may come.")
    min_rows: int = Field(default=200, ge=1, description="Rows a window needs before it is judged.")
    drift_threshold: float = Field(default=0.1, gt=0, description="Distance at which a feature counts as drifted.")
    drift_share: float = Field(default=0.5, gt=0, le=1, description="Share of drifted features which raises the alert.")
    publish_min_rows: int = Field(default=1000, ge=1, description="Labelled rows which are worth a commit in the lake.")
    interval: Duration = Field(default=timedelta(seconds=5), description="Time between two looks at the capture.")


class RetrainConfig(Settings):
    """When a model is trained anew. The first model is always trained: having no champion is a reason of its own."""

    triggers: list[Literal["drift"]] = Field(
        default=["drift"], description="Alerts which lead to a new model, besides having none."
    )
    cooldown: Duration = Field(default=timedelta(days=1), description="Least time between two trainings for an alert.")
    promotion: Literal["automatic", "manual"] = Field(
        default="automatic", description="`manual` stops before the alias champion and asks."
    )
    timeout: Duration = Field(default=timedelta(hours=1), description="Time after which a training has failed.")

    @property
    def reasons(self) -> list[Literal["no-champion", "drift"]]:
        """The reasons for which the retraining service trains, `no-champion` included."""
        return ["no-champion", *self.triggers]


class ModelConfig(Settings):
    """A model: what it is for, who answers for it, what counts as good, and how it is kept fresh."""

    owner: str = Field(min_length=1, description="Who answers for the model: an address.", examples=["ops@example.org"])
    purpose: str = Field(
        min_length=1, description="The question it answers, one sentence.", examples=["will this flight leave late?"]
    )
    code: str = Field(
        min_length=1, description="Folder of its training code, relative to Pulumi.yaml.", examples=["stacks/flights"]
    )
    train: CommandLine = Field(
        description="Command which trains it, run inside `code`.", examples=[["python", "train.py"]]
    )
    data: str = Field(
        pattern=r"^[^/\s]+/[^/\s]+/[^/\s].*$",
        description="Where its data lives: REPOSITORY/BRANCH/PATH in the lake.",
        examples=["flights/main/departures"],
    )
    target: str = Field(min_length=1, description="Name of the target column.", examples=["delayed"])
    promote: PromoteSettings = Field(default=PromoteSettings(), description="The gate before the alias champion.")
    serve: ServeConfig = Field(default=ServeConfig(), description="How it answers.")
    watch: WatchConfig = Field(default=WatchConfig(), description="What counts as drift.")
    retrain: RetrainConfig = Field(default=RetrainConfig(), description="When it is trained anew.")

    @property
    def repository(self) -> str:
        """The repository in which its data lives."""
        return self.data.split("/", 2)[0]


class SlackConfig(Settings):
    """A Slack channel which hears of alerts."""

    url: SecretName = Field(description="The incoming webhook's URL, a secret.")
    channel: str | None = Field(
        default=None, description="Channel, where the webhook leaves the choice.", examples=["#models"]
    )


class WebhookConfig(Settings):
    """An HTTP server which hears of alerts in Alertmanager's JSON."""

    url: SecretName = Field(description="Its URL, a secret.")


class ReceiverConfig(Settings):
    """Who hears of alerts: exactly one of `slack`, `webhook`."""

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
        assert chosen is not None  # noqa: S101 - the validator saw to it
        return chosen.url


class MonitoringConfig(Settings):
    """Metrics, rules, alerts, dashboards."""

    grafana: Literal["auto", "off"] = Field(default="auto", description="`auto`: started where it can be had.")
    retention: Duration = Field(default=timedelta(days=15), description="How long metrics are kept.")
    scrape_interval: Duration = Field(default=timedelta(seconds=5), description="Time between two scrapes.")
    receivers: list[ReceiverConfig] = Field(
        default_factory=list[ReceiverConfig], description="Who hears of alerts, besides the retraining service."
    )
