"""A headless Chromium for tests of pages; a test module shares one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needed = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


@contextmanager
def chromium(profile: Path, width: int = 1440, height: int = 900) -> Iterator[Any]:
    """A selenium WebDriver that keeps what the console says; ``profile`` is a new folder."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                     "--disable-dev-shm-usage", "--force-prefers-reduced-motion",  # scrolls at once
                     f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(DRIVER))
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver: Any, page: Path) -> None:
    """Load a file and wait until its figures are drawn."""
    driver.get(page.resolve().as_uri())
    driver.execute_async_script("autotune.figures.then(arguments[arguments.length - 1])")


def complaints(driver: Any) -> list[str]:
    """What the console said since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def find(driver: Any, selector: str) -> Any:
    from selenium.webdriver.common.by import By

    return driver.find_element(By.CSS_SELECTOR, selector)


def place(driver: Any, figure: str, x: float, y: float) -> tuple[int, int]:
    """Where on the screen a point of a figure's first axes lies, once it is scrolled there."""
    found: tuple[int, int] = driver.execute_script("""
        const [figure, x, y] = [document.getElementById(arguments[0]), arguments[1], arguments[2]];
        figure.scrollIntoView({block: 'center', behavior: 'instant'});
        const {left, top} = figure.getBoundingClientRect(), {xaxis, yaxis} = figure._fullLayout;
        return [left + xaxis._offset + xaxis.d2p(x), top + yaxis._offset + yaxis.d2p(y)].map(Math.round)""",
        figure, x, y)
    return found


def drag(driver: Any, *places: tuple[int, int]) -> None:
    """The pointer pressed at the first of ``places``, moved over the others, released; only moved if it is the one."""
    from selenium.webdriver.common.action_chains import ActionChains

    actions = ActionChains(driver)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(*places[0])
    if len(places) > 1:
        pointer.pointer_down()
        for after in places[1:]:
            pointer.move_to_location(*after)
        pointer.pointer_up()
    actions.perform()


def until(driver: Any, script: str) -> Any:
    """What a script returns once it returns something that counts."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 10).until(lambda d: d.execute_script(script))


def choose(driver: Any, selector: str, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(find(driver, selector)).select_by_value(value)


def faint(driver: Any) -> list[tuple[str, float]]:
    """Texts whose contrast with their ground is below 4.5 to 1 (WCAG 2.2, 1.4.3, AA), with the contrast."""
    found: list[tuple[str, float]] = driver.execute_script(_CONTRAST)
    return found


_CONTRAST = """
const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => { for (; e; e = e.parentElement) {
  const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; } return [255, 255, 255]; };
return [...document.querySelectorAll('body *')].filter(e => !e.closest('svg, .unseen, script, style, .skip')
  && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.checkVisibility()).flatMap(e => {
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((p, q) => q - p);
  const ratio = (a + 0.05) / (b + 0.05);
  return ratio < 4.5 ? [[e.textContent.trim().slice(0, 40), ratio]] : []; });
"""
