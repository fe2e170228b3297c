"""Great Expectations suites, and their results for a file.

Importing Great Expectations takes seconds and 200 MB, so only `SuiteRunner` imports it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..common.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    import pandas as pd

_OBSERVED_LIMIT = 10


@dataclass(frozen=True)
class Reason:
    """A reason to refuse a file.

    Attributes:
        message: one sentence.
        file: path of the file in the repository.
        expectation: type of the failed expectation, or of another problem.
        column: the column, if the expectation is about one.
        observed: the observed value.
    """

    message: str
    file: str = ""
    expectation: str = ""
    column: str | None = None
    observed: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the reason as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class SuiteFile:
    """A suite file: Great Expectations' own JSON, with the guarded path in `meta.tidemill.path`.

    Attributes:
        name: name of the suite.
        path: path in the repository; the gate judges the Parquet files below it.
        expectations: the raw expectations, each with `type` and `kwargs`.
        sha256: the SHA-256 of the file; None if the suite is not from a file.
    """

    name: str
    path: str
    expectations: tuple[Mapping[str, Any], ...]
    sha256: str | None = None

    @property
    def prefix(self) -> str:
        """The prefix of the paths that the suite covers."""
        return f"{self.path}/" if self.path else ""

    @classmethod
    def read(cls, file: Path) -> SuiteFile:
        """Read `file`.

        Raises:
            NotFoundError: the file cannot be read.
            ConfigError: the file is not a suite.
        """
        try:
            content = file.read_bytes()
            raw = json.loads(content)
        except OSError as error:
            raise NotFoundError(f"cannot read the suite ({error.strerror})", field="gate", value=str(file)) from None
        except ValueError as error:
            raise ConfigError(f"not JSON ({error})", field="gate", value=str(file)) from None
        try:
            expectations = tuple(dict(item) for item in raw["expectations"])
            path = str(raw["meta"]["tidemill"]["path"]).strip("/")
            name = str(raw["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"not a suite ({error!r} is missing or has a wrong type)",
                field="gate",
                value=str(file),
                hint="set name, expectations and meta.tidemill.path",
            ) from None
        if path.endswith(".parquet"):
            raise ConfigError(
                "meta.tidemill.path is a file", field="gate", value=path, hint="name the folder that the suite covers"
            )
        if not expectations:
            raise ConfigError("a suite without expectations accepts all data", field="gate", value=str(file))
        return cls(name, path, expectations, hashlib.sha256(content).hexdigest())


class SuiteRunner:
    """Runs suites with Great Expectations, one at a time, because its context is not thread-safe."""

    def __init__(self, suites: Mapping[str, SuiteFile]) -> None:
        # Before the import, which reads it.
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("tidemill").add_dataframe_asset("file")
        self._batches = asset.add_batch_definition_whole_dataframe("all")
        self._lock = threading.Lock()
        self._suites = {key: _build_suite(gx.ExpectationSuite, suite) for key, suite in suites.items()}

    def judge(self, key: str, file: str, frame: pd.DataFrame) -> list[Reason]:
        """Return the reasons why `frame`, the content of `file`, fails the suite `key`; empty if it passes."""
        with self._lock:
            batch = self._batches.get_batch({"dataframe": frame})
            result = batch.validate(self._suites[key], result_format="SUMMARY")
        found = [_reason(file, item.to_json_dict()) for item in result.results if not item.success]
        if not result.success and not found:
            found = [Reason(f"{file}: the suite failed", file)]
        return found


def _build_suite(suite_class: Any, suite: SuiteFile) -> Any:
    """Return Great Expectations' suite object with all expectations.

    The library only logs unknown expectations and skips them, which would be a hole in the gate.
    """
    try:
        built = suite_class(name=suite.name, expectations=[dict(item) for item in suite.expectations])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"an expectation is invalid ({error})", field="gate", value=suite.name) from None
    if len(built.expectations) != len(suite.expectations):
        known = {item.configuration.type for item in built.expectations}
        unknown = [str(item.get("type")) for item in suite.expectations if item.get("type") not in known]
        raise ConfigError("unknown expectations", field="gate", value=unknown or suite.name)
    return built


def _reason(file: str, item: Mapping[str, Any]) -> Reason:
    config = cast("dict[str, Any]", item["expectation_config"])
    kwargs = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    column = kwargs.pop("column", None)
    observed = _observed(item)
    where = f"{file}: column {column}" if column else file
    arguments = ", ".join(f"{key}={_short(value)}" for key, value in kwargs.items())
    message = f"{where}: {config['type']}({arguments}) failed, found {_short(observed)}"
    return Reason(message, file, str(config["type"]), column, observed)


def _observed(item: Mapping[str, Any]) -> Any:
    result = cast("dict[str, Any]", item.get("result") or {})
    if mismatched := (result.get("details") or {}).get("mismatched"):
        return mismatched
    if "observed_value" in result:
        return result["observed_value"]
    if "unexpected_count" in result:
        values = list(dict.fromkeys(str(value) for value in result.get("partial_unexpected_list") or []))
        return {"rows": result["unexpected_count"], "examples": values[:_OBSERVED_LIMIT]}
    return _exception(cast("dict[str, Any]", item.get("exception_info") or {}))


def _exception(info: Mapping[str, Any]) -> str:
    """Return the library's message for a check that raised an exception, such as for a missing column."""
    nested = [value for value in info.values() if isinstance(value, dict)]
    messages = [str(value.get("exception_message")) for value in (nested or [info])]
    return messages[0].strip() if messages else "the check failed without a message"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."
