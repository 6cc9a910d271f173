"""`token_counts.parquet`: how often each GPT-2 token was counted; the table, written and read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular, replacing
from duckling_data.rows.layout import arrow_array
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.gpt2 import GPT2

COUNTS_NAME = "token_counts.parquet"

COLUMNS = {"gpt2_id": GPT2.id_dtype.name, "count": "int64", "first_seen": "int32"}
"""The columns of the file and their types; of another base `gpt2_id` holds its ids, in their own type."""
BASE = b"base"
"""The file's metadata have the SHA-256 of another base than GPT-2 under this name."""

COVERAGE_LEVELS = (0.9, 0.95, 0.99, 0.995, 0.999)


@dataclass(frozen=True)
class TokenCounts:
    """The counts, most frequent first, ties in order of first appearance (`collections.Counter.most_common`)."""

    gpt2_id: npt.NDArray[np.int64]
    """(n,) ids of the base, GPT-2, that occur."""
    count: npt.NDArray[np.int64]
    """(n,) how often."""
    first_seen: npt.NDArray[np.int64]
    """(n,) rank of first appearance: 0 for the very first token of the sample, no gaps."""

    @property
    def total(self) -> int:
        """The number of tokens counted."""
        return int(self.count.sum())

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The table: (n, 3), a row (id, count, first_seen) for each token."""
        return np.stack([self.gpt2_id, self.count, self.first_seen], axis=1)

    def digest(self) -> str:
        """Return the SHA-256 of the rows as little-endian int64, in hex."""
        return hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()

    def ids_for_coverage(self) -> dict[str, int]:
        """Return how many of the most frequent ids cover each of COVERAGE_LEVELS of the tokens."""
        covered = np.cumsum(self.count) / self.total
        return {f"{level:.1%}": int(np.searchsorted(covered, level)) + 1 for level in COVERAGE_LEVELS}


def _columns(base: BaseTokenizer) -> dict[str, str]:
    return COLUMNS | {"gpt2_id": base.id_dtype.name}


def write_counts(path: Path, counts: TokenCounts, base: BaseTokenizer = GPT2) -> None:
    """Write the counts as Parquet: columns gpt2_id (uint16, or the base's), count (int64), first_seen (int32)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: arrow_array(getattr(counts, name).astype(kind)) for name, kind in _columns(base).items()})
    if base.sha256 is not None:
        table = table.replace_schema_metadata({BASE: base.sha256})
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_counts(path: Path, base: BaseTokenizer = GPT2) -> TokenCounts:
    """Return the counts in a file that `write_counts` wrote. Raises InputError for another kind of file, or base."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        open_regular(path).close()
        with pq.ParquetFile(str(path)) as file:  # not `read_table`, which would import pyarrow.dataset
            schema, expected = file.schema_arrow, _columns(base)
            of_base = (schema.metadata or {}).get(BASE, b"").decode(errors="replace")
            if of_base != (base.sha256 or ""):
                made, given = (sha[:12] or "GPT-2" for sha in (of_base, base.sha256 or ""))
                raise ValueError(f"its tokens are those of the tokenizer {made}, expected {given}")
            found = [(column.name, str(column.type)) for column in schema]
            if found != list(expected.items()):
                raise ValueError(f"its columns are {str(found)[:100]}, expected {expected}")
            table = file.read(columns=list(COLUMNS))
        if any(column.null_count for column in table.columns):
            raise ValueError("it has nulls")
        counts = TokenCounts(*(np.from_dlpack(column.combine_chunks()).astype(np.int64) for column in table.columns))
        if counts.gpt2_id.max(initial=0) >= base.vocab_size:
            raise ValueError(f"it has the id {counts.gpt2_id.max()}, expected the base's, below {base.vocab_size}")
        return counts
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a table of counts ({reason}); `duckling-data count` makes it again.") from error
