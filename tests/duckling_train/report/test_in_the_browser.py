"""The page in a browser: nothing asked of a network, everything drawn, and mouse and keyboard read its values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from duckling_train import open_run
from duckling_train.report.page import report
from tests.support.browser import Browser

DRAWN = """[...document.querySelectorAll("canvas")].map(canvas => {
  const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return [canvas.id || canvas.parentElement.className, new Set(pixels).size];
})"""
SAID = "document.getElementById('said-{}').textContent"


@pytest.fixture(scope="module")
def page(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(report([open_run(recorded)]))
    return path


@pytest.fixture(scope="module")
def overlaid(recorded: Path, bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(report([open_run(recorded), open_run(bare)]))
    return path


def said(browser: Browser, name: str) -> str:
    return str(browser.evaluate(SAID.format(name)))


def focus(browser: Browser, name: str) -> None:
    browser.evaluate(f"document.getElementById('{name}').focus()")


def pixels(browser: Browser, name: str) -> Any:
    return browser.evaluate(f"document.getElementById('{name}').toDataURL()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
def test_all_is_drawn_without_a_message_or_a_request(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width=width, scheme=scheme)
    assert (browser.console, browser.requests) == ([], [])
    drawn = browser.evaluate(DRAWN)
    assert {"cloud", "motion", "distance"} <= {name for name, _ in drawn}
    assert len(drawn) > 25
    assert [name for name, colours in drawn if colours < 2 and name != ""] == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.axe() == []


def test_several_runs_are_drawn_and_can_be_hidden(browser: Browser, overlaid: Path) -> None:
    browser.open(overlaid)
    assert (browser.console, browser.requests) == ([], [])
    assert browser.axe() == []
    before = browser.evaluate("document.querySelector('#plot-loss canvas').toDataURL()")
    browser.click(*browser.middle("#key-loss li:nth-child(2) button"))
    browser.frames()
    assert browser.evaluate("document.querySelector('#plot-loss canvas').toDataURL()") != before
    assert browser.evaluate("document.querySelector('#key-loss li:nth-child(2) button').ariaPressed") == "false"


def test_a_slider_move_shows_another_step(browser: Browser, page: Path) -> None:
    browser.open(page)
    first = pixels(browser, "cloud")
    assert browser.evaluate("document.getElementById('at').textContent") == "step 24 of 24"  # it opens at the end
    focus(browser, "step")
    browser.key("Home", "ArrowRight", "ArrowRight", "ArrowRight")
    assert browser.evaluate("document.getElementById('at').textContent") == "step 3 of 24"
    assert browser.evaluate("document.getElementById('step').getAttribute('aria-valuetext')") == "step 3"
    assert pixels(browser, "cloud") != first


def test_play_moves_to_the_last_step_and_pause_stops(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.click(*browser.middle("#play"))
    browser.frames(6)
    assert browser.evaluate("document.getElementById('play').textContent") == "Pause"
    browser.click(*browser.middle("#play"))
    stopped = int(browser.evaluate("document.getElementById('step').value"))
    browser.frames(6)
    assert 0 < stopped == int(browser.evaluate("document.getElementById('step').value"))
    browser.click(*browser.middle("#play"))
    browser.evaluate("""new Promise(done => { const look = () =>
        document.getElementById('play').textContent === "Play" ? done(0) : requestAnimationFrame(look); look(); })""")
    assert browser.evaluate("document.getElementById('at').textContent") == "step 24 of 24"


def test_the_keyboard_reads_rows_of_the_canvases(browser: Browser, page: Path) -> None:
    browser.open(page)
    focus(browser, "cloud")
    browser.key("Home", "ArrowRight")
    assert said(browser, "cloud").startswith("row 448, dead · step 0 · PC1 ")
    browser.key("ArrowLeft")
    assert said(browser, "cloud").startswith("row 447, live, token ")
    browser.key("ArrowRight", "ArrowUp")
    assert said(browser, "cloud").startswith("row 448, dead · step 1 · PC1 ")
    assert " · last moved in step " in said(browser, "cloud")
    focus(browser, "motion")
    browser.key("ArrowDown", "End")
    assert "dead · step 24: " in said(browser, "motion")
    focus(browser, "distance")
    browser.key("Home")
    assert said(browser, "distance").startswith("row 0, live, token ")
    assert "counted 440 times · distance from the start 0.0" in said(browser, "distance")
    browser.key("Escape")
    assert said(browser, "distance") == ""


def test_the_tracer_view_and_hidden_live_rows_are_other_pictures(browser: Browser, page: Path) -> None:
    browser.open(page)
    seen = {pixels(browser, "cloud")}
    browser.click(*browser.middle("input[value=tracer]"))
    seen.add(pixels(browser, "cloud"))
    browser.click(*browser.middle("#live"))
    seen.add(pixels(browser, "cloud"))
    assert len(seen) == 3


def test_mouse_and_keyboard_read_curves(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.mouse("mouseMoved", *browser.middle("#plot-coherence .u-over"))
    assert said(browser, "coherence").startswith("step 1")
    focus(browser, "plot-coherence")
    browser.key("Home", "ArrowRight")
    assert said(browser, "coherence").startswith("step 2 · coherence 0.")
    browser.key("End")
    assert said(browser, "coherence").startswith("step 24 · coherence 0.")
    browser.mouse("mouseMoved", *browser.middle("#motion"))
    assert said(browser, "motion").startswith("row ")
    middle = browser.middle("#cloud")
    for x in range(-400, 400, 8):  # somewhere at this height there is a row
        browser.mouse("mouseMoved", middle[0] + x, middle[1])
        if said(browser, "cloud"):
            break
    assert said(browser, "cloud").startswith("row ")


def test_in_print_all_is_on_white(browser: Browser, page: Path) -> None:
    browser.open(page, scheme="dark")
    browser.look(scheme="dark", media="print")
    browser.frames()
    corner = "[...document.getElementById('cloud').getContext('2d').getImageData(1, 1, 1, 1).data]"
    assert browser.evaluate(corner) == [255, 255, 255, 255]
