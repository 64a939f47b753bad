"""The page in Chromium, on the screens of a phone and of a desktop: every answer given by keys or by taps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import chromium
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from stages.catalogue.corrections import read
from tests.stages.labelling.conftest import FILE, HOSTILE, LONG, labelling, put

SCREENS = {"phone": (390, 844), "desktop": (1280, 800)}
READABLE = 4.5
"""Minimum contrast of text, WCAG 2 level AA."""
TOUCHABLE = 40
"""Least height of a button, px."""
CONTRASTS = """
const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = colour => {
  const [red, green, blue] = colour.match(/[0-9.]+/g).map(value => channel(value / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const background = element => {
  const own = getComputedStyle(element).backgroundColor;
  return own === "rgba(0, 0, 0, 0)" ? background(element.parentElement) : own;
};
return [...document.body.querySelectorAll("*")].filter(element => element.checkVisibility() && !element.disabled &&
    [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim())).map(element => {
  const [dark, light] = [getComputedStyle(element).color, background(element)].map(luminance).sort((a, b) => a - b);
  return [element.textContent, (light + 0.05) / (dark + 0.05)];
});
"""

Open = Callable[..., "Tab"]


class Tab:
    """A tab with the page, and what a user sees and does in it."""

    def __init__(self, browser: webdriver.Chrome, handle: str) -> None:
        self.browser, self.handle = browser, handle

    def text(self, id: str) -> str:
        return self.browser.find_element(By.ID, id).text

    def seen(self, text: str, id: str = "source") -> None:
        """Wait until the text is shown, and the buttons may be used."""
        self.browser.switch_to.window(self.handle)
        script = "return [document.getElementById(arguments[0]).innerText, busy]"
        WebDriverWait(self.browser, 20, 0.02).until(
            lambda browser: (shown := browser.execute_script(script, id)) and text in shown[0] and not shown[1],
            f"never {text!r}",
        )

    def press(self, *keys: str) -> None:
        self.browser.switch_to.window(self.handle)
        ActionChains(self.browser, 0).send_keys(*keys).perform()

    def click(self, id: str) -> None:
        self.browser.find_element(By.ID, id).click()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium.started(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def opened(browser: webdriver.Chrome, tmp_path: Path, served: Callable[..., str]) -> Iterator[Open]:
    """To open the page with `opened("phone", scheme="dark")`; afterwards the console must be empty."""
    address: list[str] = []

    def opener(screen: str = "desktop", scheme: str = "light", kind: str = "binary") -> Tab:
        if not address:
            put(tmp_path, kind)
            address.append(served(labelling(tmp_path)))
        else:
            browser.switch_to.new_window("tab")
        width, height = SCREENS[screen]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen == "phone"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.requested(browser)  # forgets those of earlier tests
        browser.get(address[0])
        tab = Tab(browser, browser.current_window_handle)
        tab.seen("Image 3")
        return tab

    yield opener
    logged = [entry["message"] for entry in chromium.logged(browser, "browser")]
    for handle in browser.window_handles[1:]:
        browser.switch_to.window(handle)
        browser.close()
    browser.switch_to.window(browser.window_handles[0])
    browser.get("about:blank")
    assert [message for message in logged if "409 (Conflict)" not in message] == []


def answers(folder: Path) -> dict[int | None, str]:
    return {row.image_id: row.label for row in read(folder / FILE)}


def test_every_answer_has_a_key_and_can_be_undone(opened: Open, tmp_path: Path) -> None:
    tab = opened()
    assert "0 of 2 likely wrong labels answered" in tab.text("done-count")
    tab.press("r")
    tab.seen("Image 2")
    assert answers(tmp_path) == {3: "clean"}
    tab.press("u")
    tab.seen("Image 3")
    assert answers(tmp_path) == {}
    tab.press("w")
    tab.seen("Image 2")
    assert "Image 3: flagged, not clean" in tab.text("said")
    tab.press("s")
    tab.seen("All 2 likely wrong labels are answered.", "done-title")
    assert answers(tmp_path) == {3: "flagged", 2: "?"}
    tab.click("more")
    tab.seen("Image 5")
    tab.press("n")
    tab.press("wrs u")
    tab.press(Keys.ENTER)
    tab.press("r")
    tab.seen("Image 13")
    assert {row.image_id: row.why for row in read(tmp_path / FILE)}[5] == "wrs u"
    assert tab.text("kinds") == "1 right · 1 wrong · 1 skipped"
    for _, shown in (("w", "Image 1"), ("w", "Image 4")):
        tab.press("w")
        tab.seen(shown)
    tab.press("w")
    tab.seen("All 6 pictures are answered.", "done-title")
    tab.click("again")
    tab.seen("your answer was skip")
    tab.press("r")
    tab.seen("No skipped pictures are left.", "done-title")
    tab.browser.refresh()
    tab.seen("All 2 likely wrong labels are answered.", "done-title")
    assert answers(tmp_path) == {1: "clean", 2: "flagged", 3: "flagged", 4: "flagged", 5: "flagged", 13: "flagged"}
    tab.press("u")
    tab.seen("your answer was skip")


def test_the_page_shows_what_it_asks_about_and_loads_nothing_else(opened: Open) -> None:
    tab = opened()
    page = tab.browser
    assert tab.text("question") == "Labelled clean. Is that right?"
    assert {HOSTILE, LONG, "artist:ann"} < {tag.text for tag in page.find_elements(By.CSS_SELECTOR, "#tags li")}
    assert page.title == "Corrections: house", "a tag is text"
    assert tab.text("scores").split("\n") == ["flagged", "95.0 %", "clean", "5.0 %"]
    picture = page.find_element(By.ID, "picture")
    WebDriverWait(page, 20, 0.02).until(lambda _: picture.get_property("complete"))
    assert (picture.get_property("naturalWidth"), picture.accessible_name) == (48, "image 3")
    link = page.find_element(By.CSS_SELECTOR, "#source a")
    assert link.get_attribute("href") == "https://board.example/3.png"
    assert "noreferrer" in str(link.get_attribute("rel"))
    own = page.current_url
    assert [url for url in chromium.requested(page) if not url.startswith((own, "data:,"))] == []


def test_the_keyboard_reaches_everything(opened: Open, tmp_path: Path) -> None:
    tab = opened()
    reached = []
    for _ in range(7):
        tab.press(Keys.TAB)
        focused = tab.browser.switch_to.active_element
        reached.append(focused.get_attribute("id"))
        assert focused.value_of_css_property("outline-style") == "solid", "the focus is visible"
    assert reached == ["blur", "help", "", "note", "wrong", "right", "skip"], "the nameless one is the link"
    tab.press("?")
    assert tab.browser.find_element(By.ID, "keys").is_displayed()
    tab.press("r")
    tab.press(Keys.ESCAPE)
    assert answers(tmp_path) == {}, "keys mean nothing while the help is open"
    tab.press("b")
    assert "blur" in tab.browser.find_element(By.ID, "picture").value_of_css_property("filter")
    tab.press("b")
    tab.browser.find_element(By.ID, "right").send_keys(Keys.ENTER)
    tab.seen("Image 2")
    assert answers(tmp_path) == {3: "clean"}


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_one_of_several_labels_is_chosen(opened: Open, tmp_path: Path, kind: str) -> None:
    tab = opened(kind=kind)
    tab.press("w")
    tab.press(Keys.ESCAPE)
    assert not tab.browser.find_element(By.ID, "choice").is_displayed()
    tab.press("w")
    tab.press("2")
    tab.seen("Image 2")
    assert answers(tmp_path) == {3: "flags"}
    tab.press("w")
    first = "return document.activeElement.parentElement.id === 'choice'"
    WebDriverWait(tab.browser, 20, 0.02).until(lambda browser: browser.execute_script(first), "the choice has no focus")
    tab.press(Keys.ENTER)
    tab.seen("likely wrong labels are answered", "done-title")
    assert answers(tmp_path)[2] == {"multiclass": "flags", "multilabel": "none"}[kind]


def test_two_tabs_lose_no_answer(opened: Open, tmp_path: Path) -> None:
    one, other = opened(), opened()
    one.press("r")
    one.seen("Image 2")
    other.press("w")
    other.seen("image 3 was answered elsewhere: clean", "said")
    other.seen("Image 2")
    assert answers(tmp_path) == {3: "clean"}
    other.press("w")
    other.seen("All 2", "done-title")
    assert answers(tmp_path) == {3: "clean", 2: "clean"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_the_screen_and_can_be_read(opened: Open, tmp_path: Path, screen: str, scheme: str) -> None:
    tab = opened(screen, scheme)
    page = tab.browser
    width, height = SCREENS[screen]

    def check() -> None:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        texts = page.execute_script(CONTRASTS)
        assert [text for text, contrast in texts if contrast < READABLE] == []

    check()
    for id in ("wrong", "right", "skip", "undo"):
        box = page.find_element(By.ID, id).rect
        assert box["height"] >= TOUCHABLE
        assert box["y"] + box["height"] <= height + page.execute_script("return scrollY"), "without scrolling"
    page.find_element(By.ID, "right").click()
    tab.seen("Image 2")
    assert answers(tmp_path) == {3: "clean"}
    page.find_element(By.ID, "help").click()
    check()
    page.find_element(By.ID, "close").click()
    page.find_element(By.ID, "skip").click()
    tab.seen("All 2", "done-title")
    check()
    assert re.search(r"mine\.csv", tab.text("done"))
