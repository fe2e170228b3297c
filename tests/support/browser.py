"""A real browser without a window, which tells what it asked for and what it complained of.

with browser(tmp_path) as chromium:
    chromium.open("http://127.0.0.1:8000/")
    chromium.find("h1").text
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    # Nothing but the loopback is there.
    "--proxy-server=direct://",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def _installed() -> tuple[str, str] | None:
    browsers = [found for name in _NAMES if (found := shutil.which(name))]
    driver = shutil.which("chromedriver")
    return (browsers[0], driver) if browsers and driver else None


def chromium() -> tuple[str, str]:
    """Return the browser and its driver; they are installed where that is possible, else the test is skipped."""
    found = _installed()
    if found is None and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # What it prints is shown by pytest where it fails, and at once with `-s`.
        for command in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"],
        ):
            print("+", *command, flush=True)
            if subprocess.run(command, env=environment, check=False).returncode:
                pytest.skip(f"no browser: {' '.join(command)} failed")
        found = _installed()
    if found is None:
        pytest.skip("no browser: neither chromium nor chromedriver is on PATH, and apt-get cannot install them here")
    return found


@dataclass
class Browser:
    """The browser of a test."""

    driver: Chrome
    console: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    def open(self, url: str) -> None:
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], T], seconds: float = 20) -> T:
        """Wait until `condition` returns something true, and return that; what is not there yet is not."""
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

        end = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except (NoSuchElementException, StaleElementReferenceException):
                pass
            assert time.monotonic() < end, f"waited in vain; the page says:\n{self.text('body')}\n{self.listen()}"
            time.sleep(0.05)

    def listen(self) -> list[str]:
        """Return what the console complained of so far, and note what was requested."""
        self.console += [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return self.console

    def hosts(self) -> set[str]:
        """Return whom the page asked for something, `host:port`."""
        self.listen()
        parts = [urlsplit(url) for url in self.requests]
        # `data:` is in the page itself, and `chrome:` the browser's own first tab.
        return {part.netloc for part in parts if part.scheme not in ("data", "chrome")}

    def forget(self) -> None:
        """Reset: no key, no console messages."""
        self.run("sessionStorage.clear()")
        self.listen()
        self.console.clear()
        self.requests.clear()

    def size(self, width: int, height: int) -> None:
        """Be a window of this size."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def scheme(self, name: str) -> None:
        """Be `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def overflow(self) -> list[str]:
        """Return what is wider than the window, so that the page would scroll sideways."""
        return self.run(
            """const wide = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= wide) return [];
            return [...document.body.querySelectorAll('*')]
              .filter((one) => one.getBoundingClientRect().right > wide + 1)
              .map((one) => `${one.tagName}.${one.className} ${one.textContent.slice(0, 40)}`);"""
        )

    def picture(self, path: Path) -> None:
        """Save the whole page as it looks."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run the browser with an empty profile in `folder`."""
    binary, driver_path = chromium()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both are named, so that Selenium looks for nothing on the network.
    driver = Chrome(options=options, service=Service(executable_path=driver_path))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
