"""The fast reader takes a part of what the exact one takes, and gets the same from it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill.runtime.serving.codecs.checks import read_event_times
from tidemill.runtime.serving.codecs.json_exact import read_document, read_records
from tidemill.runtime.serving.codecs.json_fast import FastReader
from tidemill.runtime.serving.codecs.json_strict import parse_json
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.settings import LimitSettings

from tests.support.protocols import LIMITS, MIXED, NUMBERS, ROW, contracts, damaged, documents, doubled, rows_of, texts

QUICK = settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))


def exactly(contract: Contract, body: bytes, limits: LimitSettings = LIMITS) -> Batch:
    return read_document(contract, parse_json(body, depth=limits.depth, text=limits.text), limits)


def plainly(batch: Batch) -> str:
    """Told apart by it are 1 and 1.0 and true, 0.0 and -0.0, and zones of times."""
    return repr((batch.rows, batch.values, batch.event_times, sorted(batch.absent), batch.index, batch.params))


def compare(contract: Contract, body: bytes, limits: LimitSettings = LIMITS) -> bool:
    """Hold the readers against each other; tell whether the fast one took the body."""
    reader = FastReader.of(contract)
    fast = reader.read_invocations(body, limits) if reader else None
    if fast is None:
        return False
    assert plainly(fast) == plainly(exactly(contract, body, limits))
    return True


@QUICK
@given(st.data())
def test_what_the_fast_reader_takes_the_exact_one_takes_too(data: st.DataObject) -> None:
    contract = data.draw(contracts())
    body = data.draw(documents(contract, odd=data.draw(st.sampled_from([0.0, 0.1]))).flatmap(texts))
    compare(contract, body)


@QUICK
@given(st.data())
def test_damaged_bodies_are_taken_by_both_or_by_the_exact_one(data: st.DataObject) -> None:
    contract = data.draw(st.sampled_from([MIXED, NUMBERS]))
    body = data.draw(documents(contract).flatmap(texts).flatmap(damaged))
    compare(contract, body)


@QUICK
@given(st.data())
def test_limits_hold_on_the_fast_path(data: st.DataObject) -> None:
    contract = data.draw(contracts())
    limits = LimitSettings(
        rows=data.draw(st.integers(1, 3)),
        columns=data.draw(st.integers(1, 5)),
        depth=data.draw(st.integers(2, 5)),
        text=data.draw(st.integers(1, 30)),
    )
    compare(contract, data.draw(documents(contract).flatmap(texts)), limits)


@QUICK
@given(st.data())
def test_rows_of_predict_are_read_alike(data: st.DataObject) -> None:
    contract = data.draw(contracts())
    rows = data.draw(rows_of(contract, data.draw(st.sampled_from([0.0, 0.1]))))
    body = data.draw(texts({"rows": rows}))
    if data.draw(st.booleans()):
        body = data.draw(damaged(body))
    reader = FastReader.of(contract)
    fast = reader.read_predict(body, LIMITS) if reader else None
    if fast is not None:
        document = parse_json(body, depth=LIMITS.depth, text=LIMITS.text)
        assert set(document) <= {"rows", "event_time"}
        exact = read_records(contract, document["rows"], "rows", LIMITS)
        times = read_event_times(document.get("event_time"), exact.rows)
        assert plainly(fast) == plainly(replace(exact, event_times=times))


def test_the_usual_bodies_are_read_fast() -> None:
    rows = [ROW, {**ROW, "temp": -1e-7, "note": None, "night": None, "built": None, "small": None}]
    short = {key: value for key, value in ROW.items() if value is not None and key not in ("note", "built", "half")}
    names = list(MIXED.names)
    usual: list[dict[str, Any]] = [
        {"dataframe_records": rows},
        {"dataframe_records": [short, ROW]},
        {"dataframe_records": rows, "event_time": "2013-07-01T12:00:00Z"},
        {"dataframe_records": rows, "event_time": ["2013-07-01T12:00:00Z", "2013-07-01T12:00:00Z"]},
        {"instances": rows},
        {"dataframe_split": {"columns": names, "data": [[row[name] for name in names] for row in rows]}},
        {"dataframe_split": {"columns": names[::-1], "data": [[row[name] for name in names[::-1]] for row in rows]}},
        {"dataframe_split": {"index": [0], "columns": names, "data": [[ROW[name] for name in names]]}},
        {"dataframe_split": {"index": [7], "columns": names, "data": [[ROW[name] for name in names]]}},
        {"dataframe_split": {"index": [7], "columns": names[::-1], "data": [[ROW[name] for name in names[::-1]]]}},
        {"dataframe_records": [short, short]},
    ]
    for document in usual:
        assert compare(MIXED, json.dumps(document).encode()), document
    unnamed = Contract(tuple(Column(str(at), "double") for at in range(2)), named=False)
    for split in (
        {"data": [[1, 2.5]]},
        {"columns": [0, 1], "data": [[1, 2.5]]},
        {"columns": ["0", "1"], "data": [[1, 2]]},
    ):
        assert compare(unnamed, json.dumps({"dataframe_split": split}).encode())
    assert compare(unnamed, b'{"instances": [[1, 2.5], [3, 4]]}')
    assert compare(unnamed, b'{"dataframe_records": [{"0": 1, "1": 2.5}]}')


def test_names_that_are_integers_are_read_fast() -> None:
    years = Contract(tuple(Column(str(year), "double", integer_name=True) for year in (2019, 2020)))
    for names in ([2019, 2020], ["2019", "2020"], [2019, "2020"]):
        assert compare(years, json.dumps({"dataframe_split": {"columns": names, "data": [[1, 2.5]]}}).encode())
    mixed = Contract((years.columns[0], Column("a", "double")))
    assert compare(mixed, b'{"dataframe_split": {"columns": [2019, "a"], "data": [[1, 2.5]]}}')
    texts_ = Contract((years.columns[0], Column("2020", "double")))
    assert not compare(texts_, b'{"dataframe_split": {"columns": [2019, 2020], "data": [[1, 2.5]]}}')


def test_a_key_which_comes_twice_is_never_overseen() -> None:
    bodies = [
        {"dataframe_records": [ROW, {key: value for key, value in ROW.items() if key != "note"}]},
        {"dataframe_records": [{key: value for key, value in ROW.items() if value is not None}]},
        {"instances": [ROW], "event_time": "2013-07-01T12:00:00Z"},
        {"dataframe_split": {"columns": list(ROW), "index": [0], "data": [list(ROW.values())]}},
    ]
    tried = 0
    for document in bodies:
        for text in doubled(json.dumps(document)):
            tried += 1
            assert not compare(MIXED, text.encode()), text
            try:
                exactly(MIXED, text.encode())
            except Problem as problem:
                assert problem.status == 400
                assert "twice" in problem.detail
            else:
                raise AssertionError(f"taken: {text}")
    assert tried > 30


def test_what_is_left_out_does_not_hide_what_comes_twice() -> None:
    contract = Contract((Column("a", "string", required=False), Column("b", "string", required=False)))
    # As many quotation marks as two columns have, once each.
    body = b'{"dataframe_records": [{"a": "x", "a": "y"}]}'
    assert body.count(b'"') == json.dumps({"dataframe_records": [{"a": "x", "b": "y"}]}).count('"')
    assert not compare(contract, body)
    assert not compare(contract, b'{"dataframe_records": [{"a": "x", "a": null, "b": null}]}')
    assert compare(contract, b'{"dataframe_records": [{"a": "x"}, {"b": "y"}, {}]}')


def test_text_with_quotation_marks_is_left_to_the_exact_reader() -> None:
    body = json.dumps({"dataframe_records": [{**ROW, "carrier": 'a "b"'}]}).encode()
    assert not compare(MIXED, body)
    assert exactly(MIXED, body).values[0][2] == 'a "b"'


def test_numbers_are_the_nearest_double_on_both_ways() -> None:
    for text in (
        "0.1", "1e23", "9007199254740993", "18446744073709551617", "2.2250738585072011e-308", "5e-324", "2e-324",
        "1.7976931348623157e308", "-0", "-0.0", "0e0", "1E+2", "123456789012345678901234567890",
        "0.500000000000000166533453693773481063544750213623046875", "7.2057594037927933e16", "9" * 308,
        "0." + "0" * 400 + "1", "1" + "0" * 308 + ".0", "4.35", "6929495644600919.5",
    ):  # fmt: skip
        assert compare(NUMBERS, f'{{"dataframe_records": [{{"a": {text}, "b": 1, "c": 1}}]}}'.encode()), text


def test_contracts_with_odd_names_are_left_to_the_exact_reader() -> None:
    for name in ('quo"te', "back\\slash", "line\nbreak", "\ud800"):
        assert FastReader.of(Contract((Column(name, "double"),))) is None
    for name in ("", "é", "with space", "type", "__class__", "f0", "self"):
        contract = Contract((Column(name, "double"),))
        assert compare(contract, json.dumps({"dataframe_records": [{name: 1}]}, ensure_ascii=False).encode())
