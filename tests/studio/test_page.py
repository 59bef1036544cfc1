"""The studio in a real browser, as people use it: draw, read, rate by keyboard, export."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from studios import Place, chromium, free_port, studio

pytest.importorskip("playwright", reason="browser tests of the studio: playwright is missing")
from playwright.sync_api import Page, expect, sync_playwright

# A browser's timing is not ours: a failed page test is tried again, and counted as rerun.
pytestmark = [
    pytest.mark.flaky(reruns=2),
    pytest.mark.skipif(
        chromium() is None, reason="browser tests of the studio: chromium is not installed"
    ),
]
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120_000
LOADING = 900_000  # the first draw loads every model
HOSTILE = "cardiomegaly, chest X-ray <img src=x onerror=window.stolen=1> ${window.stolen=1}"
NEXT = "before => (document.querySelector('.stage')?.dataset.item ?? '') !== before"
FORTY_WITHIN = 240


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(place: Place, port: int) -> Iterator[str]:
    with studio(place, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def pages() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def page(pages: Page, served: str) -> Page:
    """One page for all tests of this file; `page.asked` are the addresses that it loaded."""
    pages.asked = []  # type: ignore[attr-defined]
    pages.on("request", lambda request: pages.asked.append(request.url))  # type: ignore[attr-defined]
    pages.goto(served)
    pages.wait_for_selector("#prompt textarea")
    return pages


def to_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def set_slider(page: Page, name: str, value: int) -> None:
    if not page.get_by_label(f"number input for {name}").is_visible():
        page.get_by_text("Advanced settings").click()
    page.get_by_label(f"number input for {name}").fill(str(value))
    page.keyboard.press("Tab")


def open_run(page: Page, words: str) -> str:
    """Search for words that only some runs have, and open the first: its id."""
    to_tab(page, "Runs")
    runs = page.locator("#runs [data-run]")
    expect(runs).not_to_have_count(0)
    page.locator("#search input, #search textarea").first.fill(words)
    # All that are left have the words; a drawing that was tried again is there twice.
    others = runs.filter(has_not_text=words)
    expect(others).to_have_count(0)
    expect(runs).not_to_have_count(0)
    found = runs.first.get_attribute("data-run")
    runs.first.click()
    expect(page.locator("#run")).to_contain_text(found)
    return found


def start_rating(page: Page, rater: str, task: str = "Rate 1 to 5", count: int = 40) -> None:
    to_tab(page, "Rate")
    if not page.locator("#rater input, #rater textarea").first.is_visible():
        page.locator("#rate-setup button").first.click()
    page.locator("#rater input, #rater textarea").first.fill(rater)
    page.locator("#task label", has_text=task).click()
    page.locator("#how-many input").fill(str(count))
    stage = page.locator(".stage")
    before = stage.get_attribute("data-item") if stage.count() else ""
    page.locator("#rate-start").click()
    page.wait_for_function(NEXT, arg=before)


def press(page: Page, keys: str) -> None:
    """Answer by keyboard, a picture a key, each once its picture is there."""
    for key in keys:
        before = page.locator(".stage").get_attribute("data-item")
        page.keyboard.press(key)
        page.wait_for_function(NEXT, arg=before)


def test_a_request_is_drawn_and_shown_beside_its_control(page: Page, place: Place) -> None:
    page.locator("#prompt textarea").fill(HOSTILE)
    set_slider(page, "Rounds", 1)
    set_slider(page, "Sampling steps", 4)
    page.get_by_label("Seed").fill("7")  # after the others: a page still building forgets it
    page.keyboard.press("Tab")
    page.locator("#draw").click()
    expect(page.locator("#progress")).to_contain_text("Drawing", timeout=LOADING)
    expect(page.locator("#outcome .beside figure")).to_have_count(2)
    expect(page.locator("#outcome .candidates figure")).to_have_count(2)
    expect(page.locator("#outcome .beside")).to_contain_text("Control")
    expect(page.locator("#outcome table")).to_contain_text("cardiothoracic ratio")
    expect(page.locator("#outcome .prompt")).to_have_text(HOSTILE)
    assert page.evaluate("window.stolen") is None
    for index in range(2):
        expect(page.locator("#outcome .beside img").nth(index)).to_have_js_property(
            "naturalWidth", 256
        )
    (newest,) = sorted(place.runs.iterdir())[-1:]
    assert '"seed":7' in (newest / "request.json").read_text().replace(" ", "")
    assert '"steps":4' in (newest / "request.json").read_text().replace(" ", "")


def test_what_was_measured_is_drawn_over_a_candidate(page: Page) -> None:
    page.locator("#outcome input.overlays").check()
    overlay = page.locator("#outcome img.overlay").first
    expect(overlay).to_be_visible()
    expect(overlay).to_have_js_property("naturalWidth", 512)


def test_bad_input_is_one_sentence(page: Page) -> None:
    page.locator("#prompt textarea").fill("")
    page.locator("#draw").click()
    expect(page.locator("#status [role=alert]")).to_contain_text("prompt")


def test_a_cancelled_run_stops_and_is_kept_as_unfinished(page: Page, place: Place) -> None:
    page.locator("#prompt textarea").fill("pneumothorax, chest X-ray, to be cancelled")
    set_slider(page, "Rounds", 6)
    set_slider(page, "Sampling steps", 60)  # seconds in which the click arrives
    page.locator("#draw").click()
    expect(page.locator("#progress")).to_contain_text("Composing the prompt")
    page.locator("#cancel").click()
    expect(page.locator("#status")).to_contain_text("Cancelled")
    newest = sorted(place.runs.iterdir())[-1]
    assert "to be cancelled" in (newest / "request.json").read_text()
    page.wait_for_timeout(9000)  # the drawing under way ends
    drawn = len(list(newest.glob("candidates/*")))
    page.wait_for_timeout(3000)
    assert not (newest / "run.json").exists()
    assert len(list(newest.glob("candidates/*"))) == drawn <= 2


def test_a_run_is_found_and_its_trace_opened(page: Page) -> None:
    open_run(page, "onerror")
    expect(page.locator("#run .prompt")).to_have_text(HOSTILE)
    to_tab(page, "Trace")
    trace = page.frame_locator("iframe.trace")
    expect(trace.locator("h1")).to_have_text(HOSTILE)
    expect(trace.get_by_text("Retrieved facts")).to_be_visible()
    assert page.locator("iframe.trace").get_attribute("sandbox") == ""


def test_a_run_is_forked_with_another_seed(page: Page, place: Place) -> None:
    parent = open_run(page, "onerror")
    to_tab(page, "Fork")
    page.locator("#fork-value input, #fork-value textarea").first.fill("11")
    page.locator("#fork").click()
    expect(page.locator("#fork-outcome .beside figure")).to_have_count(2)
    expect(page.locator("#fork-outcome")).to_contain_text(f"forked from {parent}")
    (newest,) = sorted(place.runs.iterdir())[-1:]
    assert '"seed":11' in (newest / "request.json").read_text().replace(" ", "")


def test_ten_images_are_rated_by_keyboard_and_exported(page: Page, place: Place) -> None:
    start_rating(page, "Ada")
    press(page, "5432154321")
    ratings = place.log.ratings(rater="Ada")
    assert [one.rating for one in ratings] == [5, 4, 3, 2, 1, 5, 4, 3, 2, 1]
    page.keyboard.press("u")
    expect(page.locator(".stage")).to_have_attribute("aria-label", re.compile("Picture 10 of"))
    assert len(place.log.ratings(rater="Ada")) == 9
    page.keyboard.press("c")
    page.keyboard.type("motion at 2 o'clock, 5 mm")
    page.keyboard.press("Escape")
    press(page, "4")
    expect(page.locator(".stage textarea")).to_have_value("")
    last = place.log.ratings(rater="Ada")[-1]
    assert (last.rating, last.comment) == (4, "motion at 2 o'clock, 5 mm")
    page.locator("#agreement button").first.click()
    with page.expect_download() as started:
        page.get_by_role("link", name="Ratings as CSV").click()
    with Path(started.value.path()).open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["rater"] == "Ada"]
    assert [row["rating"] for row in rows] == ["5", "4", "3", "2", "1", "5", "4", "3", "2", "4"]


def test_pairs_and_the_blinded_test_go_by_keyboard(page: Page, place: Place) -> None:
    start_rating(page, "Ada", "Compare two", 6)
    for key in ("ArrowLeft", "ArrowRight"):
        before = page.locator(".stage").get_attribute("data-item")
        page.keyboard.press(key)
        page.wait_for_function(NEXT, arg=before)
    assert len(place.log.pairs(rater="Ada")) == 2
    page.locator("#rate-setup button").first.click()
    page.locator("#rate-modality input").click()
    page.get_by_role("option", name="Chest X-ray", exact=True).click()
    start_rating(page, "Ada", "Real or synthetic", 4)
    shown = page.content()
    assert not any(path.name in shown for path in place.real.iterdir())
    press(page, "rsrs")
    expect(page.locator("#stage")).to_contain_text("right (95 % interval")
    assert {one.truth for one in place.log.guesses(rater="Ada")} == {"real", "synthetic"}


def test_the_page_loads_nothing_from_elsewhere(page: Page, served: str) -> None:
    asked = page.asked  # type: ignore[attr-defined]
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1024, 768)])
def test_tabs_fit_the_screen_and_have_no_accessibility_violations(
    page: Page, width: int, height: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": height})
    for name in ("Generate", "Runs", "Rate", "Datasets", "Check"):
        to_tab(page, name)
        page.wait_for_timeout(600)
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, f"{name} is {wider} pixels wider than the screen"
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        page.locator("#theme").click()
        page.wait_for_timeout(600)  # colours fade over
        dark = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
        assert dark.violations_count == 0, f"{name}, dark: {dark.generate_report()}"
        page.locator("#theme").click()


def test_forty_ratings_in_under_four_minutes_and_none_lost_by_a_kill(
    pages: Page, place: Place
) -> None:
    port = free_port()
    address, given = f"http://127.0.0.1:{port}/", "1234554321" * 4
    working = 0.0
    for half in (given[:20], given[20:]):
        with studio(place, port) as server:
            pages.goto(address)
            pages.wait_for_selector("#prompt textarea")
            start_rating(pages, "Bea")
            started = time.monotonic()
            press(pages, half)
            working += time.monotonic() - started
            server.kill()
    ratings = place.log.ratings(rater="Bea")
    assert [str(one.rating) for one in ratings] == list(given)
    assert len({one.image_sha256 for one in ratings}) == 40
    assert working < FORTY_WITHIN, f"{working:.0f} s for 40 ratings"
