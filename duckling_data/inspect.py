"""Shows what is in a workspace to a person: rows decoded, and the compact ids of each token of a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.rows.read import read_rows
from duckling_data.stages.context import DATASET_NAMES
from duckling_data.stages.counts_file import COUNTS_NAME, read_counts
from duckling_data.tokens.compact import CompactTable
from duckling_data.tokens.encoders import load_encoder
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_data.workspace.manifest import Manifest, refuse_unrecorded


def decoded_rows(workspace: Path, first: int, rows: int, validation: bool) -> Iterator[str]:
    """Yield rows as text, each under a line with its number. Raises InputError for rows that are not there.

    Raises CheckFailed for rows or a mapping that are not those recorded.
    """
    from duckling_data.tokens.tokenizer import DucklingTokenizer

    folder = workspace / DATASET_NAMES["validation" if validation else "train"]
    if not folder.is_dir():
        raise InputError(f"{folder}: not there. Make it with `duckling-data pack`.")
    manifest = Manifest(workspace)
    refuse_unrecorded(manifest, "pack", folder.name)
    refuse_unrecorded(manifest, "build-vocab", MAPPING_FILE)
    tokenizer = DucklingTokenizer(workspace / MAPPING_FILE)
    try:
        chunks = read_rows(folder)
    except (ValueError, OSError) as error:
        raise InputError(f"{folder}: cannot be read ({error}). `duckling-data verify` says what is damaged.") from error
    ends = np.cumsum([len(chunk) for chunk in chunks])
    total = int(ends[-1])
    if not 0 <= first < total:
        raise InputError(f"--row {first}: expected 0 to {total - 1:,}; {folder.name} has {total:,} rows.")
    for number in range(first, min(first + rows, total)):
        # The rows stay on the disk but for the one shown: a dataset may be larger than the memory.
        chunk = int(np.searchsorted(ends, number, side="right"))
        row = chunks[chunk][number - int(ends[chunk])]
        yield f"--- row {number:,} of {total:,} ({folder.name})"
        yield str(tokenizer.decode(row.tolist()))


def mapped_tokens(workspace: Path, text: str) -> Iterator[str]:
    """Yield a line for each GPT-2 token of the text: id, how often it was counted, its rank, what it becomes.

    Raises CheckFailed for counts or a mapping that are not those recorded.
    """
    manifest = Manifest(workspace)
    refuse_unrecorded(manifest, "count", COUNTS_NAME)
    refuse_unrecorded(manifest, "build-vocab", MAPPING_FILE)
    mapping = read_mapping(workspace / MAPPING_FILE)
    table = CompactTable.from_mapping(mapping)
    ids = load_encoder("tokenizers").encode(text)
    place: dict[int, tuple[int, int]] = {}
    if (workspace / COUNTS_NAME).exists():
        counts = read_counts(workspace / COUNTS_NAME)
        place = {
            int(t): (rank, int(n)) for rank, (t, n) in enumerate(zip(counts.gpt2_id, counts.count, strict=True), 1)
        }
    yield f"{'token':<20} {'GPT-2 id':>8} {'count':>12} {'rank':>7}  becomes"
    for token in ids:
        rank, count = place.get(token, (0, 0))
        becomes = [int(table.first[token]), *table.more.get(token, np.empty(0, int)).tolist()]
        kind = "live" if table.live[token] != table.none else "split" if len(becomes) > 1 else "unknown"
        shown = repr(GPT2.token_bytes(token).decode("utf-8", "replace"))
        yield f"{shown:<20} {token:>8} {count:>12,} {rank or '-':>7}  {kind}: {' '.join(map(str, becomes))}"
