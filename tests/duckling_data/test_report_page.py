"""The data report in a browser: at a phone's width and a wide screen's, light, dark, in print, and by keyboard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.support.browser import Browser
from tests.support.report_page import SMALL, make, sentences, write_stories

LOOKS = [(390, "dark"), (800, "light"), (1600, "dark"), (1600, "light")]
TABLES = """[...document.querySelectorAll('table')].map(table => [
  table.querySelectorAll('thead th[scope=col]').length,
  [...table.tBodies[0].rows].every(row => row.querySelectorAll('th[scope=row]').length == 1)])"""
FIGURES = """[...document.images].map(image => {
  const box = image.getBoundingClientRect();
  return [image.naturalWidth, image.alt, box.x, box.y + scrollY, box.width, box.height, box.right <= innerWidth]})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all of its tables and columns."""
    workspace = tmp_path_factory.mktemp("workspace")
    stories = write_stories(workspace / f"{'a-file-with-a-long-name-' * 4}.jsonl", sentences(60))
    make(workspace, stories, "pack", "report", settings={**SMALL, "unk": "decompose"})
    return workspace / "report" / "index.html"


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_fits_the_window_and_loads_nothing(browser: Browser, report: Path, width: int, scheme: str) -> None:
    browser.open(report, width=width, scheme=scheme)
    assert (browser.console, browser.requests) == ([], [])
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    boxes = "[...document.querySelectorAll('.wide')].map(box => box.scrollWidth - box.clientWidth)"
    assert set(browser.evaluate(boxes)) == {0}  # no table is wider than its place


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_axe_finds_nothing(browser: Browser, report: Path, width: int, scheme: str) -> None:
    browser.open(report, width=width, scheme=scheme)
    assert browser.axe("minor", "moderate", "serious", "critical") == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_each_plot_is_drawn_on_the_pages_background(browser: Browser, report: Path, width: int, scheme: str) -> None:
    browser.open(report, width=width, scheme=scheme)
    figures = browser.evaluate(FIGURES)
    assert len(figures) == 4
    assert len({alt for _, alt, *_ in figures}) == 4
    screen = imread(io.BytesIO(browser.screenshot()), format="png")[..., :3]
    page = screen[0, 0]
    assert (page.mean() < 0.2) == (scheme == "dark")
    for natural, _, *box, inside in figures:
        assert natural == (920 if width == 390 else 1200)
        assert inside
        x, y, across, down = (round(edge) for edge in box)
        plot = screen[y + 8 : y + down - 8, x + 8 : x + across - 8]
        background = np.abs(plot - page).max(axis=2) < 0.02
        assert 0.3 < background.mean() < 0.99
        assert np.abs(plot - page).max() > 0.7  # the text stands out


def test_headings_are_in_order_and_tables_have_headers(browser: Browser, report: Path) -> None:
    browser.open(report)
    levels = browser.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(head => head.tagName)")
    assert levels == ["H1"] + ["H2"] * 8
    for columns, rows_have_headers in browser.evaluate(TABLES):
        assert columns > 0
        assert rows_have_headers


def test_the_first_key_leads_to_the_content(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.key("Tab")
    link = "document.activeElement"
    assert browser.evaluate(f"[{link}.textContent, {link}.getBoundingClientRect().x]") == ["Skip to the content", 0]
    browser.key("Enter")
    assert browser.evaluate("document.activeElement.id") == "main"


def test_a_dark_page_is_printed_light(browser: Browser, report: Path) -> None:
    browser.open(report, width=800, scheme="dark")
    shown = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.images[0]).filter]"
    dark = browser.evaluate(shown)
    browser.look(width=800, scheme="dark", media="print")
    assert browser.evaluate(shown) == ["rgb(255, 255, 255)", "none"] != dark
    assert browser.evaluate("getComputedStyle(document.querySelector('.skip')).display") == "none"
