"""The report in Chromium, opened from a file, on the screens of a phone and of a desktop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import chromium
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from stages.workspace import paths
from tests.stages.test_test import BRIGHT, GREYS, prepare, run

SCREENS = {"phone": (360, 740), "desktop": (1280, 800)}
LONG_NAME = "a_tag_that_is_far_longer_than_a_narrow_phone_is_wide_" * 2
MISLABELLED = GREYS.index(240)
"""Labelled dark although it is the brightest."""
MISTAKES = 4
"""One false negative and three false positives; the worst two have a saliency overlay."""
ISSUES = 1
READABLE = 4.5
"""Minimum contrast of text, WCAG 2 level AA."""
TEXTS = """
const texts = [...document.body.querySelectorAll("*")].filter(element =>
  element.checkVisibility() && !element.closest("svg") &&
  [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim()));
const background = element => {
  const own = getComputedStyle(element).backgroundColor;
  return own === "rgba(0, 0, 0, 0)" ? background(element.parentElement) : own;
};
return texts.map(element => [element.innerText, getComputedStyle(element).color, background(element)]);
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with long names and a wrong label."""
    folder = tmp_path_factory.mktemp("report")
    prepare(folder)
    table = pq.read_table(folder / paths.SPLITS["test"])
    count = len(GREYS)
    columns = {
        "label": ["bright" if place in BRIGHT - {MISLABELLED} else "dark" for place in range(count)],
        "tags": [[LONG_NAME, "<b>"]] * count,
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, folder / paths.SPLITS["test"])
    run(folder)
    return folder / paths.REPORT


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium.started(tmp_path_factory.mktemp("profile")) as started:
        yield started


Open = Callable[..., webdriver.Chrome]


@pytest.fixture
def opened(browser: webdriver.Chrome, report: Path) -> Iterator[Open]:
    """Open the page, `opened("phone", scheme="dark")`, and check afterwards that the console is empty."""

    def opener(screen: str = "desktop", scheme: str = "light") -> webdriver.Chrome:
        width, height = SCREENS[screen]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen == "phone"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(report.as_uri())
        return browser

    yield opener
    assert chromium.logged(browser, "browser") == []


def after(page: webdriver.Chrome, heading: str) -> list[WebElement]:
    """The elements between a heading and the next of its level."""
    path = f"//h2[.='{heading}']/following-sibling::*[preceding-sibling::h2[1][.='{heading}']][not(self::h2)]"
    return page.find_elements(By.XPATH, path)


def within(page: webdriver.Chrome, heading: str, selector: str) -> list[WebElement]:
    """The elements of a section that match a CSS selector."""
    return [found for part in after(page, heading) for found in part.find_elements(By.CSS_SELECTOR, selector)]


def test_the_page_loads_nothing_else(opened: Open, report: Path) -> None:
    page = opened()
    assert {url for url in chromium.requested(page) if not url.startswith("data:image/jpeg;")} == {report.as_uri()}
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    loaded += page.execute_script(
        "return [...document.querySelectorAll('[src], link[href]')].map(e => e.src || e.href)"
    )
    assert loaded
    assert [url for url in loaded if not url.startswith("data:image/jpeg;")] == []


def test_every_picture_is_drawn(opened: Open) -> None:
    widths = opened().execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert widths == [32] * (MISTAKES + 2 + ISSUES)


def test_it_describes_the_model_its_metrics_and_its_mistakes(opened: Open) -> None:
    page = opened()
    assert "light" in page.find_element(By.TAG_NAME, "h1").text
    assert "probe on tf_efficientnet_lite0, 32 px" in page.find_element(By.CSS_SELECTOR, "h1 + p").text
    numbers = "\n".join(row.text for row in within(page, "Metrics", "tr"))
    for metric in ("AUROC", "Average precision", "F1", "Precision", "Recall", "False positive rate"):
        assert re.search(rf"^{metric} [01]\.\d{{3}} [01]\.\d{{3}} to [01]\.\d{{3}}$", numbers, re.MULTILINE), metric
    plots = within(page, "Curves", "svg")
    assert [min(plot.size.values()) > 200 for plot in plots] == [True] * 4
    mistakes = within(page, "Worst mistakes", "li")
    assert len(mistakes) == MISTAKES
    assert "false positive\nimage 17 by <script>alert(1)</script>" in mistakes[0].text
    assert [issue.text.split("\n")[0] for issue in within(page, "Likely label errors", "li")] == [
        "bright 0.941, not labelled bright"
    ]


def test_slices_are_unfolded_by_a_click(opened: Open) -> None:
    page = opened()
    tag = next(cell for cell in within(page, "Where it fails", "td") if cell.get_attribute("textContent") == LONG_NAME)
    assert not tag.is_displayed()
    page.find_element(By.TAG_NAME, "summary").click()
    assert tag.is_displayed()


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_wider_than_the_screen(opened: Open, screen: str) -> None:
    page = opened(screen)
    page.find_element(By.TAG_NAME, "summary").click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= SCREENS[screen][0]
    tables = "return [...document.querySelectorAll('.scroll')].map(table => [table.scrollWidth, table.clientWidth])"
    assert [wide for wide, seen in page.execute_script(tables) if wide > seen] == []


def filters(picture: WebElement) -> set[str]:
    """The CSS filters of a picture and its overlay."""
    return {image.value_of_css_property("filter") for image in picture.find_elements(By.TAG_NAME, "img")}


def becomes(page: webdriver.Chrome, picture: WebElement, wanted: str) -> None:
    """Wait for the end of the transition."""
    WebDriverWait(page, 10, 0.05).until(lambda _: filters(picture) == {wanted}, f"never {wanted}")


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("heading", ["Worst mistakes", "Likely label errors"])
def test_a_picture_is_blurred_until_clicked(opened: Open, screen: str, heading: str) -> None:
    page = opened(screen)
    picture, *others = within(page, heading, "label")
    assert filters(picture) == {"blur(16px)"}
    picture.click()
    becomes(page, picture, "none")
    assert all(filters(other) == {"blur(16px)"} for other in others)
    picture.click()
    becomes(page, picture, "blur(16px)")


def test_a_picture_can_be_shown_by_keyboard(opened: Open) -> None:
    page = opened()
    picture = within(page, "Worst mistakes", "label")[0]
    box = picture.find_element(By.TAG_NAME, "input")
    assert box.accessible_name == "show image 17"
    for _ in range(20):
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.switch_to.active_element == box:
            break
    assert page.switch_to.active_element == box
    assert picture.value_of_css_property("outline-style") == "solid", "the focus is visible"
    box.send_keys(Keys.SPACE)
    becomes(page, picture, "none")
    box.send_keys(Keys.SPACE)
    becomes(page, picture, "blur(16px)")


def luminance(colour: str) -> float:
    """Of `rgb(…)`, by WCAG 2."""
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_either_colour_scheme(opened: Open, scheme: str) -> None:
    page = opened(scheme=scheme)
    page.find_element(By.TAG_NAME, "summary").click()
    texts = page.execute_script(TEXTS)
    assert len(texts) > 50
    faint = []
    for text, colour, background in texts:
        darker, lighter = sorted(map(luminance, (colour, background)))
        if (lighter + 0.05) / (darker + 0.05) < READABLE:
            faint.append((text, colour, background))
    assert faint == []
