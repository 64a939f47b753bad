"""The report in Chromium, opened from a file, on the screens of a phone and of a desktop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import chromium
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from stages.evaluation import report as rendering
from stages.workspace import paths
from tests.stages.evaluation import samples
from tests.stages.test_test import BRIGHT, GREYS, prepare, run

SCREENS = {"phone": (390, 844), "small": (320, 640), "desktop": (1280, 800)}
LONG_NAME = "a_tag_that_is_far_longer_than_a_narrow_phone_is_wide_" * 2
MISLABELLED = GREYS.index(240)
"""Labelled dark although it is the brightest."""
LINKED = GREYS.index(160)
"""The worst of the mistakes; its address is on the web."""
MISTAKES, RIGHT, ISSUES = 3, 2, 1
"""A false negative and two false positives; the worst two have a saliency overlay."""
READABLE, VISIBLE = 4.5, 3.0
"""Minimum contrast of text, and of the parts of a chart, by WCAG 2 level AA."""
TEXTS = """
const texts = [...document.body.querySelectorAll("*")].filter(element =>
  element.checkVisibility() && element.localName !== "title" &&
  [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim()));
const background = element => {
  const own = getComputedStyle(element).backgroundColor;
  return own === "rgba(0, 0, 0, 0)" ? background(element.parentElement) : own;
};
return texts.map(element => {
  const style = getComputedStyle(element);
  return [element.textContent, element.closest("svg") ? style.fill : style.color, background(element)];
});
"""
MARKS = """
const card = getComputedStyle(document.querySelector("section")).backgroundColor;
return [...document.querySelectorAll("svg :is(.line, .bin, .positive, .negative, .axis, .guide)")].map(mark => {
  const style = getComputedStyle(mark);
  return [mark.getAttribute("class"), style.fill === "none" ? style.stroke : style.fill, card];
});
"""
NOTHING = "\N{EN DASH}"
UNFOLD = "document.querySelectorAll('details').forEach(details => details.open = true)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outs of a run with long and hostile names and addresses, and a wrong label."""
    folder = tmp_path_factory.mktemp("report")
    prepare(folder)
    table = pq.read_table(folder / paths.SPLITS["test"])
    count = len(GREYS)
    urls = ["javascript:alert(1)", "http://127.0.0.1/1.png", 'http://sample.localhost/"><script>alert(1)</script>']
    columns = {
        "label": ["bright" if place in BRIGHT - {MISLABELLED} else "dark" for place in range(count)],
        "tags": [[LONG_NAME, "<b>", "</script><script>alert(1)</script>"]] * count,
        "url": [
            "https://board.example/img/'16\".png" if place == LINKED else urls[place % len(urls)]
            for place in range(count)
        ],
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, folder / paths.SPLITS["test"])
    run(folder)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    return folder / paths.REPORT


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium.started(tmp_path_factory.mktemp("profile")) as started:
        yield started


Open = Callable[..., webdriver.Chrome]


@pytest.fixture
def opened(browser: webdriver.Chrome, report: Path) -> Iterator[Open]:
    """Open the page, `opened("phone", scheme="dark")`, and check afterwards that the console is empty."""

    def opener(screen: str = "desktop", scheme: str = "light", page: Path = report) -> webdriver.Chrome:
        width, height = SCREENS[screen]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen != "desktop"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(page.as_uri())
        return browser

    yield opener
    assert chromium.logged(browser, "browser") == []


def section(page: webdriver.Chrome, name: str, selector: str) -> list[WebElement]:
    """The elements of a section that match a CSS selector."""
    return page.find_elements(By.CSS_SELECTOR, f"#{name} {selector}")


def text(element: WebElement) -> str:
    """What is written, even if it is folded away."""
    return str(element.get_attribute("textContent"))


