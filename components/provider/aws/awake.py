"""Awake: the minimum task count of an autoscaled service, which `tidemill stop` sets to 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ....runtime.common.errors import PlatformError
from ..base import Context, Diff, Named, NativeResource, Properties, without
from .client import connect, talking

if TYPE_CHECKING:
    import pulumi

    from ..base import Text

_SPACE, _DIMENSION = "ecs", "ecs:service:DesiredCount"
_PARTS = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


class AwakeInputs(Named):
    """Inputs of a minimum task count."""

    stack: Text
    region: Text
    cluster: Text
    service: Text
    at_least: pulumi.Input[int]


class Awake(NativeResource, inputs=AwakeInputs):
    """The minimum task count `atLeast` of an ECS service; autoscaling may run more.

    The state has `asleep` when fewer are wanted.
    """

    token: ClassVar[str] = "tidemill-native:aws:Awake"
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "cluster", "service")

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a sleeping service is a change."""
        found = super().diff(context, state, inputs)
        return found.adding("asleep") if state.get("asleep") else found

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Wake the service."""
        name = str(inputs["name"])
        context.say("wakes")
        ecs = connect("ecs", str(inputs["region"]))
        with talking(name):
            if self._running(ecs, inputs) < int(inputs["atLeast"]):
                ecs.update_service(
                    cluster=inputs["cluster"], service=inputs["service"], desiredCount=int(inputs["atLeast"])
                )
            suspend(connect("application-autoscaling", str(inputs["region"])), _resource(inputs), suspended=False)
        return name, inputs

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state with whether the service sleeps."""
        plain = without(state, "asleep")
        with talking(str(state["name"])):
            running = self._running(connect("ecs", str(state["region"])), state)
        return {**plain, **({"asleep": True} if running < int(state["atLeast"]) else {})}

    def delete(self, context: Context, state: Properties) -> None:
        """Do nothing: the service itself is deleted."""

    @staticmethod
    def _running(ecs: Any, properties: Properties) -> int:
        found = ecs.describe_services(cluster=properties["cluster"], services=[properties["service"]])["services"]
        if not found:
            raise PlatformError("ECS has no such service", field=str(properties["name"]))
        return int(found[0]["desiredCount"])


def _resource(inputs: Properties) -> str:
    cluster, service = (str(inputs[key]).rsplit("/", 1)[-1] for key in ("cluster", "service"))
    return f"service/{cluster}/{service}"


def suspend(scaling: Any, resource: str, *, suspended: bool) -> None:
    """Suspend or resume the autoscaling of a service; do nothing if it has none."""
    found = scaling.describe_scalable_targets(ServiceNamespace=_SPACE, ResourceIds=[resource])["ScalableTargets"]
    for target in found:
        if target["ScalableDimension"] == _DIMENSION:
            scaling.register_scalable_target(
                ServiceNamespace=_SPACE,
                ResourceId=resource,
                ScalableDimension=_DIMENSION,
                SuspendedState=dict.fromkeys(_PARTS, suspended),
            )
