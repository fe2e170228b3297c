from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> int:
    """Run the provider; the engine starts it as `pulumi-resource-tidemill-native ADDRESS`."""
    parent = os.getppid()
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if not addresses:
        print("this is a Pulumi provider: `tidemill up` or `pulumi up` starts it", file=sys.stderr)  # noqa: T201
        return 2
    from .adapter import serve
    from .parent import end_with_parent

    end_with_parent(parent)
    server, port = serve(addresses[0])
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        del number, frame
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    stopped.wait()
    # Wait for running operations, so that no resource is left half-created.
    server.stop(grace=30.0).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
