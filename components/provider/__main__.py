from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> int:
    """Run the provider as the engine starts it: `pulumi-resource-tidemill-native ADDRESS`."""
    parent = os.getppid()
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if not addresses:
        print("this is a provider of Pulumi: it is started by `tidemill up` or `pulumi up`", file=sys.stderr)  # noqa: T201
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
    # What still runs is waited for, so that no resource is left half made.
    server.stop(grace=30.0).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
