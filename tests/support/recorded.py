"""The program under mocks which record: what would be made, with which inputs, and what would not."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks


@dataclass
class Recorded(mocks.Mocks):
    """Every resource which the program declared: (type, name) -> inputs."""

    resources: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    ports: int = 21000

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        assert (args.typ, args.name) not in self.resources, f"declared twice: {args.typ} {args.name}"
        self.resources[args.typ, args.name] = args.inputs
        outputs = dict(args.inputs)
        if args.typ.endswith(":Endpoint"):
            self.ports += 1
            outputs |= {"host": "127.0.0.1", "port": float(self.ports)}
        return args.name, outputs

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"the program calls {args.token}")

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return name -> inputs of the resources whose type ends in `kind`."""
        return {name: inputs for (typ, name), inputs in self.resources.items() if typ.endswith(f":{kind}")}


def record(program: Callable[[], None]) -> Recorded:
    """Run `program` to its end, every output resolved, and return what it declared."""
    recorded = Recorded()
    # Pulumi asks for the thread's loop, which is not made by asking from Python 3.12 on; it is never closed, since
    # what Pulumi leaves behind still refers to it.
    asyncio.set_event_loop(_loop())
    mocks.set_mocks(recorded, project="tidemill", stack="flights-dev", preview=False)
    pulumi.runtime.test(program)()
    return recorded


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
