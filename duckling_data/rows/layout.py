"""How rows of tokens are laid out: an Arrow column of lists of `ctx` ids, whose dtype the vocabulary size decides.

A second column, where it is asked for, says where stories begin: each token's index in its own story.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN = "input_ids"
POSITION = "position"
"""The column of each token's index in its own story, uint32: 0 at a story's first token."""
ROWS_PER_BATCH = 1024
ROWS_PER_SHARD = 1 << 16
NARROW_VOCAB = 1 << 16
"""The largest vocabulary, in ids, whose rows are uint16; those of a larger one are uint32."""
MAX_VOCAB = 1 << 20
"""The largest vocabulary, in ids: far more than tokenizers have, and less than what fills a machine's memory."""

TokenIds = npt.NDArray[np.unsignedinteger[Any]]
"""Token ids in memory, uint16 or uint32: one dimension for a text, (n, ctx) for rows."""
Positions = npt.NDArray[np.uint32]
"""The tokens' indices in their own stories, in the same shape."""


def row_dtype(total_vocab: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the dtype that rows of ids below `total_vocab` are stored with, in the machine's byte order.

    Raises InputError for a vocabulary of more than MAX_VOCAB ids.
    """
    if total_vocab > MAX_VOCAB:
        raise InputError(f"a vocabulary of {total_vocab:,} ids is too large; expected at most {MAX_VOCAB:,}")
    return np.dtype(np.uint16 if total_vocab <= NARROW_VOCAB else np.uint32)


def column_dtypes(total_vocab: int = NARROW_VOCAB, *, positions: bool = False) -> dict[str, np.dtype[Any]]:
    """Return the dtype of each column by its name: the ids', that of `row_dtype(total_vocab)`, and the positions'."""
    return {COLUMN: row_dtype(total_vocab)} | ({POSITION: np.dtype(np.uint32)} if positions else {})


def arrow_array(values: npt.NDArray[Any]) -> pa.Array:
    """Return a contiguous array of numbers as Arrow's, over the same memory. `pyarrow.array` would import pandas."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), values.size, [None, pa.py_buffer(values)])


def schema(ctx: int, total_vocab: int = NARROW_VOCAB, *, positions: bool = False) -> pa.Schema:
    """Return the Arrow schema of the rows: each column a `fixed_size_list<dtype>[ctx]`, with datasets' metadata."""
    import pyarrow as pa

    dtypes = column_dtypes(total_vocab, positions=positions)
    metadata = {"huggingface": json.dumps({"info": {"features": _features(ctx, dtypes)}})}
    fields = [pa.field(name, pa.list_(pa.from_numpy_dtype(dtype), ctx)) for name, dtype in dtypes.items()]
    return pa.schema(fields, metadata=metadata)


def dataset_info(ctx: int, total_vocab: int = NARROW_VOCAB, *, positions: bool = False) -> dict[str, Any]:
    """Return the content of `dataset_info.json`, as datasets writes it beside the rows."""
    features = _features(ctx, column_dtypes(total_vocab, positions=positions))
    return {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}


def fingerprint(payload_sha256: str, positions_sha256: str | None) -> str:
    """Return what datasets names its caches by, 16 hex digits: other content, other caches."""
    return payload_sha256[:16] if positions_sha256 is None else payload_sha256[:8] + positions_sha256[:8]


def _features(ctx: int, dtypes: dict[str, np.dtype[Any]]) -> dict[str, Any]:
    values = {name: {"dtype": dtype.name, "_type": "Value"} for name, dtype in dtypes.items()}
    return {name: {"feature": value, "length": ctx, "_type": "Sequence"} for name, value in values.items()}
