"""Rows across chunks, read one by one, as slices, and hashed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_data.rows.layout import MAX_VOCAB, row_dtype
from duckling_data.rows.read import Rows, open_rows

TOKENS = np.arange(12, dtype=np.uint16).reshape(6, 2)


@pytest.fixture
def rows() -> Rows:
    return Rows([TOKENS[:1], TOKENS[1:4], TOKENS[4:]])


def test_rows_are_views_in_order_and_count_from_the_end_too(rows: Rows) -> None:
    assert [row.tolist() for row in rows] == TOKENS.tolist()
    assert [rows[i].tolist() for i in range(len(rows))] == TOKENS.tolist()
    assert [rows[i - len(rows)].tolist() for i in range(len(rows))] == TOKENS.tolist()
    assert np.shares_memory(rows[3], TOKENS)
    for outside in (6, -7):
        with pytest.raises(IndexError, match=f"row {outside} of 6"):
            rows[outside]


def test_slices_are_arrays_whatever_chunks_they_cross(rows: Rows) -> None:
    for start in range(-1, 8):
        for stop in range(-1, 8):
            assert np.array_equal(rows[start:stop], TOKENS[start:stop])
    with pytest.raises(ValueError, match="sliced with step 2; expected 1"):
        rows[::2]


def test_no_rows_have_no_context_no_id_and_the_digest_of_nothing() -> None:
    none = Rows([])
    assert (len(none), none.ctx, none.max_id(), none[:5].shape) == (0, 0, -1, (0, 0))
    assert none.payload_sha256().startswith("e3b0c442")


def test_rows_are_uint16_as_long_as_that_holds_every_id_and_a_vocabulary_has_a_bound() -> None:
    assert [row_dtype(size) for size in (1, 1 << 16, (1 << 16) + 1, MAX_VOCAB)] == ["u2", "u2", "u4", "u4"]
    with pytest.raises(InputError, match=r"1,048,577 ids is too large; expected at most 1,048,576"):
        row_dtype(MAX_VOCAB + 1)


def test_a_directory_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"state\.json: cannot be read"):
        open_rows(tmp_path)
