"""The demo stories' grammar and words, compiled to integer tables.

A template becomes a run of symbols, and a symbol is one draw from an urn: a list that holds a word of weight w w times,
so that drawing is one multiplication and one look-up. A fixed piece of text is an urn with one entry. The entry and the
form that the template asks for (plural, past, with an article, capital) give the piece of text. Everything is integers,
so no platform rounds differently. Compiling takes about half a second, once a process.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from duckling_data.base.gpt2_files import gpt2_vocabulary
from duckling_data.corpus.demo import language
from duckling_data.corpus.demo.language import LEADS, PLOT_SECTIONS, Grammar, Slot, WordClass

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Tables:
    """The compiled grammar. All arrays are read-only in use; a row of one names rows of the next."""

    pieces: pa.LargeStringArray
    """Every piece of text that can be part of a story."""
    urns: npt.NDArray[np.uint16]
    """All urns, one after the other, of entries' numbers within their classes."""
    symbol_urn: Int64s
    symbol_size: UInt64s
    symbol_base: Int64s
    """Per symbol: where its urn begins, the urn's size, and the piece of its class's entry 0."""
    symbol_key: UInt64s
    symbol_scope: npt.NDArray[np.intp]
    """Per symbol: what tells its draw from others, and whether it lasts for the template (0) or the story (1)."""
    template_start: Int64s
    template_count: Int64s
    """Per lead and template, lead by lead: its symbols."""
    section_start: Int64s
    section_count: UInt64s
    """Per section: its templates."""
    shape_urn: npt.NDArray[np.int32]
    shape_start: Int64s
    shape_count: Int64s
    """Per shape, which is a frame with a plot: its steps."""
    step_section: Int64s
    step_lead: Int64s
    step_round: UInt64s
    """Per step: its section, the first template with its lead, and how often the shape has used the section before."""


class _Compiler:
    """Collects pieces, urns and symbols while the templates are compiled."""

    def __init__(self, classes: dict[str, WordClass], cast: list[str]) -> None:
        self.classes, self.cast = classes, cast
        self.pieces: list[str] = []
        self.first_piece: dict[str | Slot, int] = {}
        self.urns: list[npt.NDArray[np.uint16]] = [np.zeros(1, np.uint16)]
        self.urn_range: dict[tuple[str, int, int], tuple[int, int]] = {}
        self.symbols: list[tuple[int, int, int, int, int]] = []
        self.template_start: list[int] = []

    def template(self, lead: str, template: str, number: int) -> None:
        """Compile one template with the lead before it."""
        parts = language.template_parts(lead + template)
        self.template_start.append(len(self.symbols))
        # The class and the draw of every slot; slots with one number share a draw.
        draws = [
            ("", "") if isinstance(part, str) else (part.name, part.number or f"@{index}")
            for index, part in enumerate(parts)
        ]
        for index, part in enumerate(parts):
            if isinstance(part, str):
                urn, key, scope = (0, 1), 0, 0
            elif part.name in self.cast:
                urn, key, scope = self._urn(part.name, 1, 0), 1 + self.cast.index(part.name), 1
            else:
                # Draws of one class in one template divide its words, so that no two give the same.
                same = [draw for draw in dict.fromkeys(draws) if draw[0] == part.name]
                urn = self._urn(part.name, len(same), (same.index(draws[index]) + number) % len(same))
                key, scope = 1000 + int(part.number) if part.number else index + 1, 0
            self.symbols.append((*urn, self._base(part), key, scope))

    def _base(self, part: str | Slot) -> int:
        """Return the piece of a fixed text, or of a class's entry 0 in the slot's form."""
        key = part if isinstance(part, str) else replace(part, number="")
        if key not in self.first_piece:
            self.first_piece[key] = len(self.pieces)
            self.pieces += [part] if isinstance(part, str) else self._words(part)
        return self.first_piece[key]

    def _words(self, slot: Slot) -> list[str]:
        form = self.classes[slot.name].forms.index(slot.form)
        words = [word[form] for word in self.classes[slot.name].words]
        words = [language.with_article(word) for word in words] if slot.article else words
        return [word[0].upper() + word[1:] for word in words] if slot.capital else words

    def _urn(self, name: str, shares: int, share: int) -> tuple[int, int]:
        """Return where the urn of a class's words share, share + shares, ... begins, and its size."""
        if (name, shares, share) not in self.urn_range:
            weights = self.classes[name].weights
            urn = np.repeat(np.arange(len(weights), dtype=np.uint16)[share::shares], weights[share::shares])
            self.urn_range[name, shares, share] = (sum(map(len, self.urns)), len(urn))
            self.urns.append(urn)
        return self.urn_range[name, shares, share]


