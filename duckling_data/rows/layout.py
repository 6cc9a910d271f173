"""How rows of tokens are laid out: an Arrow column of lists of `ctx` ids, whose dtype the vocabulary size decides.

A wider dtype than uint16, for larger vocabularies, is added to `row_dtype` and `TokenIds`, and nowhere else.
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
ROWS_PER_BATCH = 1024
ROWS_PER_SHARD = 1 << 16
MAX_VOCAB = 1 << 16
"""The largest vocabulary, in ids."""

TokenIds = npt.NDArray[np.uint16]
"""Token ids in memory: one dimension for a text, (n, ctx) for rows."""


def row_dtype(total_vocab: int) -> np.dtype[np.uint16]:
    """Return the dtype that rows of ids below `total_vocab` are stored with, in the machine's byte order.

    Raises InputError for a vocabulary of more than MAX_VOCAB ids.
    """
    if total_vocab > MAX_VOCAB:
        raise InputError(
            f"a vocabulary of {total_vocab:,} ids is too large for uint16 rows; expected at most {MAX_VOCAB:,}"
        )
    return np.dtype(np.uint16)


def row_type(ctx: int, total_vocab: int = MAX_VOCAB) -> pa.FixedSizeListType:
    """Return the Arrow type of a row: `fixed_size_list<dtype>[ctx]`, the dtype that of `row_dtype(total_vocab)`."""
    import pyarrow as pa

    return pa.list_(pa.from_numpy_dtype(row_dtype(total_vocab)), ctx)


def schema(ctx: int, total_vocab: int = MAX_VOCAB) -> pa.Schema:
    """Return the Arrow schema of the rows: one column of `row_type(ctx, total_vocab)`, with datasets' metadata."""
    import pyarrow as pa

    metadata = {"huggingface": json.dumps({"info": {"features": _features(ctx, total_vocab)}})}
    return pa.schema([pa.field(COLUMN, row_type(ctx, total_vocab))], metadata=metadata)


def dataset_info(ctx: int, total_vocab: int = MAX_VOCAB) -> dict[str, Any]:
    """Return the content of `dataset_info.json`, as datasets writes it beside the rows."""
    features = _features(ctx, total_vocab)
    return {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}


def _features(ctx: int, total_vocab: int) -> dict[str, Any]:
    value = {"dtype": row_dtype(total_vocab).name, "_type": "Value"}
    return {COLUMN: {"feature": value, "length": ctx, "_type": "Sequence"}}
