"""The program under mocks which record: what would be made, with which inputs, and what would not."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks
from tidemill.runtime.common.verdicts import generate_signing_key, public_key

from tests.support.graphs import Declared
from tests.support.standin.outputs import INVOKES, id_of, outputs_of

PUBLIC_KEY = public_key(generate_signing_key())


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
            outputs |= {"host": "127.0.0.1", "port": float(args.inputs.get("port", self.ports))}
        elif args.typ.endswith((":Secret", ":SecretValue")) and args.inputs.get("format") == "ed25519":
            outputs["public"] = PUBLIC_KEY
        elif args.typ.startswith("tidemill-native:docker:"):
            volume = f"tidemill-{args.inputs['stack']}-{args.inputs['name']}"
            digest = args.typ.endswith(":Files") and f"{len(self.resources):012x}"
            outputs |= {"volume": f"{volume}-files-{digest}", "digest": digest} if digest else {"volume": volume}
        elif not args.typ.startswith(("tidemill", "pulumi:")):
            outputs |= outputs_of(args.typ, args.name, args.inputs)
            return id_of(args.typ, args.name, args.inputs), outputs
        return args.name, outputs

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        answer = INVOKES.get(args.token)
        assert answer, f"the program calls {args.token}"
        return args.args | answer(args.args)

    @property
    def graph(self) -> list[Declared]:
        """Every resource, as the rules of `tests.support.graphs` read them."""
        return [Declared(kind, name, inputs) for (kind, name), inputs in self.resources.items()]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return name -> inputs of the resources whose type ends in `kind`."""
        return {name: inputs for (typ, name), inputs in self.resources.items() if typ.endswith(f":{kind}")}


def record(program: Callable[[], None], secrets: Mapping[str, str] | None = None) -> Recorded:
    """Run `program` to its end, every output resolved, and return what it declared; `secrets` are of its config."""
    recorded = Recorded()
    # Pulumi asks for the thread's loop, which is not made by asking from Python 3.12 on; it is never closed, since
    # what Pulumi leaves behind still refers to it.
    asyncio.set_event_loop(_loop())
    values = {f"tidemill:{name}": value for name, value in (secrets or {}).items()}
    pulumi.runtime.set_all_config(values, list(values))
    mocks.set_mocks(recorded, project="tidemill", stack="flights-dev", preview=False)
    pulumi.runtime.test(program)()
    return recorded


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