def test_the_page_loads_nothing_else(opened: Open, report: Path) -> None:
    page = opened()
    assert {url for url in chromium.requested(page) if not url.startswith("data:image/jpeg;")} == {report.as_uri()}
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    loaded += page.execute_script(
        "return [...document.querySelectorAll('[src], link[href]')].map(e => e.src || e.href)"
    )
    assert loaded
    assert [url for url in loaded if not url.startswith("data:image/jpeg;")] == []


def test_links_open(opened: Open, report: Path) -> None:
    page = opened()
    links = [link.get_attribute("href") for link in page.find_elements(By.TAG_NAME, "a")]
    inside = {link.partition("#")[2] for link in links if link.startswith(f"{report.as_uri()}#")}
    assert inside == {element.get_attribute("id") for element in page.find_elements(By.TAG_NAME, "section")}
    files = [link for link in links if link.startswith("file:") and "#" not in link]
    assert len(files) == 3
    assert [link for link in files if not Path(unquote(urlsplit(link).path)).exists()] == []
    assert [link for link in links if not link.startswith("file:")] == ["https://board.example/img/'16%22.png"], (
        "a loopback address does not open on another machine, and a script's is none"
    )


def test_every_picture_is_drawn(opened: Open) -> None:
    widths = opened().execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert widths == [32] * (MISTAKES + 2 + RIGHT + ISSUES)


def test_it_opens_with_a_verdict_and_tells_of_the_model_and_its_mistakes(opened: Open) -> None:
    page = opened()
    header = page.find_element(By.TAG_NAME, "header")
    assert "policy light · probe on tf_efficientnet_lite0, 32 px · 12 test pictures" in header.text
    title = page.find_element(By.TAG_NAME, "h1").text
    assert re.fullmatch(r"(Finds|Misses) .* of what is bright: \d+ % at 1 % false alarms", title)
    assert "On new origins it has not been measured" in header.text
    assert "few positives (5 bright)" in header.text
    numbers = "\n".join(map(text, section(page, "threshold", "details tr")))
    for metric in ("AUROC", "Average precision", "F1", "Precision", "Recall", "False positive rate"):
        assert re.search(rf"^{metric}[01]\.\d{{3}}[01]\.\d{{3}} to [01]\.\d{{3}}$", numbers, re.MULTILINE), metric
    plots = section(page, "threshold", "svg")
    assert [min(plot.size.values()) > 200 for plot in plots] == [True] * 4
    mistakes = section(page, "mistakes", "li")
    assert len(mistakes) == MISTAKES
    assert "false alarm bright 0.627\nimage 16 by <script>alert(1)</script>" in mistakes[0].text
    assert "</script><script>alert(1)</script>" in mistakes[0].text
    assert [issue.text.split("\n")[0] for issue in section(page, "labels", "li")] == [
        "not labelled bright bright 0.941"
    ]
    assert len(section(page, "right", "li")) == RIGHT


def test_details_are_unfolded_by_a_click(opened: Open) -> None:
    page = opened()
    tag = next(cell for cell in section(page, "fails", "td") if text(cell) == LONG_NAME)
    assert not tag.is_displayed()
    section(page, "fails", "summary")[0].click()
    assert tag.is_displayed()


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_wider_than_the_screen(opened: Open, screen: str) -> None:
    page = opened(screen)
    page.execute_script(UNFOLD)
    assert page.execute_script("return document.documentElement.scrollWidth") <= SCREENS[screen][0]
    tables = "return [...document.querySelectorAll('.scroll')].map(table => [table.scrollWidth, table.clientWidth])"
    if screen != "small":
        assert [wide for wide, seen in page.execute_script(tables) if wide > seen] == []


