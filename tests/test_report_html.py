"""report.html as a reader has it: in a browser, offline, whatever the run came to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.finished import read_run
from autotune.report.report_html import report_html, write_report
from tests import browser, finished_runs, reports

ONE = finished_runs.trial(0, "int4", 8, 0.7, 180, 210, on_front=True)


def html(folder: Path, **changes: Any) -> str:
    return report_html(read_run(finished_runs.write(folder / "run", **changes)))


@pytest.mark.parametrize(("changes", "said"), [
    (reports.certified(), "int4-b32 meets every limit"),
    (reports.missed(), "misses accuracy >= 0.6 by 0.1 (17%)"),
    (reports.hopeless(), "latency_ms.p95 is 700 ms or more on base weights"),
    ({"trials": [], "front": [], "selected": None}, "No trial was run."),
    ({"trials": [ONE], "front": [0], "selected": {"trial": 0, "policy": "knee", "certificate": None}},
     "int4-b32 is chosen"),
    ({"constraints": []}, "int8-b32 is chosen"),
    ({"certificate": reports.certificate("INCONCLUSIVE", 2, reports.look(
        2, "INCONCLUSIVE", problem="the device is gone", values={}, timing={}, logits={})),
      "selected": {"trial": 2, "policy": "knee", "certificate": None}}, "the device is gone"),
])
def test_every_end_of_a_run_has_its_report(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    page = reports.Elements(html(tmp_path, **changes))
    assert said in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in page.tags if tag == "a" and a.get("href")]
    assert {link[1:] for link in links if link} <= set(ids)


def test_what_an_older_or_a_copied_run_lacks_is_not_missed(tmp_path: Path) -> None:
    folder = finished_runs.write(tmp_path / "run")
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for optional in ("certificate", "dropped", "deploy_points", "baseline"):
        del document[optional]
    (folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "study.yaml").unlink()
    assert "int8-b32 is chosen" in report_html(read_run(folder))


def test_text_from_data_makes_no_element(tmp_path: Path) -> None:
    page = reports.Elements(html(tmp_path, **reports.hostile()))
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.text.count(reports.HOSTILE) > 10
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_five_hundred_trials_stay_one_small_file(tmp_path: Path) -> None:
    assert len(html(tmp_path, **reports.many(500))) < 6_000_000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = {"usual": reports.certified(), "hostile": reports.hostile(), "hopeless": reports.hopeless(),
            "many": reports.many(500)}
    return {name: write_report(read_run(finished_runs.write(folder / name, **changes)))
            for name, changes in runs.items()}


def opened(driver: Any, page: Path, width: int = 1440, height: int = 900) -> Any:
    driver.set_window_size(width, height)
    browser.open_page(driver, page)
    return driver


def visible_trials(driver: Any) -> list[int]:
    found: list[int] = driver.execute_script(
        "return [...document.querySelectorAll('#trials tbody tr:not([hidden])')].map(r => Number(r.dataset.number))")
    return found


@browser.needed
@pytest.mark.parametrize("name", ["usual", "hostile", "hopeless", "many"])
def test_it_opens_without_a_complaint_or_a_request(driver: Any, pages: dict[str, Path], name: str) -> None:
    opened(driver, pages[name])
    assert browser.complaints(driver) == []
    assert driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    drawn = driver.execute_script("return document.querySelectorAll('.figure .main-svg').length > 0")
    assert drawn == (name != "hopeless")


@browser.needed
def test_the_page_forbids_requests_and_foreign_scripts(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["usual"])
    driver.execute_script("""
        const script = document.createElement('script');
        script.textContent = 'window.stranger = true';
        document.body.append(script);
        const image = document.createElement('img');
        image.src = 'https://example.com/x.png';
        document.body.append(image);""")
    assert driver.execute_script("return window.stranger") is None
    said = browser.until(driver, "return true") and browser.complaints(driver)
    assert all("Content Security Policy" in line for line in said)
    assert len(said) == 2


@browser.needed
def test_hostile_text_is_text(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.support.expected_conditions import alert_is_present

    opened(driver, pages["hostile"])
    assert driver.title == f"{reports.HOSTILE}: {reports.HOSTILE} meets every limit"
    assert driver.execute_script("return document.images.length") == 0
    assert reports.HOSTILE in browser.find(driver, "#headline").text
    browser.choose(driver, "#axis-across", f"mine:{reports.HOSTILE}")
    title = browser.until(driver, "return document.querySelector('#pareto .xtitle').textContent")
    assert title == f"mine:{reports.HOSTILE} ({reports.HOSTILE}) · more is better"
    assert reports.HOSTILE in hovered(driver, 0.5, 0.7)
    assert not alert_is_present()(driver)


def hovered(driver: Any, x: float, y: float) -> str:
    """What the plot says at a point when the pointer is on it."""
    where = browser.place(driver, "pareto", x, y)
    browser.drag(driver, (where[0] + 40, where[1] + 40))
    browser.drag(driver, where)
    said: str = browser.until(driver, "return document.querySelector('#pareto .hoverlayer .hovertext')?.textContent")
    return said


@browser.needed
def test_the_plot_answers_the_pointer(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["usual"])
    said = hovered(driver, 180, 0.7)
    assert "trial 0" in said
    assert "0.700 [0.640, 0.760], n 128" in said
    assert "rank 8" in said


@browser.needed
def test_the_axes_change_with_their_whiskers_front_and_box(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["usual"])
    said = browser.find(driver, "#axes-note").text
    assert "Shaded: accuracy >= 0.6. Not on these axes: latency_ms.p95 <= 600." in said
    browser.choose(driver, "#axis-across", "latency_ms.p95")
    drawn = driver.execute_script("""
        const p = document.getElementById('pareto'), chosen = p.data.at(-2);
        return {title: p.layout.xaxis.title.text, x: chosen.x, minus: chosen.error_x.arrayminus,
                front: p.data[0].x, box: p.layout.shapes[0].x1}""")
    assert drawn == {"title": "latency_ms.p95 (ms) · less is better", "x": [pytest.approx(198)],
                     "minus": [pytest.approx(8)], "front": [pytest.approx(198), pytest.approx(308)], "box": 600}
    assert "Shaded: latency_ms.p95 <= 600 and accuracy >= 0.6." in browser.find(driver, "#axes-note").text
    browser.choose(driver, "#axis-up", "latency_ms.p95")  # the same on both makes no plot: they change places
    assert browser.find(driver, "#axis-across").get_attribute("value") == "accuracy"


@browser.needed
def test_what_misses_a_limit_can_be_hidden(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["usual"])
    count = "return document.querySelectorAll('#pareto .points path').length"
    assert driver.execute_script(count) == 4
    browser.find(driver, "#show-dimmed").click()
    assert driver.execute_script(count) == 3
    assert driver.execute_script("return document.getElementById('pareto').layout.yaxis.range[0]") > 0.5
    browser.find(driver, "#show-dimmed").click()
    assert driver.execute_script(count) == 4


@browser.needed
def test_the_table_filters_and_dims_the_plot(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["usual"])
    browser.find(driver, "#filter-text").send_keys("INT4 front")
    browser.until(driver, "return document.getElementById('count').textContent.startsWith('0 of')"
          " || document.getElementById('count').textContent.startsWith('1 of')")
    browser.find(driver, "#filter-text").clear()
    browser.find(driver, "#clear").click()
    assert visible_trials(driver) == [0, 1, 2, 3]
    browser.find(driver, "#filter-front").click()
    assert visible_trials(driver) == [0, 2]
    assert browser.find(driver, "#count").text == "2 of 4 trials"
    assert driver.execute_script("return document.getElementById('pareto').data.map(t => t.selectedpoints)[3]") == []
    browser.find(driver, "#clear").click()
    browser.choose(driver, "#filter-feasible", "no")
    assert visible_trials(driver) == [3]
    browser.find(driver, "#clear").click()
    assert visible_trials(driver) == [0, 1, 2, 3]


@browser.needed
def test_the_table_sorts_both_ways_and_puts_what_is_missing_last(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["many"])
    header = "#trials thead th:nth-child(4)"
    browser.find(driver, f"{header} button").click()
    keys = ("return [...document.querySelectorAll('#trials tbody tr')]"
            ".map(r => r.cells[3].dataset.key).map(k => k === undefined ? null : Number(k))")
    values = driver.execute_script(keys)
    known = [v for v in values if v is not None]
    assert known == sorted(known)
    assert values[len(known):] == [None] * 10
    assert browser.find(driver, header).get_attribute("aria-sort") == "ascending"
    browser.find(driver, f"{header} button").click()
    values = driver.execute_script(keys)
    assert values[:len(known)] == sorted(known, reverse=True)
    assert values[-1] is None


@browser.needed
def test_a_trial_is_pointed_out_from_the_keyboard(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(driver, pages["usual"])
    browser.find(driver, "#trial-1 .pick").send_keys(Keys.ENTER)
    assert browser.find(driver, "#trial-1").get_attribute("class").split()[-1] == "picked"
    said = browser.find(driver, "#picked").text
    assert said.startswith("Trial 1: what came of it meets the limits · artifact fp16-b32 · "
                           "accuracy 0.720 [0.660, 0.780], n 128 · latency_ms.p50 (ms) 450 [445, 455], n 20")
    assert driver.execute_script("return document.getElementById('pareto').data.at(-1).x") == [450]
    assert driver.execute_script("return document.getElementById('parallel').data.at(-1).x.length") > 2


@browser.needed
def test_a_box_on_a_parameter_keeps_the_trials_that_cross_it(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["usual"])
    upper_end_of_rank = [browser.place(driver, "parallel", *corner) for corner in ((-0.2, 1), (0.2, 0.7))]
    browser.drag(driver, *upper_end_of_rank)
    browser.until(driver, "return document.getElementById('count').textContent.startsWith('1 of 4')")
    assert visible_trials(driver) == [2]
    browser.find(driver, "#clear").click()
    assert visible_trials(driver) == [0, 1, 2, 3]


@browser.needed
def test_a_narrow_screen_never_scrolls_sideways(driver: Any, pages: dict[str, Path]) -> None:
    for name in ("usual", "many", "hopeless", "hostile"):
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
        browser.open_page(driver, pages[name])
        wide = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert wide == [360, 360]


@browser.needed
def test_the_theme_changes_text_and_plots(driver: Any, pages: dict[str, Path]) -> None:
    opened(driver, pages["usual"])
    colours = ("return [getComputedStyle(document.body).color,"
               " document.getElementById('pareto').layout.font.color]")
    before = driver.execute_script(colours)
    browser.find(driver, "#theme").click()
    after = driver.execute_script(colours)
    assert before[0] != after[0]
    assert (before[0], after[0]) == (before[1], after[1])
    browser.find(driver, "#theme").click()
    assert driver.execute_script(colours) == before


@browser.needed
def test_text_has_the_contrast_that_readers_need(driver: Any, pages: dict[str, Path]) -> None:
    """WCAG 2.2, 1.4.3 (AA): 4.5 to 1, in both themes."""
    opened(driver, pages["usual"])
    for _ in range(2):
        assert browser.faint(driver) == []
        browser.find(driver, "#theme").click()
