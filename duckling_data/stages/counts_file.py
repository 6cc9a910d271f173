"""`token_counts.parquet`: the token counts, written and read back with suspicion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular, replacing
from duckling_data.stages.count import TokenCounts
from duckling_data.tokens.gpt2 import GPT2

COUNTS_NAME = "token_counts.parquet"

COLUMNS = {"gpt2_id": GPT2.id_dtype.name, "count": "int64", "first_seen": "int32"}
"""The columns of `token_counts.parquet` and their types."""


def write_counts(path: Path, counts: TokenCounts) -> None:
    """Write the counts as Parquet: columns gpt2_id (uint16), count (int64), first_seen (int32)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "gpt2_id": pa.array(counts.gpt2_id.astype(GPT2.id_dtype)),
        "count": pa.array(counts.count),
        "first_seen": pa.array(counts.first_seen.astype(np.int32)),
    }
    table = pa.table(columns)
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_counts(path: Path) -> TokenCounts:
    """Return the counts in a file that `write_counts` wrote. Raises InputError for another kind of file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        open_regular(path).close()
        schema = pq.read_schema(str(path))
        found = {name: str(schema.field(name).type) for name in schema.names if schema.names.count(name) == 1}
        if found != COLUMNS:
            raise ValueError(f"its columns are {str(found)[:100]}, expected {COLUMNS}")
        table = pq.read_table(str(path), columns=list(COLUMNS))
        if any(column.null_count for column in table.columns):
            raise ValueError("it has nulls")
        columns: Iterator[npt.NDArray[np.int64]] = (c.to_numpy().astype(np.int64) for c in table.columns)
        counts = TokenCounts(*columns)
        if counts.gpt2_id.max(initial=0) >= GPT2.vocab_size:
            raise ValueError(f"it has the id {counts.gpt2_id.max()}, expected GPT-2's, below {GPT2.vocab_size}")
        return counts
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a table of counts ({reason}). `duckling-data count` makes it again.") from error
