"""Shows what is in a workspace to a person: rows decoded, and how each token of a text is mapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.rows.read import Rows, open_rows
from duckling_data.stages.count import COUNT
from duckling_data.stages.counts import COUNTS_NAME, read_counts
from duckling_data.stages.pack import PACK
from duckling_data.stages.packer import DATASET_NAMES
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.compact import CompactTable
from duckling_data.tokens.encoders import load_encoder
from duckling_data.tokens.mapping import MAPPING_FILE, open_mapping
from duckling_data.workspace.manifest import Manifest


@dataclass(frozen=True)
class StoryPart:
    """The part of a story that is in one row; where the rows hold no positions, the whole row."""

    column: int
    """Where it begins in the row."""
    position: int | None
    """Where it begins in its story; None where the rows hold no positions."""
    ids: list[int]
    text: str


@dataclass(frozen=True)
class DecodedRow:
    """A row, decoded; its text is for a person, under a line with its number."""

    dataset: str
    row: int
    rows: int
    """How many there are."""
    stories: list[StoryPart]

    def __str__(self) -> str:
        lines = [f"--- row {self.row:,} of {self.rows:,} ({self.dataset})"]
        for part in self.stories:
            if part.position is not None:
                where = "a story begins" if part.position == 0 else f"token {part.position:,} of a story"
                lines.append(f"-- column {part.column}: {where}")
            lines.append(part.text)
        return "\n".join(lines)


@dataclass(frozen=True)
class MappedToken:
    """What becomes of a token of the base, GPT-2; its text is a line of a table."""

    token: str
    gpt2_id: int
    count: int
    """How often it was counted."""
    rank: int | None
    """1 for the most frequent; None where it was not counted."""
    kind: str
    """live, split (into pieces that all are) or unknown."""
    becomes: list[int]
    """Compact ids."""

    def __str__(self) -> str:
        shown, becomes = repr(self.token), " ".join(map(str, self.becomes))
        return f"{shown:<20} {self.gpt2_id:>8} {self.count:>12,} {self.rank or '-':>7}  {self.kind}: {becomes}"


def tokens_head(workspace: Path) -> str:
    """Return the heading of a table whose lines are the text of each `MappedToken`."""
    name = "base id" if open_mapping(workspace / MAPPING_FILE)[0].get("base") else "GPT-2 id"
    return f"{'token':<20} {name:>8} {'count':>12} {'rank':>7}  becomes"


def decoded_rows(workspace: Path, first: int, rows: int, validation: bool) -> Iterator[DecodedRow]:
    """Yield rows as text.

    Raises InputError for rows that are not there, CheckFailed for rows or a mapping that are not those recorded.
    """
    from duckling_data.tokens.tokenizer import DucklingTokenizer

    folder = workspace / DATASET_NAMES["validation" if validation else "train"]
    manifest = Manifest(workspace)
    if not folder.is_dir():
        none = validation and manifest.corpus is not None and "validation" not in manifest.corpus.splits
        why = ": the source has no validation split" if none else ""
        how = " --validation PATH` or `--validation-share 0.01" if none else ""
        raise InputError(f"{folder}: not there{why}; make it with `duckling-data pack{how}`.")
    manifest.refuse_changed(PACK.name, folder.name, Reporter())
    manifest.refuse_changed(VOCAB.name, MAPPING_FILE)
    tokenizer = DucklingTokenizer(workspace / MAPPING_FILE)
    stored = open_rows(folder)
    total = len(stored)
    if not 0 <= first < total:
        raise InputError(f"--row {first}: expected 0 to {total - 1:,}; {folder.name} has {total:,} rows.")
    for number in range(first, min(first + rows, total)):
        parts = [
            StoryPart(column, position, ids, str(tokenizer.decode(ids, show_unknown=True)))
            for column, position, ids in _stories(stored, number)
        ]
        yield DecodedRow(folder.name, number, total, parts)


def _stories(stored: Rows, row: int) -> Iterator[tuple[int, int | None, list[int]]]:
    """Yield each story's part of a row: where it begins, its first token's position, its ids; else the whole row."""
    if stored.positions is None:
        yield 0, None, stored[row].tolist()
        return
    positions = stored.positions[row]
    begins = [0, *(np.flatnonzero(positions[1:] == 0) + 1).tolist()]
    for begin, ids in zip(begins, np.split(stored[row], begins[1:]), strict=True):
        yield begin, int(positions[begin]), ids.tolist()


def mapped_tokens(workspace: Path, text: str) -> list[MappedToken]:
    """Return what becomes of each token of the text.

    Raises InputError for a text that is no UTF-8, CheckFailed for counts or a mapping that are not those recorded.
    """
    manifest = Manifest(workspace)
    manifest.refuse_changed(COUNT.name, COUNTS_NAME)
    manifest.refuse_changed(VOCAB.name, MAPPING_FILE)
    mapping, base = open_mapping(workspace / MAPPING_FILE)
    table = CompactTable.from_mapping(mapping, base)
    counted: dict[int, tuple[int, int]] = {}
    if (workspace / COUNTS_NAME).exists():
        rows = read_counts(workspace / COUNTS_NAME, base).rows.tolist()
        counted = {token: (rank, count) for rank, (token, count, _) in enumerate(rows, 1)}
    tokens = []
    for token in load_encoder("tokenizers", base).encode(text):
        rank, count = counted.get(token, (None, 0))
        becomes = [int(table.first[token]), *map(int, table.more.get(token, ()))]
        kind = "live" if table.live[token] != table.none else "split" if table.whole[token] else "unknown"
        shown = base.token_bytes(token).decode("utf-8", "replace")
        tokens.append(MappedToken(shown, token, count, rank, kind, becomes))
    return tokens
