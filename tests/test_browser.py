"""The browser that tests the reports sees what a page does wrong, and its keys and mouse reach the page."""

from __future__ import annotations

from pathlib import Path

from tests.support.browser import Browser

WRONG = """<!doctype html>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';
 style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>wrong</title>
<input type="range" max="10" value="5">
<img src="http://127.0.0.1:1/x.png">
<p style="color: #aaa; background: #fff">faint</p>
<script>console.error("said", 3); setTimeout(() => { throw new Error("late"); });</script>
"""


def test_what_a_page_does_wrong_is_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(WRONG)
    browser.open(page, width=390, scheme="dark")
    assert browser.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [390, True]
    assert browser.requests == ["http://127.0.0.1:1/x.png"]
    assert "error: said 3" in browser.console
    assert [line for line in browser.console if line.startswith("thrown: Error: late")]
    assert [line for line in browser.console if "Content Security Policy" in line]
    assert {line.split()[0] for line in browser.axe()} >= {"html-has-lang", "image-alt", "label", "color-contrast"}


def test_keys_and_the_mouse_reach_the_page(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(WRONG)
    browser.open(page)
    browser.click(*browser.middle("input"))
    browser.key("Home", "ArrowRight", "ArrowRight", "ArrowRight")
    assert browser.evaluate("document.querySelector('input').value") == "3"
    assert browser.screenshot().startswith(b"\x89PNG")
