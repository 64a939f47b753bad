"""Chromium, to open pages from files in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

FLAGS = (
    "--headless",
    "--no-sandbox",  # CI is root in a container
    "--disable-dev-shm-usage",  # which is small there
    "--disable-gpu",
    # Nothing but the page should send requests.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def started(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser whose console and requests are logged; without Chromium the test is skipped, or fails in CI."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        missing = "the tests of pages need Chromium: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With no path Selenium would download a driver.
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        browser.get("about:blank")
        logged(browser, "performance")  # drops the requests of the browser's own first page
        yield browser
    finally:
        browser.quit()


def logged(browser: webdriver.Chrome, log: str) -> list[dict[str, Any]]:
    """The entries of a log since it was last read."""
    entries: list[dict[str, Any]] = browser.get_log(log)  # type: ignore[no-untyped-call]
    return entries


def requested(browser: webdriver.Chrome) -> list[str]:
    """The addresses requested since the log was last read."""
    messages = [json.loads(entry["message"])["message"] for entry in logged(browser, "performance")]
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