class Counted(NamedTuple):
    """What a threshold does, from the predictions alone."""

    found: int
    alarms: int
    positives: int
    negatives: int

    @classmethod
    def at(cls, folder: Path, threshold: float) -> Counted:
        rows = pq.read_table(folder / paths.PREDICTIONS).to_pylist()
        truth = [row["label"] == "bright" for row in rows]
        over = [row["score_bright"] >= threshold for row in rows]
        return cls(
            sum(one and other for one, other in zip(truth, over, strict=True)),
            sum(other and not one for one, other in zip(truth, over, strict=True)),
            sum(truth),
            len(truth) - sum(truth),
        )

    def shown(self) -> dict[str, str]:
        missed = self.positives - self.found
        flagged, all_pictures = self.found + self.alarms, self.positives + self.negatives
        return {
            "tp": f"{self.found}",
            "fp": f"{self.alarms}",
            "fn": f"{missed}",
            "tn": f"{self.negatives - self.alarms}",
            "precision": f"{self.found / flagged:.3f}" if flagged else NOTHING,
            "recall": f"{self.found / self.positives:.3f}",
            "alarms": f"{1000 * self.alarms / all_pictures:.1f}",
        }


def outputs(page: webdriver.Chrome, place: int = 0) -> dict[str, str]:
    panel = page.find_elements(By.CSS_SELECTOR, "[data-panel]")[place]
    return {str(out.get_attribute("data-out")): out.text for out in panel.find_elements(By.CSS_SELECTOR, "[data-out]")}


def test_the_slider_moves_the_figures_by_keyboard(opened: Open, folder: Path) -> None:
    page = opened("phone")
    slider = page.find_element(By.CSS_SELECTOR, "input[type=range]")
    for _ in range(20):
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.switch_to.active_element == slider:
            break
    assert page.switch_to.active_element == slider
    assert slider.value_of_css_property("outline-style") == "solid", "the focus is visible"
    assert slider.accessible_name.startswith("Threshold")
    places = []
    for keys in ("", Keys.HOME, Keys.END, Keys.PAGE_DOWN, Keys.PAGE_DOWN, Keys.ARROW_LEFT, *[Keys.PAGE_DOWN] * 5):
        slider.send_keys(keys)
        shown = outputs(page)
        expected = Counted.at(folder, float(shown["threshold"])).shown()
        assert {name: shown[name] for name in expected} == expected, shown["threshold"]
        assert slider.get_attribute("aria-valuetext") == f"threshold {shown['threshold']}, recall {shown['recall']}"
        places.append((shown["threshold"], shown["tp"]))
    assert [threshold for threshold, _ in places[:3]] == ["0.500", "0.000", "1.000"]
    assert len({found for _, found in places}) > 3, "the figures moved"


def test_the_dots_follow_the_threshold_and_buttons_set_it(opened: Open, folder: Path) -> None:
    page = opened()
    own, strict = section(page, "threshold", "button[data-step]")
    dots = (
        "return [...document.querySelectorAll('[data-dot]')].map(dot => [dot.cx.baseVal.value, dot.cy.baseVal.value])"
    )
    line = "return document.querySelector('[data-line]').getAttribute('transform')"
    before = page.execute_script(dots), page.execute_script(line)
    strict.click()
    shown = outputs(page)
    # 240 / 255 is the darkest negative's score, and the highest: no threshold below it has at most 1 % false alarms.
    assert int(shown["fp"]) == 0 or shown["threshold"] == "1.000"
    assert page.execute_script(dots) != before[0]
    assert page.execute_script(line) != before[1]
    own.click()
    assert outputs(page)["threshold"] == "0.500"
    again = page.execute_script(dots)
    for (x, y), (left, up) in zip(again, before[0], strict=True):
        assert (x, y) == pytest.approx((left, up), abs=0.1)


def test_a_rarer_concept_gives_less_precision(opened: Open, folder: Path) -> None:
    page = opened()
    counted = Counted.at(folder, 0.5)
    Select(page.find_element(By.CSS_SELECTOR, "select[data-share]")).select_by_visible_text("1 in 100")
    found = 0.01 * counted.found / counted.positives
    alarms = 0.99 * counted.alarms / counted.negatives
    shown = outputs(page)
    assert shown["precision"] == f"{found / (found + alarms):.3f}"
    assert shown["alarms"] == f"{1000 * alarms:.1f}"
    assert shown["tp"] == str(counted.found), "the matrix is that of the test pictures"


