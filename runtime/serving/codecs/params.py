"""Reads the inference parameters of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from ..contract.columns import InvalidValueError
from ..contract.field_errors import invalid_field, join_path, printable, raise_field_errors, show_value
from ..contract.model_contract import Contract
from ..http.errors import FieldError


def read_params(contract: Contract, given: Any, at: str = "params") -> Mapping[str, Any] | None:
    """Return the parameters that the model gets for `given`, the member `at` of a request.

    Raises:
        Problem: 422: unknown or invalid parameters; the errors name them, and the known ones.
    """
    if given is None or given == {}:
        return contract.default_params
    if not isinstance(given, dict):
        raise invalid_field(at, f"expected an object, got {show_value(given)}")
    known = {param.name: param for param in contract.params or ()}
    takes = f"the model takes {', '.join(map(printable, known))}" if known else "the model takes no parameters"
    errors: list[FieldError] = []
    params = dict(contract.default_params or {})
    for name, value in cast("dict[str, Any]", given).items():
        if name not in known:
            errors.append(FieldError(join_path(at, name), f"unknown parameter; {takes}"))
            continue
        try:
            params[name] = known[name].convert(value)
        except InvalidValueError as error:
            text = printable(json.dumps(value, ensure_ascii=False))
            errors.append(FieldError(join_path(at, name), f"{error}; the value is {text}; {takes}"))
    raise_field_errors(errors)
    return params