def compile_grammar(grammar: Grammar, classes: dict[str, WordClass]) -> Tables:
    """Return the tables of a grammar over word classes, to which its cast is added."""
    for name, members in grammar.cast.items():
        drawn = [classes[member] for member in members]
        words = tuple(word for one in drawn for word in one.words)
        classes[name] = WordClass(drawn[0].forms, words, np.concatenate([one.weights for one in drawn]))
    compiler = _Compiler(classes, list(grammar.cast))
    counts = {name: len(lines) for name, lines in grammar.sections.items()}
    templates = [line for lines in grammar.sections.values() for line in lines]
    for lead in LEADS:
        for number, template in enumerate(templates):
            compiler.template(lead, template, number)
    starts = np.array([*compiler.template_start, len(compiler.symbols)], np.int64)
    symbols = np.array(compiler.symbols, np.int64).T
    return Tables(
        pieces=pa.array(compiler.pieces, pa.large_string()),
        urns=np.concatenate(compiler.urns),
        symbol_urn=symbols[0].copy(),
        symbol_size=symbols[1].astype(np.uint64),
        symbol_base=symbols[2].copy(),
        symbol_key=symbols[3].astype(np.uint64),
        symbol_scope=symbols[4].astype(np.intp),
        template_start=starts[:-1],
        template_count=np.diff(starts),
        section_start=np.cumsum([0, *counts.values()], dtype=np.int64)[:-1],
        section_count=np.array([*counts.values()], np.uint64),
        **_shapes(grammar, list(counts), len(templates)),
    )


def _shapes(grammar: Grammar, sections: list[str], templates: int) -> dict[str, Any]:
    """Return the tables of shapes and steps: every frame with every plot."""
    steps: list[tuple[int, int, int]] = []
    starts: list[int] = []
    for _, run in grammar.frames:
        for plot in grammar.plots:
            starts.append(len(steps))
            used: Counter[str] = Counter()
            for lead, name in run:
                section = f"{plot}.{name}" if name in PLOT_SECTIONS else name
                steps.append((sections.index(section), lead, used[section]))
                used[section] += 1
    weights = np.repeat([weight for weight, _ in grammar.frames], len(grammar.plots))
    columns = np.array(steps, np.int64).T
    return {
        "shape_urn": np.repeat(np.arange(len(starts), dtype=np.int32), weights),
        "shape_start": np.array(starts, np.int64),
        "shape_count": np.diff([*starts, len(steps)]).astype(np.int64),
        "step_section": columns[0].copy(),
        "step_lead": columns[1] * templates,
        "step_round": columns[2].astype(np.uint64),
    }


_lock = Lock()


def tables() -> Tables:
    """Return the tables of the built-in grammar, compiled on the first call. Raises InputError as `read_checked`."""
    with _lock:
        return _tables()


@lru_cache(maxsize=1)
def _tables() -> Tables:
    folder = files("duckling_data.corpus.demo")
    grammar = language.read_grammar(folder.joinpath("grammar.txt").read_text("utf-8"))
    classes = language.read_lexicon(folder.joinpath("lexicon.txt").read_text("utf-8"))
    texts = [word for one in classes.values() for forms in one.words for word in forms]
    texts += [line for lines in grammar.sections.values() for line in lines]
    known = set(re.findall("[a-z]+", " ".join(texts)))
    return compile_grammar(grammar, classes | language.tail_classes(gpt2_vocabulary(), known))
