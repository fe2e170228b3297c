"""Send later months of real departures to the served model as traffic, and their outcomes as labels.

    python -m tidemill.stacks.flights.replay --months 6-8
    python -m tidemill.stacks.flights.replay --months 6-8 --rows 3000 --labels later   # later, send the labels:
    python -m tidemill.stacks.flights.replay --labels only

The URL and the key are those of the stack TIDEMILL_STACK (default: flights-dev) of the project at or above the working
directory, unless --url and --key-file are given. The exit code is 1 if a request failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from tidemill.components.layout import StackRoot, find_project
from tidemill.runtime.common.errors import ConfigError, NotFoundError, TidemillError
from tidemill.runtime.common.secrets import read_secret
from tidemill.stacks.flights import departures
from tidemill.stacks.flights.seed import months

SERVICE = "serving-flights"
_SHOWN_FAILURES = 5


def sample(frame: pd.DataFrame, rows: int | None) -> pd.DataFrame:
    """Return `rows` evenly spaced rows of `frame`; all of them for None.

    >>> sample(pd.DataFrame({"day": range(5)}), 3)["day"].tolist()
    [0, 2, 4]
    """
    if rows is None or rows >= len(frame):
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).round().astype(int)]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    # JSON has no NaN; the contract of the model allows null where values can be missing.
    records = frame.loc[:, list(departures.FEATURES)].to_dict("records")
    return [{str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in records]


@dataclass
class Replay:
    """Sends traffic and labels, and counts the results.

    Args:
        client: HTTP client with the server's URL and key.
        batch: rows or labels per request.
        state: file with the labels still to send, one line per request.
    """

    client: httpx.Client
    batch: int
    state: Path | None = None
    requests: int = 0
    failures: int = 0
    rows: int = 0
    labels: int = 0

    def traffic(self, frame: pd.DataFrame, *, label: bool) -> None:
        """Send the departures in `frame`; with `label` also send their labels, else keep them in `state`."""
        for start in range(0, len(frame), self.batch):
            part = frame.iloc[start : start + self.batch]
            times = [moment.isoformat() for moment in part[departures.EVENT_TIME]]
            answer = self._post("/invocations", {"dataframe_records": _records(part), "event_time": times})
            if answer is None:
                continue
            self.rows += len(part)
            truth: list[int] = part[departures.TARGET].astype(int).tolist()
            if label:
                self._labels(answer["request_id"], truth)
            else:
                self._keep(answer["request_id"], truth)

    def send_kept_labels(self) -> None:
        """Send the labels that an earlier run kept; keep those that fail.

        Raises:
            NotFoundError: no labels are kept.
        """
        if self.state is None or not self.state.is_file():
            raise NotFoundError(
                "no labels are kept", field="state", value=str(self.state), hint="run with --labels later first"
            )
        remaining: list[str] = []
        for line in self.state.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if not self._labels(entry["request_id"], entry["labels"]):
                remaining.append(line)
        if remaining:
            work = self.state.with_suffix(".partial")
            work.write_text("".join(f"{line}\n" for line in remaining), encoding="utf-8")
            work.replace(self.state)
        else:
            self.state.unlink()

    def _labels(self, request_id: str, truth: list[int]) -> bool:
        labels = [{"request_id": request_id, "row": row, "label": value} for row, value in enumerate(truth)]
        done = self._post("/labels", {"labels": labels}) is not None
        self.labels += len(labels) * done
        return done

    def _keep(self, request_id: str, truth: list[int]) -> None:
        if self.state is None:
            raise ConfigError("--labels later requires a file", field="state", hint="add --state FILE")
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with self.state.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"request_id": request_id, "labels": truth}) + "\n")

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        self.requests += 1
        try:
            answer = self.client.post(path, json=body)
            if answer.is_success:
                return answer.json()
            problem = f"{answer.status_code} {answer.text[:300]}"
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
        self.failures += 1
        if self.failures <= _SHOWN_FAILURES:
            sys.stderr.write(f"POST {path} failed: {problem}\n")
        return None

    def summary(self) -> str:
        """Return the counts in one line."""
        return f"{self.requests} requests, {self.failures} failed, {self.rows} rows, {self.labels} labels"


def _root(stack: str) -> StackRoot:
    root = StackRoot.of(find_project(), stack)
    if not root.endpoints.is_file():
        raise NotFoundError("the stack is not up on this machine", field="stack", value=stack, hint="run `tidemill up`")
    return root


def _url(root: StackRoot) -> str:
    endpoints: dict[str, Any] = json.loads(root.endpoints.read_text(encoding="utf-8"))
    if SERVICE not in endpoints:
        raise NotFoundError("the stack has no such service", field="service", value=SERVICE)
    return f"http://127.0.0.1:{int(endpoints[SERVICE])}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--months", type=months, default=[6, 7, 8], help="a month or a range of months (default: 6-8)")
    parser.add_argument("--rows", type=_positive, help="rows per month, evenly spaced (default: all)")
    parser.add_argument("--labels", choices=["now", "later", "only"], default="now", help="when to send the labels")
    parser.add_argument("--batch", type=_positive, default=200, help="rows per request (default: 200)")
    parser.add_argument("--state", type=Path, help="file for labels to send later (default: in the stack's folder)")
    parser.add_argument("--url", help="URL of the model server (default: the stack's)")
    parser.add_argument("--key-file", type=Path, help="file with the API key (default: the stack's)")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"not a count: {text!r}")
    return int(text)


def _months(replay: Replay, arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.labels == "only":
        replay.send_kept_labels()
        return
    for month in arguments.months:
        started = time.monotonic()
        frame = sample(departures.month_frame(month), arguments.rows)
        replay.traffic(frame, label=arguments.labels == "now")
        yield f"{departures.YEAR}-{month:02d}: {len(frame)} departures in {time.monotonic() - started:.1f} s"


def main() -> int:
    """Run the command line; return its exit code."""
    arguments = _arguments()
    try:
        standalone = arguments.url and arguments.key_file
        root = None if standalone else _root(os.environ.get("TIDEMILL_STACK", "flights-dev"))
        url: str = arguments.url or (_url(root) if root else "")
        key = read_secret(arguments.key_file or (root.secrets / f"{SERVICE}-key" if root else Path()))
        state: Path | None = arguments.state or (root.path / "replay.jsonl" if root else None)
        if state is None and arguments.labels != "now":
            raise ConfigError("--labels later requires a file", field="state", hint="add --state FILE")
        # The server is on this machine, so use no proxy.
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            replay = Replay(client, arguments.batch, state)
            for line in _months(replay, arguments):
                _write_line(line)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    _write_line(replay.summary())
    return 1 if replay.failures else 0


def _write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
