"""Rows checked: their payload, no dead id in them, and every row derived again from the stories.

Every row is made again with one encoder, and a sample of the rows a second time with the other: of the stories that
such a row is cut from, the other encoder must give the same ids. (`--deep` makes every row with the other one.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.files import sha256_file
from duckling_data.rows.layout import TokenIds, row_dtype
from duckling_data.rows.read import read_rows
from duckling_data.rows.write import ROWS_PER_SHARD
from duckling_data.stages.context import DATASET_NAMES
from duckling_data.stages.pack import PackSettings, RowPacker
from duckling_data.tokens.compact import Compacted, CompactTable
from duckling_data.tokens.encoding import EncodedBatch
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import MAPPING_FILE, TokenMapping, read_mapping
from duckling_data.verify.derive import Stories, figure_faults
from duckling_data.workspace.manifest import StageRecord
from duckling_data.workspace.settings import resolve

SAMPLE_ROWS = 1000
"""Rows of a split that the other encoder makes again."""
SAMPLE_SEED = 0


def pack_faults(workspace: Path, record: StageRecord, stories: Stories | None) -> Iterator[str]:
    """Yield what of the rows does not hold; of each split the first difference alone."""
    if not (workspace / MAPPING_FILE).is_file():
        yield f"{MAPPING_FILE} is missing, so the rows cannot be held against it"
        return
    if record.inputs["mapping"] != sha256_file(workspace / MAPPING_FILE):
        yield f"the rows were made with another {MAPPING_FILE}; run `duckling-data pack`"
        return
    if stories is not None:
        made_from = {
            name.removeprefix("corpus "): digest for name, digest in record.inputs.items() if name != "mapping"
        }
        if made_from != stories.corpus.digests():
            yield "the rows were made from another corpus; run `duckling-data pack`"
            return
    mapping = read_mapping(workspace / MAPPING_FILE)
    settings = resolve(PackSettings, {}, record.settings).value
    for split, figures in record.figures["splits"].items():
        stored = StoredRows(workspace / DATASET_NAMES[split])
        difference = stored.unfit(settings.ctx, mapping["live_tokens"])
        if difference is None and stories is not None:
            difference = SplitRoad(split, mapping, settings, stories).difference(stored, figures)
        if difference is not None:
            yield difference
            continue
        payload = {"rows": len(stored), "payload_sha256": stored.payload_sha256()}
        yield from figure_faults(stored.name, payload, figures)


class StoredRows:
    """The rows of a dataset directory as they lie on the disk. Raises ValueError for one that is not whole."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._chunks = read_rows(folder)
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def between(self, start: int, stop: int) -> TokenIds:
        """Return the rows from `start` to `stop`, as many of them as there are: uint16, shape (n, ctx)."""
        parts = []
        for chunk, end in zip(self._chunks, self._ends.tolist(), strict=True):
            first = end - len(chunk)
            if first < stop and end > start:
                parts.append(chunk[max(start - first, 0) : stop - first])
        return np.concatenate(parts) if parts else np.empty((0, 0), row_dtype(0))

    def payload_sha256(self) -> str:
        """Return the SHA-256 of the tokens, little-endian uint16, in order."""
        payload = hashlib.sha256()
        for chunk in self._chunks:
            payload.update(np.ascontiguousarray(chunk, dtype="<u2").data)
        return payload.hexdigest()

    def unfit(self, ctx: int, live: int) -> str | None:
        """Return where a row is not of `ctx` tokens or holds an id that is not live, or None."""
        row = 0
        for chunk in self._chunks:
            if chunk.shape[1] != ctx:
                return f"{self.place(row)} has {chunk.shape[1]} tokens, expected {ctx}"
            if len(chunk) and int(chunk.max()) >= live:
                at, column = (int(place) for place in np.argwhere(chunk >= live)[0])
                return f"{self.place(row + at)} column {column}: id {chunk[at, column]}, expected below {live}"
            row += len(chunk)
        return None

    def place(self, row: int) -> str:
        """Return a row's file and number, for a person; the number is the row's in the whole dataset."""
        shards = max(1, -(-len(self) // ROWS_PER_SHARD))
        return f"{self.name}/data-{row // ROWS_PER_SHARD:05d}-of-{shards:05d}.arrow row {row:,}"

    def difference(self, start: int, expected: TokenIds) -> str | None:
        """Return the first place where the rows from `start` on are not the `expected` ones, or None."""
        found = self.between(start, start + len(expected))
        count = min(len(found), len(expected))
        if not np.array_equal(found[:count], expected[:count]):
            row, column = (int(place) for place in np.argwhere(found[:count] != expected[:count])[0])
            ids = f"expected {expected[row, column]}, found {found[row, column]}"
            return f"{self.place(start + row)} column {column}: {ids}"
        if len(found) < len(expected):
            return f"{self.place(start + count)} is missing: expected {expected[count, 0]} in its column 0"
        return None


class SplitRoad:
    """The road from a split's stories to its rows, gone again."""

    def __init__(self, split: str, mapping: TokenMapping, settings: PackSettings, stories: Stories) -> None:
        self._split = split
        self._settings = settings
        self._stories = stories
        self._table = CompactTable.from_mapping(mapping)
        self._separator = mapping["gpt2_to_compact"][str(GPT2.eos_id)] if settings.separator == "eos" else None
        self._lengths: list[npt.NDArray[np.int64]] = []
        """Compact tokens in each story, in the split's order."""

    def difference(self, stored: StoredRows, figures: dict[str, Any]) -> str | None:
        """Return the first difference between the stored rows or the figures and the stories', or None."""
        packer = RowPacker(self._settings.ctx, self._settings.group)
        encoded = self._stories.encoded(self._split)
        found = dict.fromkeys(("stories", "null_stories", "gpt2_tokens", "unknown_tokens", "tokens", "rows"), 0)
        with self._stories.reporter.bar(f"verify {self._split} rows", encoded.split.stories, "stories") as bar:
            for part, batch in encoded.map(self._compact):
                rows = packer.add(part.tokens, part.lengths)
                if (difference := stored.difference(found["rows"], rows)) is not None:
                    return difference
                self._lengths.append(part.lengths)
                for name, more in zip(found, _amounts(part, batch, rows), strict=True):
                    found[name] += more
                bar.update(len(part.lengths))
        packer.finish()
        if len(stored) > found["rows"]:
            return f"{stored.place(found['rows'])} was added: the stories give {found['rows']:,} rows"
        rate = round(found["unknown_tokens"] / max(found["gpt2_tokens"], 1), 9)
        derived = {**found, "unknown_rate": rate, "dropped_tail_tokens": packer.dropped}
        wrong = next(figure_faults(f"the {self._split} split", derived, figures), None)
        return wrong if wrong is not None or self._stories.other is None else self.sample_difference(stored)

    def _compact(self, batch: EncodedBatch) -> tuple[Compacted, EncodedBatch]:
        return self._table.compact(batch.tokens, batch.lengths, self._separator), batch

    def sample_difference(self, stored: StoredRows) -> str | None:
        """Return the first sampled row that the other encoder makes otherwise, or None. Called after `difference`."""
        chosen = sample_rows(len(stored))
        lengths = np.concatenate(self._lengths)
        begins = row_begins(lengths, self._settings)[chosen]
        ends = np.cumsum(lengths)
        first = np.searchsorted(ends, begins, side="right")
        last = np.searchsorted(ends, begins + self._settings.ctx - 1, side="right")
        wanted = np.zeros(len(lengths), bool)
        for start, stop in zip(first.tolist(), last.tolist(), strict=True):
            wanted[start : stop + 1] = True
        again = self._encode_again(wanted)
        offsets = begins - (ends - lengths)[first]
        for row, start, stop, offset in zip(
            chosen.tolist(), first.tolist(), last.tolist(), offsets.tolist(), strict=True
        ):
            tokens = np.concatenate([again[story] for story in range(start, stop + 1)])
            derived = tokens[offset : offset + self._settings.ctx]
            if (difference := _row_difference(stored, row, derived)) is not None:
                return f"{difference} (by the encoder {self._stories.other})"
        return None

    def _encode_again(self, wanted: npt.NDArray[np.bool_]) -> dict[int, TokenIds]:
        """Return the compact tokens of the wanted stories, by story, from the other encoder."""
        again: dict[int, TokenIds] = {}
        for part, batch in self._stories.encoded(self._split, self._stories.other).map(self._compact, wanted):
            tokens = np.split(part.tokens, np.cumsum(part.lengths)[:-1])
            again |= dict(zip(batch.stories.tolist(), tokens, strict=False))
        return again


def sample_rows(rows: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows sampled of so many, ascending: the same every time."""
    chosen = np.random.default_rng(SAMPLE_SEED).choice(rows, min(rows, SAMPLE_ROWS), replace=False)
    return np.sort(chosen)


def row_begins(lengths: npt.NDArray[np.int64], settings: PackSettings) -> npt.NDArray[np.int64]:
    """Return where each row begins in the stream of all the stories' tokens, the tails of groups included.

    `lengths` are the compact tokens of each story.
    """
    group = settings.group or max(len(lengths), 1)
    tokens = np.add.reduceat(lengths, np.arange(0, len(lengths), group))
    rows = tokens // settings.ctx
    within = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    begins: npt.NDArray[np.int64] = np.repeat(np.cumsum(tokens) - tokens, rows) + within * settings.ctx
    return begins


def _row_difference(stored: StoredRows, row: int, derived: TokenIds) -> str | None:
    found = stored.between(row, row + 1)[0]
    if len(derived) < len(found):
        return f"{stored.place(row)} column {len(derived)}: its stories end here, found {found[len(derived)]}"
    return stored.difference(row, derived[np.newaxis])


def _amounts(part: Compacted, batch: EncodedBatch, rows: TokenIds) -> tuple[int, ...]:
    """Return the batch's stories, null stories, GPT-2 tokens, unknown tokens, tokens and rows."""
    return len(part.lengths), batch.nulls, len(batch.tokens), part.unknown, len(part.tokens), len(rows)
