"""The pages of the real model server in a real browser: two workers, a real registry, a model with hostile names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.support.browser import Browser, browser
from tests.support.servers import Server
from tests.support.serving import ModelServer, Registry, model_server, small_pipeline
from tests.support.steps import in_order

pytestmark = pytest.mark.integration

TAGS = {"tidemill.lake.repository": "flights", "tidemill.lake.commit": "c0ffee", "tidemill.git.commit": "decade"}
COLUMN = "<img src=x onerror='window.hit = 1'>"
VALUE = "</option><script>window.hit = 1</script>\u202e"


def hostile_pipeline(seed: int, *more: str) -> tuple[Any, Any]:
    """Return a pipeline, and its frame, in which a column and a category are called what would run as HTML."""
    from sklearn.base import clone

    pipeline, frame = small_pipeline(seed, ("distance", "hour", "carrier", *more))
    late = pipeline.predict(frame)
    frame = frame.rename(columns={"carrier": COLUMN}).replace({COLUMN: {"UA": VALUE}})
    fresh = clone(pipeline)
    encode = fresh.steps[0][1]
    encode.set_params(transformers=[(name, step, [COLUMN]) for name, step, _ in encode.transformers])
    return fresh.fit(frame, late), frame


@pytest.fixture(scope="module")
def registry(shared_mlflow: Server) -> Registry:
    return Registry(shared_mlflow, "flights-page")


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    registry.client.create_experiment(registry.model)
    registry.client.create_registered_model(registry.model)
    with model_server(tmp_path_factory.mktemp("serving"), registry, workers=2) as one:
        yield one


@pytest.fixture(scope="module")
def page(served: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        one.size(1280, 900)
        one.open(f"{served.url}/")
        yield one


def shown(page: Browser, selector: str, text: str, seconds: float = 20) -> None:
    page.wait(lambda: text in page.text(selector), seconds)


def fact(page: Browser, within: str, name: str) -> str:
    """Return what the list of facts in `within` says of `name`."""
    names = [one.text for one in page.all(f"{within} dt")]
    return page.all(f"{within} dd")[names.index(name)].text


def without_a_key_nothing_is_shown(page: Browser, served: ModelServer) -> None:
    page.wait(lambda: page.find("#gate").is_displayed())
    assert page.listen() == []
    page.find("#key").send_keys("wrong\n")
    shown(page, "#key-error", "does not take this key")
    assert served.model not in page.text("body")
    page.listen()
    page.console.clear()


def a_server_without_a_champion_says_so(page: Browser, served: ModelServer) -> None:
    served.wait(lambda: served.get("/readyz").json()["registry"] == "reachable")
    page.find("#key").send_keys(f"{served.key}\n")
    shown(page, "#ready", "not ready")
    shown(page, "#error", "no alias champion")
    assert page.text("h1") == served.model
    assert page.text("#serves") == "no version as champion"


def the_champion_appears_with_its_lineage(page: Browser, registry: Registry, served: ModelServer) -> None:
    version = registry.register(*hostile_pipeline(1), tags=TAGS)
    registry.alias(version)
    shown(page, "#serves", f"version {version} as champion", 120)
    served.wait(lambda: all(worker["version"] == version for worker in served.get("/readyz").json()["workers"]))
    page.wait(lambda: [cell.text for cell in page.all("#workers td:nth-child(4)")] == ["ready", "ready"])
    assert page.text("#ready") == "ready"
    assert fact(page, "#what", "Git commit") == "decade"
    assert (fact(page, "#what", "Data"), fact(page, "#what", "Data commit")) == ("flights", "c0ffee")
    assert fact(page, "#what", "Engine").startswith(served.get("/readyz").json()["engine"])
    assert fact(page, "#state", "Registry") == "reachable"
    assert "serves" in page.text("#swaps tbody tr:first-child")


def the_form_answers_as_the_model_does(page: Browser, registry: Registry, served: ModelServer) -> None:
    import pandas as pd

    labels = [str(label.get_attribute("textContent")) for label in page.all("#try .name label")]
    assert labels == ["distance", "hour", COLUMN]
    for position, value in enumerate(("1400.5", "17", VALUE)):
        page.run("arguments[0].value = arguments[1]", page.find(f"#field-{position}"), value)
    page.find("#try button[type=submit]").click()
    page.wait(lambda: page.find("#try .value").is_displayed())
    [version] = {str(one) for one in registry.models}
    row = pd.DataFrame([{"distance": 1400.5, "hour": 17, COLUMN: VALUE}])
    right = registry.models[version].predict_proba(row)[0, 1]
    assert float(page.text("#try .value")) == pytest.approx(right, abs=1e-9)
    assert fact(page, "#try .answer", "Version") == version
    assert UUID(fact(page, "#try .answer", "Request")).version == 7
    assert page.listen() == []


def wrong_values_are_told_beside_their_fields(page: Browser) -> None:
    page.run("arguments[0].value = 'far'", page.find("#field-0"))
    page.run("arguments[0].value = '1.5'", page.find("#field-1"))
    page.find("#try button[type=submit]").click()
    shown(page, "#field-0-error", "wants a number")
    assert "wants an integer" in page.text("#field-1-error")
    assert page.text("#field-2-error") == ""
    assert page.text("#try .value").startswith("422: rows[0].distance")
    page.listen()
    page.console.clear()


def the_charts_follow_the_traffic(page: Browser, served: ModelServer) -> None:
    before = page.find("#charts path.a").get_attribute("d")
    row = {"distance": 1.0, "hour": 1, COLUMN: VALUE}
    with served.client() as client:

        def busy() -> bool:
            assert client.post("/predict", json={"rows": [row]}).status_code == 200
            words = page.text("#charts figure:nth-child(1) .now").split()
            return float(words[0].replace(",", "")) >= 1

        page.wait(busy)
    assert page.find("#charts path.a").get_attribute("d") != before
    page.wait(lambda: page.text("#charts figure:nth-child(2) .now")[0].isdigit())
    page.wait(lambda: page.text("#charts figure:nth-child(3) .now")[0].isdigit())


def swaps_and_failures_appear(page: Browser, registry: Registry, served: ModelServer) -> None:
    [first] = registry.models
    second = registry.register(*hostile_pipeline(2))
    registry.alias(second)
    shown(page, "#serves", f"version {second} as champion", 120)
    cells = [cell.text for cell in page.all("#swaps tbody tr:first-child td")]
    assert cells[1:3] == [first, second]
    assert cells[4] == "serves"
    third = registry.register(*hostile_pipeline(3, "extra"))
    registry.alias(third)
    shown(page, "#error", f"version {third} cannot serve", 120)
    assert "column extra is new and required" in page.text("#swaps tbody tr:first-child")
    assert page.text("#ready") == "ready, with a problem"
    assert page.text("#serves") == f"version {second} as champion"
    registry.alias(second)
    page.wait(lambda: page.text("#ready") == "ready")


def the_reference_is_that_of_the_model(page: Browser, served: ModelServer) -> None:
    page.open(f"{served.url}/docs")
    page.wait(lambda: page.find("#operations").is_displayed())
    listed = [link.text for link in page.all("#contents li")]
    for route in ("POST /predict", "POST /invocations", "POST /labels", "GET /status"):
        assert route in listed
    assert COLUMN in str(page.find("#operations").get_attribute("textContent"))
    page.find("#save")
    assert page.listen() == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def nothing_hostile_ran_and_nobody_else_was_asked(page: Browser, served: ModelServer, path: str) -> None:
    page.open(f"{served.url}{path}")
    page.wait(lambda: page.find("#content").is_displayed())
    assert page.run("return window.hit") is None
    assert page.run("return document.querySelectorAll('script, img').length") == 1
    for width in (360, 1280):
        page.size(width, 900)
        assert page.overflow() == []
    assert page.listen() == []
    assert page.hosts() == {f"127.0.0.1:{served.port}"}
    answer = served.get(path)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    with served.client() as client:
        again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get("/status", headers={"Authorization": ""}).status_code == 401


test_the_page_from_the_key_to_the_reference = in_order(
    without_a_key_nothing_is_shown,
    a_server_without_a_champion_says_so,
    the_champion_appears_with_its_lineage,
    the_form_answers_as_the_model_does,
    wrong_values_are_told_beside_their_fields,
    the_charts_follow_the_traffic,
    swaps_and_failures_appear,
    the_reference_is_that_of_the_model,
    nothing_hostile_ran_and_nobody_else_was_asked,
)
