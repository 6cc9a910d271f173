"""Shows what is in a workspace to a person: rows decoded, and how each token of a text is mapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.rows.read import Rows, open_rows
from duckling_data.stages.count import COUNT
from duckling_data.stages.counts import COUNTS_NAME, read_counts
from duckling_data.stages.pack import DATASET_NAMES, PACK
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.compact import CompactTable
from duckling_data.tokens.encoders import load_encoder
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_data.workspace.manifest import Manifest


def decoded_rows(workspace: Path, first: int, rows: int, validation: bool) -> Iterator[str]:
    """Yield rows as text, each under a line with its number.

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
    manifest.refuse_changed(PACK.name, folder.name)
    manifest.refuse_changed(VOCAB.name, MAPPING_FILE)
    tokenizer = DucklingTokenizer(workspace / MAPPING_FILE)
    stored = open_rows(folder)
    total = len(stored)
    if not 0 <= first < total:
        raise InputError(f"--row {first}: expected 0 to {total - 1:,}; {folder.name} has {total:,} rows.")
    for number in range(first, min(first + rows, total)):
        yield f"--- row {number:,} of {total:,} ({folder.name})"
        for column, position, ids in _stories(stored, number):
            if position is not None:
                yield f"-- column {column}: " + (
                    "a story begins" if position == 0 else f"token {position:,} of a story"
                )
            yield str(tokenizer.decode(ids, show_unknown=True))


def _stories(stored: Rows, row: int) -> Iterator[tuple[int, int | None, list[int]]]:
    """Yield each story's part of a row: where it begins, its first token's position, its ids; else the whole row."""
    if stored.positions is None:
        yield 0, None, stored[row].tolist()
        return
    positions = stored.positions[row]
    begins = [0, *(np.flatnonzero(positions[1:] == 0) + 1).tolist()]
    for begin, ids in zip(begins, np.split(stored[row], begins[1:]), strict=True):
        yield begin, int(positions[begin]), ids.tolist()


def mapped_tokens(workspace: Path, text: str) -> Iterator[str]:
    """Yield a line for each GPT-2 token of the text: id, how often it was counted, its rank, what it becomes.

    Raises CheckFailed for counts or a mapping that are not those recorded.
    """
    manifest = Manifest(workspace)
    manifest.refuse_changed(COUNT.name, COUNTS_NAME)
    manifest.refuse_changed(VOCAB.name, MAPPING_FILE)
    table = CompactTable.from_mapping(read_mapping(workspace / MAPPING_FILE))
    counted: dict[int, tuple[int, int]] = {}
    if (workspace / COUNTS_NAME).exists():
        rows = read_counts(workspace / COUNTS_NAME).rows.tolist()
        counted = {token: (rank, count) for rank, (token, count, _) in enumerate(rows, 1)}
    tokens = load_encoder("tokenizers").encode(text)  # first: a text that is refused has no table
    yield f"{'token':<20} {'GPT-2 id':>8} {'count':>12} {'rank':>7}  becomes"
    for token in tokens:
        rank, count = counted.get(token, (0, 0))
        becomes = [table.first[token], *table.more.get(token, ())]
        kind = "live" if table.live[token] != table.none else "split" if table.whole[token] else "unknown"
        shown = repr(GPT2.token_bytes(token).decode("utf-8", "replace"))
        yield f"{shown:<20} {token:>8} {count:>12,} {rank or '-':>7}  {kind}: {' '.join(map(str, becomes))}"
