"""Counts and mapping derived again: the counts from the stories, the mapping from the counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from duckling_data.base.progress import Reporter
from duckling_data.base.records import changed, plain
from duckling_data.corpus.splits import Corpus
from duckling_data.stages.count import CountFigures, CountSettings, count_tokens, occurring_ids
from duckling_data.stages.counts import COLUMNS, COUNTS_NAME, TokenCounts, read_counts
from duckling_data.stages.given import GivenSettings
from duckling_data.stages.vocab import VocabFigures, VocabSettings, build_mapping, mapping_figures
from duckling_data.tokens.encoding import EncodedSplit, EncoderPool
from duckling_data.tokens.mapping import DECOMPOSE, MAPPING_FILE, SIZES, TokenMapping, read_mapping


@dataclass(frozen=True)
class Stories:
    """The stories that everything is derived from again, and what encodes them."""

    corpus: Corpus
    workers: int
    reporter: Reporter
    main: str
    """The encoder of every story."""
    other: str | None
    """The encoder of a sample of the rows; None where `main` is already the other one."""

    _pools: dict[str, EncoderPool] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.main + (f", a sample also by {self.other}" if self.other else "")

    def encoded(self, split: str, encoder: str | None = None) -> EncodedSplit:
        """Return a split's tokens, by `main` unless another encoder is named."""
        kind = encoder or self.main
        pool = self._pools.setdefault(kind, EncoderPool(kind))
        return EncodedSplit(self.corpus.splits()[split], pool, self.workers)


def count_faults(workspace: Path, settings: CountSettings, figures: CountFigures, stories: Stories) -> Iterator[str]:
    """Yield what of the counts and their figures is not as the stories give it."""
    counts = read_counts(workspace / COUNTS_NAME)
    derived, derived_figures = count_tokens(stories.encoded("train"), settings, stories.reporter)
    if (difference := _counts_difference(counts, derived)) is not None:
        yield difference
    else:
        yield from figure_faults(COUNTS_NAME, derived_figures, figures)


def mapping_faults(
    workspace: Path, settings: VocabSettings | GivenSettings, figures: VocabFigures, stories: Stories
) -> Iterator[str]:
    """Yield what of the mapping and its figures is not as the counts give it.

    A mapping of the user's own is only read: it must be whole.
    """
    mapping = read_mapping(workspace / MAPPING_FILE)
    if isinstance(settings, GivenSettings):
        return
    counts = read_counts(workspace / COUNTS_NAME)
    all_ids = occurring_ids(stories.encoded("train"), stories.reporter) if settings.unk == DECOMPOSE else None
    expected = build_mapping(counts, settings, all_ids)
    if (difference := _mapping_difference(mapping, expected)) is not None:
        yield difference
    else:
        yield from figure_faults(MAPPING_FILE, mapping_figures(expected, counts), figures)


def figure_faults(what: str, derived: msgspec.Struct, recorded: msgspec.Struct) -> Iterator[str]:
    """Yield each recorded figure that is not the one derived."""
    there, here = plain(recorded), plain(derived)
    for name in changed(there, here):
        yield f"{what}: manifest.json has {name} {there.get(name)}, expected {here.get(name)}"


def _counts_difference(found: TokenCounts, expected: TokenCounts) -> str | None:
    """Return the first row and column in which two tables of counts differ."""
    rows = min(len(found.rows), len(expected.rows))
    differing = np.argwhere(found.rows[:rows] != expected.rows[:rows])
    if len(differing):
        row, column = differing[0]
        ids = f"found {found.rows[row, column]}, expected {expected.rows[row, column]}"
        return f"{COUNTS_NAME} row {row:,} column {list(COLUMNS)[column]}: {ids}"
    if len(found.rows) != len(expected.rows):
        return f"{COUNTS_NAME} has {len(found.rows):,} rows, expected {len(expected.rows):,}"
    return None


def _mapping_difference(found: TokenMapping, expected: TokenMapping) -> str | None:
    """Return the first size or live id in which two checked mappings differ."""
    for key in (*SIZES, "unk_policy"):
        if found.get(key) != expected.get(key):
            return f"{MAPPING_FILE} has {key} {found.get(key)}, expected {expected.get(key)}"
    for compact, (here, there) in enumerate(zip(found["live_token_ids"], expected["live_token_ids"], strict=True)):
        if here != there:
            return f"{MAPPING_FILE} compact id {compact}: found GPT-2 id {here}, expected {there}, the counts' next"
    return None
