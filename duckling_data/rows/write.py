"""Writes a directory that `datasets.load_from_disk` opens, with the same bytes under every version of the libraries.

`Dataset.save_to_disk` does not promise its bytes: they change with the versions of datasets and pyarrow. Here each
shard is an Arrow IPC stream with a fixed number of rows a batch and a shard and frozen schema metadata, and the two
JSON files are written by hand. The metadata says `Sequence`, which datasets 3 and 5 both read (3 has no `List`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from duckling_data.base.disk import disk_errors
from duckling_data.base.executor import Background
from duckling_data.base.files import PARTIAL, remove, replace_directory, sync_directory, write_bytes
from duckling_data.base.records import FileRecord
from duckling_data.rows import layout
from duckling_data.rows.layout import MAX_VOCAB, Positions, TokenIds

Columns = list[npt.NDArray[Any]]
"""Rows, shape (n, ctx), and their tokens' positions, if there are any."""


class _HashingFile(io.BufferedWriter):
    """A new file that is hashed while pyarrow writes to it, and flushed to the disk when closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "x"))
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            self.flush()
            os.fsync(self.fileno())
        super().close()


class RowWriter:
    """Writes rows of `ctx` tokens into a dataset directory beside its place.

    Used in a `with`, at whose end the directory is whole, or gone if there was an error; then `put_in_place()` or
    `discard()`. The bytes depend on the rows alone, not on how many come in one call.
    """

    def __init__(
        self, place: Path, ctx: int, split: str, total_vocab: int = MAX_VOCAB, *, positions: bool = False
    ) -> None:
        self._place = place
        self._partial = place.with_name(place.name + PARTIAL)
        self._ctx = ctx
        self._split = split
        dtypes = layout.column_dtypes(total_vocab, positions=positions).values()
        self._schema = layout.schema(ctx, total_vocab, positions=positions)
        self._info = layout.dataset_info(ctx, total_vocab, positions=positions)
        self._held: Columns = [np.empty((0, ctx), dtype.newbyteorder("<")) for dtype in dtypes]
        self._shards: list[FileRecord] = []
        self._shard_rows = 0
        self._file: _HashingFile | None = None
        self._stream: Any = None
        self._digests = [hashlib.sha256() for _ in self._held]
        self._disk = Background()
        self.outputs: dict[str, FileRecord] = {}
        """After the `with`: the record of each file, by its name inside the directory."""

    @property
    def payload_sha256(self) -> str:
        """SHA-256 of the rows' tokens so far, little-endian, in order."""
        return self._digests[0].hexdigest()

    @property
    def positions_sha256(self) -> str | None:
        """SHA-256 of the tokens' positions so far, little-endian, in order; None where none are written."""
        return self._digests[1].hexdigest() if len(self._digests) > 1 else None

    def __enter__(self) -> Self:
        remove(self._partial)
        with disk_errors(self._partial):
            self._partial.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(self._give_up)
            if kind is None:
                self._disk.submit(self._write_batches, self._held)
            self._disk.close()
            if kind is None:
                self._finish()
                undo.pop_all()

    def _give_up(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):  # of a full disk, once more: the first error is the one to tell
                self._file.close()
        self.discard()

    def write(self, rows: TokenIds, positions: Positions | None = None) -> None:
        """Append rows, and their tokens' positions if the writer was told of them: shape (n, ctx) both."""
        given = [rows] if positions is None else [rows, positions]
        columns: Columns = []
        for column, held, digest in zip(given, self._held, self._digests, strict=True):
            column = np.ascontiguousarray(column, held.dtype)
            digest.update(column.data)
            columns.append(np.concatenate([held, column]))
        end = len(columns[0]) - len(columns[0]) % layout.ROWS_PER_BATCH
        self._held = [column[end:] for column in columns]
        if end:
            # Hashing and writing the file is half of a row's cost: a thread does it beside the cutting of the next.
            self._disk.submit(self._write_batches, [column[:end] for column in columns])

    def _write_batches(self, columns: Columns) -> None:
        with disk_errors(self._partial):
            for start in range(0, len(columns[0]), layout.ROWS_PER_BATCH):
                self._write_batch([column[start : start + layout.ROWS_PER_BATCH] for column in columns])

    def _write_batch(self, columns: Columns) -> None:
        import pyarrow as pa

        if self._file is None:
            self._file = _HashingFile(self._shard_path(len(self._shards)))
            self._stream = pa.ipc.new_stream(self._file, self._schema)
        lists = [pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), self._ctx) for column in columns]
        self._stream.write_batch(pa.record_batch(lists, schema=self._schema))
        self._shard_rows += len(columns[0])
        if self._shard_rows >= layout.ROWS_PER_SHARD:
            self._close_shard(self._file)

    def _close_shard(self, file: _HashingFile) -> None:
        self._stream.close()
        file.close()
        size = self._shard_path(len(self._shards)).stat().st_size
        self._shards.append(FileRecord(size, file.sha256.hexdigest()))
        self._file, self._shard_rows = None, 0

    def _shard_path(self, number: int) -> Path:
        """Return the path of a shard until their number, which is in the final name, is known."""
        return self._partial / f"shard-{number:05d}"

    def _finish(self) -> None:
        with disk_errors(self._partial):
            if self._file is not None:
                self._close_shard(self._file)
            for number, record in enumerate(self._shards):
                name = f"data-{number:05d}-of-{len(self._shards):05d}.arrow"
                self._shard_path(number).rename(self._partial / name)
                self.outputs[name] = record
            state: dict[str, Any] = {
                "_data_files": [{"filename": name} for name in self.outputs],
                "_fingerprint": layout.fingerprint(self.payload_sha256, self.positions_sha256),
                "_format_columns": None,
                "_format_kwargs": {},
                "_format_type": None,
                "_output_all_columns": False,
                "_split": self._split,
            }
            for name, value in (("dataset_info.json", self._info), ("state.json", state)):
                data = json.dumps(value, indent=2).encode()
                write_bytes(self._partial / name, data)
                self.outputs[name] = FileRecord(len(data), hashlib.sha256(data).hexdigest())
            sync_directory(self._partial)

    def put_in_place(self) -> None:
        """Put the finished directory in the place of what was there."""
        replace_directory(self._partial, self._place)

    def discard(self) -> None:
        """Remove the finished directory, which is not to be put in place."""
        shutil.rmtree(self._partial, ignore_errors=True)