def test_each_of_several_labels_has_a_slider(opened: Open, tmp_path: Path) -> None:
    page = opened(page=of_three_classes(tmp_path / "report.html"))
    panels = page.find_elements(By.CSS_SELECTOR, "[data-panel]")
    assert [panel.is_displayed() for panel in panels] == [True, False]
    Select(page.find_element(By.ID, "label")).select_by_visible_text("gore & <b>")
    assert [panel.is_displayed() for panel in panels] == [False, True]
    # Of 30 pictures, ten are `gore`, eight of which score .8, and two of the others do.
    panels[1].find_element(By.CSS_SELECTOR, "input[type=range]").send_keys(Keys.ARROW_RIGHT)
    shown = outputs(page, 1)
    assert (shown["tp"], shown["fp"], shown["fn"], shown["tn"]) == ("8", "2", "2", "18")
    assert "Confusion matrix of all verdicts" in text(page.find_element(By.ID, "threshold"))


def of_three_classes(target: Path) -> Path:
    target.write_text(rendering.render_report(samples.three_classes()), encoding="utf-8")
    return target


def filters(picture: WebElement) -> set[str]:
    """The CSS filters of a picture and its overlay."""
    return {image.value_of_css_property("filter") for image in picture.find_elements(By.TAG_NAME, "img")}


def becomes(page: webdriver.Chrome, picture: WebElement, wanted: str) -> None:
    """Wait for the end of the transition."""
    WebDriverWait(page, 10, 0.05).until(lambda _: filters(picture) == {wanted}, f"never {wanted}")


@pytest.mark.parametrize("screen", ["phone", "desktop"])
@pytest.mark.parametrize("name", ["mistakes", "labels"])
def test_a_picture_is_blurred_until_clicked(opened: Open, screen: str, name: str) -> None:
    page = opened(screen)
    picture, *others = section(page, name, "label")
    assert filters(picture) == {"blur(16px)"}
    picture.click()
    becomes(page, picture, "none")
    assert all(filters(other) == {"blur(16px)"} for other in others)
    picture.click()
    becomes(page, picture, "blur(16px)")


def test_a_picture_can_be_shown_by_keyboard(opened: Open) -> None:
    page = opened()
    picture = section(page, "mistakes", "label")[0]
    box = picture.find_element(By.TAG_NAME, "input")
    assert box.accessible_name == "show image 16"
    for _ in range(30):
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


def faint(found: list[tuple[str, str, str]], least: float) -> list[tuple[str, str, str]]:
    """Those of texts or marks whose colour has less contrast with its background."""
    result = []
    for name, colour, background in found:
        darker, lighter = sorted(map(luminance, (colour, background)))
        if (lighter + 0.05) / (darker + 0.05) < least:
            result.append((name, colour, background))
    return result


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_charts_have_enough_contrast_in_either_colour_scheme(opened: Open, scheme: str) -> None:
    page = opened(scheme=scheme)
    page.execute_script(UNFOLD)
    texts, marks = page.execute_script(TEXTS), page.execute_script(MARKS)
    assert len(texts) > 150
    assert len(marks) > 20
    assert faint(texts, READABLE) == []
    assert faint(marks, VISIBLE) == []
    page_colour = page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (luminance(page_colour) < 0.1) == (scheme == "dark")


def test_all_pictures_of_a_gallery_are_shown_by_a_button(opened: Open) -> None:
    page = opened()
    (button,) = section(page, "mistakes", "button")
    button.click()
    for picture in section(page, "mistakes", "label"):
        becomes(page, picture, "none")
    assert button.text == "Blur all"
    assert filters(section(page, "labels", "label")[0]) == {"blur(16px)"}
