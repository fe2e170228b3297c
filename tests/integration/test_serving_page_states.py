"""The pages of the model server in a browser, with a stand-in server that sets their state."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from tidemill.runtime.serving.contract.field_errors import printable as spoken
from tidemill.runtime.serving.telemetry.status_schema import ColumnState

from tests.support.browser import Browser, browser
from tests.support.page import CONTRAST, DESCRIPTION, HOSTILE, KEY, SHADOW, UNLABELLED, StandIn, rates, stand_in, status

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def page(window: Browser, server: StandIn) -> Browser:
    """The page at `/`, which has no key yet."""
    server.status, server.answer, server.ill = status(), (200, {}), False
    server.bodies.clear()
    window.size(1280, 900)
    window.scheme("light")
    window.open(server.url)
    window.forget()
    window.open(server.url)
    return window


@pytest.fixture
def opened(page: Browser) -> Browser:
    """The page at `/`, which shows the state."""
    enter(page)
    page.wait(lambda: page.text("h1") != "Model server")
    return page


def enter(page: Browser, key: str = KEY) -> None:
    page.wait(lambda: page.find("#gate").is_displayed())
    page.find("#key").send_keys(f"{key}\n")


def shown(page: Browser, selector: str, text: str) -> None:
    page.wait(lambda: text in page.text(selector))


def facts(page: Browser, selector: str) -> dict[str, str]:
    """Return what a list of facts says."""
    names = [name.text for name in page.all(f"{selector} dt")]
    return dict(zip(names, [value.text for value in page.all(f"{selector} dd")], strict=True))


def test_the_shell_holds_nothing_and_asks_for_the_key(page: Browser, server: StandIn) -> None:
    before = server.asked
    page.wait(lambda: page.find("#gate").is_displayed())
    assert page.run("return document.activeElement.id") == "key"
    assert not page.find("#content").is_displayed()
    assert server.asked == before
    assert page.listen() == []
    assert page.hosts() == {f"127.0.0.1:{server.port}"}


def test_a_wrong_key_is_refused_and_the_right_one_kept_for_the_tab(page: Browser, server: StandIn) -> None:
    enter(page, "wrong")
    shown(page, "#key-error", "does not accept this key")
    assert page.find("#key").get_attribute("aria-invalid") == "true"
    assert page.run("return sessionStorage.length") == 0
    enter(page, "two words")
    shown(page, "#key-error", "without spaces")
    page.find("#key").clear()
    enter(page)
    shown(page, "h1", "flights")
    page.open(server.url)
    shown(page, "h1", "flights")
    assert not page.find("#gate").is_displayed()
    assert page.run("return localStorage.length") == 0
    assert page.run("return document.cookie") == ""
    page.find("#forget").click()
    page.wait(lambda: page.find("#gate").is_displayed())
    assert page.text("#key-error") == ""
    assert page.run("return sessionStorage.length") == 0
    assert not page.find("#content").is_displayed()


def test_what_serves_is_said_with_its_lineage(opened: Browser, server: StandIn) -> None:
    assert opened.text("#serves") == "version 7 as champion"
    assert opened.run("return document.title").startswith("flights")
    what = facts(opened, "#what")
    assert (what["Version"], what["Output"], what["Data"]) == ("7", "score", "flights")
    assert what["Engine"].splitlines() == ["tl2cgen, compiled", "within 6e-16 of the model itself on 1000 rows"]
    assert (what["Git commit"], what["Data commit"]) == ("decade" * 6, "c0ffee" * 10)
    assert (what["roc_auc"], what["rows"], what["loss"]) == ("0.71723", "327,346", "1.25e-7")
    assert what["gain"] == "not a number"
    state = facts(opened, "#state")
    assert state["Registry"] == "reachable"
    assert state["Capture"] == "123,456 rows written, 3 dropped"
    assert state["Disagreement"].splitlines() == ["0.0123", "mean absolute difference"]
    assert opened.text("#ready") == "ready"
    assert "4242" in opened.text("#workers")
    assert opened.listen() == []
    assert opened.hosts() == {f"127.0.0.1:{server.port}"}


def test_trust_in_pickles_is_shown(opened: Browser, server: StandIn) -> None:
    assert "Trust" not in facts(opened, "#state")
    server.status = status(trust=["pickle"])
    opened.wait(lambda: "Trust" in facts(opened, "#state"))
    assert facts(opened, "#state")["Trust"].split()[0] == "pickle"


def test_a_swap_and_a_failure_appear_by_themselves(opened: Browser, server: StandIn) -> None:
    serving = server.status["serving"]
    assert serving
    swaps = [
        {"at": "2026-11-25T09:00:00Z", "from": "8", "to": "9", "seconds": 1.5, "error": "column extra is new"},
        {"at": "2026-11-25T08:30:00Z", "from": "7", "to": "8", "seconds": 2.25, "error": None},
        *server.status["swaps"],
    ]
    field = opened.find("#field-0")
    field.clear()
    field.send_keys("77")
    server.status = status(
        serving={**serving, "version": "8", "example": serving["example"][::-1]},
        swaps=swaps,
        error="version 9 cannot serve: column extra is new",
        registry="unreachable",
    )
    shown(opened, "#serves", "version 8")
    assert [row.text for row in opened.all("#swaps tbody td:nth-child(3)")] == ["9", "8", "7"]
    assert opened.text("#swaps tbody tr:first-child td:last-child").split("\n") == ["failed", "column extra is new"]
    assert "2.25 s" in opened.text("#swaps tbody tr:nth-child(2)")
    assert opened.text("#ready") == "ready, with a problem"
    assert opened.text("#error") == "version 9 cannot serve: column extra is new"
    assert facts(opened, "#state")["Registry"] == "unreachable"
    assert field.get_attribute("value") == "77", "a swap to the same columns took away what was typed"


def test_a_server_without_a_model_says_so(page: Browser, server: StandIn) -> None:
    server.status = status(
        alias=None, ready=False, serving=None, shadow=None, capture=None, workers=[], swaps=[], registry="none"
    )
    enter(page)
    shown(page, "#ready", "not ready")
    assert page.text("#serves") == "no version"
    assert page.text("#try") == page.text("#what") == "No version is served yet."
    assert facts(page, "#state") == {"Registry": "none: a folder is served", "Capture": "off", "Shadow": "none"}
    server.status = status()
    shown(page, "#serves", "version 7 as champion")
    assert len(page.all("#try .field")) == 7


def test_the_charts_move(opened: Browser, server: StandIn) -> None:
    charts = opened.all("#charts figure")
    assert [chart.find_element("css selector", "h3").text for chart in charts] == ["Requests", "Latency", "Batch size"]
    before = opened.find("#charts path.a").get_attribute("d")
    server.status = status(rates=rates(lambda age: 40 if age <= 10 else 20 if age % 60 < 30 else 0))
    shown(opened, "#charts figure:nth-child(1) .now", "40 /s")
    assert opened.find("#charts path.a").get_attribute("d") != before
    assert "2 ms p50" in opened.text("#charts figure:nth-child(2) .now")
    assert "7.5 ms p99" in opened.text("#charts figure:nth-child(2) .now")
    assert "1.5 rows per call" in opened.text("#charts figure:nth-child(3) .now")
    latency = opened.find("#charts figure:nth-child(2) svg")
    assert "p99 7.5 ms" in str(latency.get_attribute("aria-label"))
    line = str(opened.find("#charts figure:nth-child(2) path.a").get_attribute("d"))
    assert line.count("M") == 6, "seconds without requests have no latency, and no line"
    assert re.fullmatch(r"[MLh\d. ]+", line), line


def test_a_chart_says_the_second_which_is_pointed_at(opened: Browser, server: StandIn) -> None:
    from selenium.webdriver import ActionChains

    server.status = status(rates=rates(lambda age: 10 if age > 150 else 30))
    shown(opened, "#charts figure .now", "30 /s")
    svg = opened.find("#charts svg")
    ActionChains(opened.driver).move_to_element_with_offset(svg, -100, 0).perform()
    shown(opened, "#charts figure .now", "10 /s")
    assert opened.text("#charts figure .axis span:last-child") != "now"
    ActionChains(opened.driver).move_to_element(opened.find("h1")).perform()
    shown(opened, "#charts figure .now", "30 /s")


def test_the_form_sends_what_was_typed_and_shows_the_answer(opened: Browser, server: StandIn) -> None:
    server.answer = (200, {"predictions": [{"score": 0.7341987654}], "version": "7", "request_id": "0199-id"})
    opened.find("#try button[type=submit]").click()
    shown(opened, "#try .answer", "0.7341987654")
    assert {"Version": "7", "Request": "0199-id"}.items() <= facts(opened, "#try .answer").items()
    assert "ms" in facts(opened, "#try .answer")["Took"]
    # Digits are as they were: a number of JavaScript would have become ...992.
    [body] = server.bodies
    assert body == (
        '{"rows":[{"distance":1400.5,"hour":9007199254740993,"carrier":"UA","wind":null,"night":true,'
        '"planned":"2013-07-01T12:00:00Z","embedding":[0.5,1]}]}'
    )
    assert "curl 'http://127.0.0.1:" in str(opened.find(".answer details:last-child pre").get_attribute("textContent"))
    assert KEY not in str(opened.find("body").get_attribute("textContent"))
    opened.find("#try .actions button:last-child").click()
    assert not opened.find("#field-2").is_enabled()
    for position, text in ((0, "1e400"), (1, "two"), (3, ""), (5, "now"), (6, "{")):
        opened.find(f"#field-{position}").clear()
        opened.find(f"#field-{position}").send_keys(text)
    # Enter sends, too.
    opened.find("#field-0").send_keys("\n")
    opened.wait(lambda: len(server.bodies) == 2)
    assert server.bodies[1] == (
        '{"rows":[{"distance":1e400,"hour":"two","carrier":null,"wind":null,"night":null,"planned":"now",'
        '"embedding":"{"}]}'
    )
    opened.find("#try .null input").click()
    opened.find("#field-2").send_keys('"quoted"')
    opened.find("#try button[type=submit]").click()
    opened.wait(lambda: len(server.bodies) == 3)
    assert json.loads(server.bodies[2].replace("1e400", "0"))["rows"][0]["carrier"] == '"quoted"'


def test_errors_stand_beside_their_fields(opened: Browser, server: StandIn) -> None:
    errors = [
        {"field": "rows[0].hour", "message": "wants an integer"},
        {"field": "rows[0].carrier", "message": "<b>too</b> long"},
        {"field": "event_time", "message": "is not a time"},
    ]
    server.answer = (422, {"detail": "rows[0].hour: wants an integer, and 2 more", "errors": errors, "request_id": "i"})
    opened.find("#try button[type=submit]").click()
    shown(opened, "#try .answer", "422: rows[0].hour: wants an integer, and 2 more")
    assert opened.text("#field-1-error") == "wants an integer"
    assert opened.find("#field-1").get_attribute("aria-invalid") == "true"
    assert opened.find("#field-1").get_attribute("aria-describedby") == "field-1-error"
    assert opened.run("return document.activeElement.id") == "field-1"
    assert opened.text("#field-2-error") == "<b>too</b> long"
    assert opened.text("#try .answer ul") == "event_time: is not a time"
    opened.find("#field-1").send_keys("1")
    assert opened.text("#field-1-error") == ""
    server.answer = (503, {"detail": "the queue is full", "request_id": "i"})
    opened.find("#try button[type=submit]").click()
    shown(opened, "#try .answer", "503: the queue is full")
    assert opened.text("#field-2-error") == ""


def test_hostile_names_are_text(page: Browser, server: StandIn) -> None:
    for word in HOSTILE:
        columns: list[ColumnState] = [{"name": word, "kind": "string", "required": False}]
        columns += [{"name": f"{other} 2", "kind": word, "required": True} for other in HOSTILE]
        serving = {
            "version": word,
            "run_id": word,
            "loaded_at": word,
            "engine": word,
            "compiled": False,
            "engine_note": word,
            "merges_requests": False,
            "merging_note": word,
            "output": word,
            "lineage": {"git_commit": word, "lake_repository": word, "lake_commit": word},
            "metrics": {word: 0.5},
            "columns": columns,
            "example": [{word: word, f"{word} 2": word}],
        }
        server.status = status(
            model=word,
            alias=word,
            error=word,
            registry=word,
            serving=serving,
            shadow={**SHADOW, "alias": word, "version": word, "disagreement_is": word},
            workers=[{"pid": 1, "version": word, "engine": word, "ready": True, "requests": 1}],
            swaps=[{"at": word, "from": word, "to": word, "seconds": 1, "error": word}],
        )
        server.answer = (422, {"detail": word, "errors": [{"field": f"rows[0].{spoken(word)}", "message": word}]})
        page.forget()
        page.open(server.url)
        enter(page)
        page.wait(lambda: page.find("#field-0").is_displayed())
        assert page.find("h1").get_attribute("textContent") == word
        assert page.find("#try label").get_attribute("textContent") == word
        assert page.find("#field-0").get_attribute("value") == word
        page.find("#try button[type=submit]").click()
        page.wait(lambda: page.find("#try .answer").is_displayed())
        assert page.find("#field-0-error").get_attribute("textContent") == word
        assert json.loads(server.bodies[-1])["rows"][0][word] == word
        server.answer = (200, {"predictions": [{"prediction": word}], "version": word, "request_id": word})
        page.find("#try button[type=submit]").click()
        page.wait(lambda word=word: page.find("#try .value").get_attribute("textContent") == word)
        assert page.run("return window.hit") is None
        assert page.run("return document.querySelectorAll('script, img, iframe, b').length") == 1
        for width in (360, 1280):
            page.size(width, 900)
            assert page.overflow() == [], f"{width} wide with {word[:40]}"
    assert page.hosts() == {f"127.0.0.1:{server.port}"}


def test_text_which_gets_into_the_page_as_html_would_not_run_either(opened: Browser) -> None:
    refused = """try { document.body.innerHTML = '<img src=x onerror="window.hit = 1">'; return 'taken'; }
        catch (error) { return error.name; }"""
    assert opened.run(refused) == "TypeError"
    opened.run("""const script = document.createElement('script');
        try { script.text = 'window.hit = 1'; document.body.append(script); } catch { /* as it should be */ }""")
    assert opened.run("return window.hit") is None
    opened.listen()
    opened.console.clear()


def test_a_hundred_columns_can_be_searched(page: Browser, server: StandIn) -> None:
    serving = server.status["serving"]
    assert serving
    columns = [{"name": f"column {position}", "kind": "double", "required": True} for position in range(100)]
    server.status = status(serving={**serving, "columns": columns, "example": []})
    enter(page)
    page.wait(lambda: len(page.all("#try .field")) == 100)
    search = page.find("#try input[type=search]")
    search.send_keys("COLUMN 42\n")
    assert [field.text.split("\n")[0] for field in page.all("#try .field") if field.is_displayed()] == ["column 42"]
    assert server.bodies == []


def test_an_answer_which_does_not_come_is_told_and_waited_for(opened: Browser, server: StandIn) -> None:
    server.ill = True
    shown(opened, "#trouble", "answered 502")
    assert opened.text("h1") == "flights"
    server.ill = False
    opened.wait(lambda: not opened.find("#trouble").is_displayed(), seconds=60)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1280])
def test_it_can_be_read_everywhere(page: Browser, server: StandIn, scheme: str, width: int) -> None:
    page.size(width, 800)
    page.scheme(scheme)
    bright = page.run("return Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) > 128")
    assert bright == (scheme == "light")
    assert page.run(CONTRAST) == []
    assert page.overflow() == []
    server.status = status(error="version 9 cannot serve", registry="unreachable", rates=rates(lambda _: 25))
    server.answer = (422, {"detail": "wrong", "errors": [{"field": "rows[0].hour", "message": "wants an integer"}]})
    enter(page)
    page.wait(lambda: page.find("#field-0").is_displayed())
    page.find("#try button[type=submit]").click()
    shown(page, "#field-1-error", "wants an integer")
    assert page.run(CONTRAST) == []
    assert page.run(UNLABELLED) == []
    assert page.overflow() == []


def test_the_reference_shows_routes_schemas_and_examples(page: Browser, server: StandIn) -> None:
    server.openapi = DESCRIPTION
    page.open(f"{server.url}docs")
    enter(page)
    shown(page, "h1", "flights")
    predict = page.text("[id='post-%2Fpredict']")
    for text in ("POST", "/predict", "Answer rows", "x-request-id string in header", "rows list of Row required"):
        assert text in predict
    assert "Understood and wrong" in predict
    page.find("[id='post-%2Fpredict'] details:not(.answer-code) summary").click()
    assert '"distance": 1' in page.text("[id='post-%2Fpredict'] pre")
    assert "distance number or null, ≥ 0\nin miles" in page.text("#schema-Row")
    page.find("[id='post-%2Fpredict'] .members a").click()
    assert page.run("return location.hash") == "#schema-Row"
    assert page.run("return window.hit") is None
    assert page.run("return document.querySelectorAll('script, img, iframe').length") == 1
    for width in (320, 1280):
        page.size(width, 800)
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            assert page.run(CONTRAST) == []
        assert page.overflow() == []
    assert page.listen() == []
    assert page.hosts() == {f"127.0.0.1:{server.port}"}
