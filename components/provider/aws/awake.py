"""Awake: a service whose number of tasks is nobody's but its load's, which `tidemill stop` may have put to sleep."""

from __future__ import annotations

from typing import Any, ClassVar

from ....runtime.common.errors import PlatformError
from ..base import Context, Diff, NativeResource, Properties
from .client import connect, talking

__all__ = ["Awake", "suspend"]

_SPACE, _DIMENSION = "ecs", "ecs:service:DesiredCount"
_PARTS = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


class Awake(NativeResource):
    """At least `atLeast` tasks of a service of ECS; more of them are the scaling's matter.

    State beside the inputs: `asleep`, where there are fewer.
    """

    token: ClassVar[str] = "tidemill-native:aws:Awake"
    required: ClassVar[tuple[str, ...]] = ("stack", "name", "region", "cluster", "service", "atLeast")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "cluster", "service")

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a service which sleeps is to be woken."""
        found = super().diff(context, state, inputs)
        return Diff((*found.changes, "asleep"), found.replaces) if state.get("asleep") else found

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Wake it."""
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
        """Tell whether it sleeps."""
        del context
        plain = {key: value for key, value in state.items() if key != "asleep"}
        with talking(str(state["name"])):
            running = self._running(connect("ecs", str(state["region"])), state)
        return {**plain, **({"asleep": True} if running < int(state["atLeast"]) else {})}

    def delete(self, context: Context, state: Properties) -> None:
        """Do nothing: the service itself goes."""

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
    """Let the scaling of a service rest, or go on; nothing happens where it is not scaled."""
    found = scaling.describe_scalable_targets(ServiceNamespace=_SPACE, ResourceIds=[resource])["ScalableTargets"]
    for target in found:
        if target["ScalableDimension"] == _DIMENSION:
            scaling.register_scalable_target(
                ServiceNamespace=_SPACE,
                ResourceId=resource,
                ScalableDimension=_DIMENSION,
                SuspendedState=dict.fromkeys(_PARTS, suspended),
            )
