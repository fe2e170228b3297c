"""A Great Expectations suite, and its verdict on one file.

The import of Great Expectations takes seconds and 200 MB, so it happens in `Suites.load`, in the service alone.
"""

from __future__ import annotations

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

__all__ = ["Reason", "SuiteFile", "SuiteRunner"]

_OBSERVED_LIMIT = 10


@dataclass(frozen=True)
class Reason:
    """Why a file is refused.

    Attributes:
        message: one sentence.
        file: path of the file within the repository.
        expectation: the type of the expectation which was not met, or what else was wrong.
        column: the column it is about, if one.
        observed: what was found instead.
    """

    message: str
    file: str = ""
    expectation: str = ""
    column: str | None = None
    observed: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class SuiteFile:
    """A suite as it stands in its file: Great Expectations' own JSON, with the path it guards in `meta.tidemill`.

    Attributes:
        name: name of the suite.
        path: path within the repository; the Parquet files below it are judged.
        expectations: the raw expectations, `type` and `kwargs` each.
    """

    name: str
    path: str
    expectations: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, file: Path) -> SuiteFile:
        """Read `file`.

        Raises:
            NotFoundError, ConfigError: it is not there, or no suite.
        """
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
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
                f"not a suite ({error!r} is missing or of a wrong type)",
                field="gate",
                value=str(file),
                hint="it needs name, expectations and meta.tidemill.path",
            ) from None
        if not expectations:
            raise ConfigError("a suite without expectations guards nothing", field="gate", value=str(file))
        return cls(name, path, expectations)


class SuiteRunner:
    """Runs suites with Great Expectations; one at a time, since its context is not made for threads."""

    def __init__(self, suites: Mapping[str, SuiteFile]) -> None:
        # Before the import: it reads this when it is imported.
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("tidemill").add_dataframe_asset("file")
        self._batches = asset.add_batch_definition_whole_dataframe("all")
        self._lock = threading.Lock()
        self._suites = {key: _built(gx.ExpectationSuite, suite) for key, suite in suites.items()}

    def judge(self, key: str, file: str, frame: pd.DataFrame) -> list[Reason]:
        """Return why `frame`, the content of `file`, does not meet the suite `key`; empty when it does."""
        with self._lock:
            batch = self._batches.get_batch({"dataframe": frame})
            result = batch.validate(self._suites[key], result_format="SUMMARY")
        found = [_reason(file, item.to_json_dict()) for item in result.results if not item.success]
        if not result.success and not found:
            found = [Reason(f"{file}: the suite was not met", file)]
        return found


def _built(suite_class: Any, suite: SuiteFile) -> Any:
    """Return Great Expectations' own object, complete.

    The library logs an expectation which it does not know and goes on without it: a gate with a hole in it.
    """
    try:
        built = suite_class(name=suite.name, expectations=[dict(item) for item in suite.expectations])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"an expectation is not valid ({error})", field="gate", value=suite.name) from None
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
    asked = ", ".join(f"{key}={_short(value)}" for key, value in kwargs.items())
    message = f"{where}: {config['type']}({asked}) is not met, found {_short(observed)}"
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
    """Return the library's words for a check which could not be made, for example on a column that is missing."""
    nested = [value for value in info.values() if isinstance(value, dict)]
    messages = [str(value.get("exception_message")) for value in (nested or [info])]
    return messages[0].strip() if messages else "a check which failed"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."
