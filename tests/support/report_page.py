"""A small workspace with its report, and the report's page taken apart."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from duckling_data.base.progress import Reporter
from duckling_data.pipeline import Pipeline, Request
from duckling_data.workspace.manifest import Manifest

SMALL = {"live": 60, "dead": 20, "sample": "all", "ctx": 16}


def sentences(number: int) -> list[str]:
    """Varied sentences, some tokens frequent and many rare."""
    chance = random.Random(0)
    animals, verbs, things, names = (
        ["duck", "dog", "cat", "bird", "fish", "frog", "hen", "owl", "fox", "bear", "mouse", "horse"],
        ["saw", "found", "liked", "chased", "washed", "lost", "drew", "heard", "met", "thanked"],
        ["ball", "river", "tree", "cake", "stone", "boat", "hat", "moon", "leaf", "song", "wall", "drum", "kite"],
        ["Lily", "Tom", "Anna", "Ben", "Mia", "Max", "Sue", "Tim", "Zoe", "Sam"],
    )
    return [
        f"{chance.choice(names)} the {chance.choice(animals)} {chance.choice(verbs)} a {chance.choice(things)}. "
        f"Then {chance.choice(names)} {chance.choice(verbs)} the {chance.choice(things)}, {number} times!"
        for number in range(number)
    ]


def write_stories(path: Path, stories: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories), encoding="utf-8")
    return path


def make(
    workspace: Path, source: Path, *targets: str, mapping: Path | None = None, settings: dict[str, Any] | None = None
) -> Manifest:
    request = Request(
        workspace, 2, (str(source),), mapping=mapping, settings=SMALL if settings is None else settings, offline=True
    )
    return Pipeline(request, Reporter(quiet=True)).make(*targets)


class Page(HTMLParser):
    """A page's tags, attributes, text, and the cells of its table rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        """The cells behind the first cell `name`, which stands there once."""
        (found,) = (row[1:] for row in self.rows if row and row[0] == name)
        return found


def read_page(workspace: Path) -> Page:
    return Page((workspace / "report" / "index.html").read_text(encoding="utf-8"))
