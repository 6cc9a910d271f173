"""The grammar of the demo stories, as read from its file: cast, frames, plots, and templates with their slots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LEADS = ("", " ", "\n\n")
"""What stands before a section: nothing, a space within a paragraph, an empty line before a new one."""

HERO_FORMS = ("he", "his", "him", "himself", "child")
SLOT = re.compile(r"\{(?:([aA]) )?([a-zA-Z_]+)(\d?)(?:\.(\w+))?\}")
PLOT_SECTIONS = ("1", "2", "3", "4")


@dataclass(frozen=True)
class Slot:
    """A place in a template that is filled by a draw."""

    name: str
    """The class, or the member of the cast."""
    number: str
    """The digit that makes several slots of a template share a draw, or ""."""
    form: str
    article: bool
    capital: bool


@dataclass(frozen=True)
class Grammar:
    """The grammar file as read."""

    cast: dict[str, tuple[str, ...]]
    """The classes that each member of the cast is drawn from."""
    frames: tuple[tuple[int, tuple[tuple[int, str], ...]], ...]
    """Weight and run of (lead, section) of every frame; `lead` is an index of LEADS."""
    plots: tuple[str, ...]
    sections: dict[str, tuple[str, ...]]
    """The templates of every section; a plot's own sections are called "PLOT.1" and so on."""


def read_grammar(text: str) -> Grammar:
    """Return the grammar that a grammar file describes. The file's own head says how it is written."""
    cast: dict[str, tuple[str, ...]] = {}
    frames: list[tuple[int, tuple[tuple[int, str], ...]]] = []
    plots: list[str] = []
    sections: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = f"{plots[-1]}.{line[1:-1]}" if line[1:-1] in PLOT_SECTIONS else line[1:-1]
        elif section == "" and word == "cast":
            name, _, classes = rest.partition(": ")
            cast[name] = tuple(classes.split())
        elif section == "" and word == "frame":
            weight, _, run = rest.partition(": ")
            frames.append((int(weight), tuple(_frame_steps(run))))
        elif re.fullmatch(r"plot \w+", line):
            plots.append(rest)
        else:
            sections.setdefault(section, []).append(line)
    return Grammar(cast, tuple(frames), tuple(plots), {name: tuple(lines) for name, lines in sections.items()})


def _frame_steps(run: str) -> Iterator[tuple[int, str]]:
    lead = 0
    for word in run.split():
        if word == "/":
            lead = 2
        else:
            yield lead, word
            lead = 1


def template_parts(template: str) -> list[str | Slot]:
    """Return a template as fixed text and slots, in order."""
    parts: list[str | Slot] = []
    end = 0
    for match in SLOT.finditer(template):
        article, name, number, form = match.groups(default="")
        capital = article == "A" or name[0].isupper()
        name = name.lower()
        if name in HERO_FORMS:
            name, form = "hero", name
        parts += [template[end : match.start()], Slot(name, number, form, article != "", capital)]
        end = match.end()
    return [part for part in [*parts, template[end:]] if part != ""]
