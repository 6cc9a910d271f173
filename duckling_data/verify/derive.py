"""Counts and mapping derived again: the counts from the stories, the mapping from the counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from duckling_data.base.progress import Reporter
from duckling_data.corpus.splits import Corpus
from duckling_data.stages.count import CountSettings, TokenCounts, count_tokens, occurring_ids
from duckling_data.stages.counts_file import COUNTS_NAME, read_counts
from duckling_data.stages.vocab import VocabSettings, build_mapping, mapping_figures
from duckling_data.tokens.encoding import EncodedSplit, EncoderPool
from duckling_data.tokens.mapping import DECOMPOSE, MAPPING_FILE, SIZES, TokenMapping, read_mapping
from duckling_data.workspace.manifest import Manifest, StageRecord
from duckling_data.workspace.settings import resolve


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

    def encoded(self, split: str, encoder: str | None = None) -> EncodedSplit:
        """Return a split's tokens, by `main` unless another encoder is named."""
        kind = encoder or self.main
        pool = self._pools.setdefault(kind, EncoderPool(kind))
        return EncodedSplit(self.corpus.splits()[split], pool, self.workers)


def count_faults(workspace: Path, record: StageRecord, stories: Stories | None) -> Iterator[str]:
    """Yield what of the counts does not hold: they sum to the figures, and are those of the stories."""
    counts = read_counts(workspace / COUNTS_NAME)
    figures: dict[str, Any] = {
        "tokens": counts.total,
        "distinct": len(counts.gpt2_id),
        "ids_for_coverage": counts.ids_for_coverage(),
        "counts_sha256": counts.digest(),
    }
    if stories is not None:
        if record.inputs.get("corpus") != stories.corpus.digests()["train"]:
            yield f"{COUNTS_NAME} was made from another corpus; run `duckling-data count`"
            return
        settings = resolve(CountSettings, {}, record.settings).value
        derived, figures = count_tokens(stories.encoded("train"), settings, stories.reporter)
        if (difference := _counts_difference(counts, derived)) is not None:
            yield difference
            return
    yield from figure_faults(COUNTS_NAME, figures, record.figures)


def mapping_faults(
    workspace: Path, manifest: Manifest, record: StageRecord, stories: Stories | None, *, counts_whole: bool
) -> Iterator[str]:
    """Yield what of the mapping does not hold: its tables are inverse, it was made of these counts, as their top.

    A mapping of the user's own is checked by itself, as is any where the counts' file is not whole; without `stories`
    also one made by `decompose`, whose single bytes are those that the whole corpus needs.
    """
    mapping = read_mapping(workspace / MAPPING_FILE)  # refuses one whose tables are not inverse to each other
    if "given" in record.settings:
        return
    count = manifest.stages.get("count")
    if count is None or count.figures.get("counts_sha256") != record.inputs["counts"]:
        yield f"{MAPPING_FILE} was made from other counts; run `duckling-data build-vocab`"
        return
    if not counts_whole:
        return
    counts = read_counts(workspace / COUNTS_NAME)
    settings = resolve(VocabSettings, {}, record.settings).value
    occurring = None
    if settings.unk == DECOMPOSE:
        if stories is None:
            return
        if record.inputs.get("corpus") != stories.corpus.digests()["train"]:
            yield f"{MAPPING_FILE} was made from another corpus; run `duckling-data build-vocab`"
            return
        occurring = occurring_ids(stories.encoded("train"), stories.reporter)
    expected = build_mapping(counts, settings, occurring)
    if (difference := _mapping_difference(mapping, expected)) is not None:
        yield difference
        return
    yield from figure_faults(MAPPING_FILE, mapping_figures(expected, counts), record.figures)


def figure_faults(what: str, found: dict[str, Any], recorded: dict[str, Any]) -> Iterator[str]:
    """Yield each figure found that is not the one recorded."""
    for name, value in found.items():
        if recorded.get(name) != value:
            yield f"{what} gives {name} {value}, the manifest says {recorded.get(name)}"


def _counts_difference(found: TokenCounts, expected: TokenCounts) -> str | None:
    """Return the first row and column in which two tables of counts differ."""
    rows = min(len(found.gpt2_id), len(expected.gpt2_id))
    columns = ("gpt2_id", "count", "first_seen")
    tables = [np.stack([getattr(counts, name)[:rows] for name in columns], axis=1) for counts in (found, expected)]
    places = np.argwhere(tables[0] != tables[1])
    if len(places):
        row, column = places[0]
        here, there = (int(table[row, column]) for table in tables)
        return f"{COUNTS_NAME} row {row:,} column {columns[column]}: expected {there}, found {here}"
    if len(found.gpt2_id) != len(expected.gpt2_id):
        return f"{COUNTS_NAME} has {len(found.gpt2_id):,} rows, expected {len(expected.gpt2_id):,}"
    return None


def _mapping_difference(found: TokenMapping, expected: TokenMapping) -> str | None:
    """Return the first size or live id in which two checked mappings differ."""
    for key in (*SIZES, "unk_policy"):
        if found.get(key) != expected.get(key):
            return f"{MAPPING_FILE} has {key} {found.get(key)}, expected {expected.get(key)}"
    for compact, (here, there) in enumerate(zip(found["live_token_ids"], expected["live_token_ids"], strict=True)):
        if here != there:
            return f"{MAPPING_FILE} compact {compact}: expected GPT-2 {there}, the counts' next, found {here}"
    return None
