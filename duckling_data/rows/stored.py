"""The rows of a dataset directory by their numbers, memory-mapped."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duckling_data.rows.read import read_rows
from duckling_data.rows.write import ROWS_PER_SHARD

Rows = npt.NDArray[np.uint16]


class StoredRows:
    """The rows in a directory. Raises ValueError for one that is not whole, InputError as `read_rows` does."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._chunks = read_rows(folder)
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def between(self, start: int, stop: int) -> Rows:
        """Return the rows from `start` to `stop`, as many of them as there are: uint16, shape (n, ctx)."""
        parts = []
        for chunk, end in zip(self._chunks, self._ends.tolist(), strict=True):
            first = end - len(chunk)
            if first < stop and end > start:
                parts.append(chunk[max(start - first, 0) : stop - first])
        return np.concatenate(parts) if parts else np.empty((0, 0), np.uint16)

    def payload_sha256(self) -> str:
        """Return the SHA-256 of the tokens, little-endian uint16, in order."""
        payload = hashlib.sha256()
        for chunk in self._chunks:
            payload.update(np.ascontiguousarray(chunk, dtype="<u2").data)
        return payload.hexdigest()

    def where(self, row: int) -> str:
        """Return a row's file and number, for a person; the number is the row's in the whole dataset."""
        shards = max(1, -(-len(self) // ROWS_PER_SHARD))
        return f"{self.name}/data-{row // ROWS_PER_SHARD:05d}-of-{shards:05d}.arrow row {row:,}"

    def difference(self, start: int, expected: Rows) -> str | None:
        """Return where the rows from `start` on are not the `expected` ones first, or None."""
        found = self.between(start, start + len(expected))
        count = min(len(found), len(expected))
        if count and found.shape[1] != expected.shape[1]:
            return f"{self.where(start)} has {found.shape[1]} tokens, expected {expected.shape[1]}"
        if not np.array_equal(found[:count], expected[:count]):
            row, column = (int(index) for index in np.argwhere(found[:count] != expected[:count])[0])
            ids = f"found {found[row, column]}, expected {expected[row, column]}"
            return f"{self.where(start + row)} column {column}: {ids}"
        if len(found) < len(expected):
            return f"{self.where(start + count)} is missing, expected one that begins with {expected[count, 0]}"
        return None
