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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from duckling_data.base.disk import disk_errors
from duckling_data.base.executor import Background
from duckling_data.base.files import PARTIAL, remove, replace_directory, sync_directory, write_bytes
from duckling_data.base.records import FileRecord
from duckling_data.rows import layout
from duckling_data.rows.layout import NARROW_VOCAB, Positions, TokenIds

if TYPE_CHECKING:
    import pyarrow as pa

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


class DataFile:
    """One of a dataset's files while it is written: an Arrow IPC stream of batches of ROWS_PER_BATCH rows."""

    def __init__(self, path: Path, schema: pa.Schema, ctx: int) -> None:
        import pyarrow as pa

        self.path = path
        self.rows = 0
        """Rows written so far."""
        self._schema = schema
        self._ctx = ctx
        self._file = _HashingFile(path)
        self._stream = pa.ipc.new_stream(self._file, schema)

    def write(self, columns: Columns) -> None:
        """Write rows, whole batches except at the file's end."""
        for start in range(0, len(columns[0]), layout.ROWS_PER_BATCH):
            self._write_batch([column[start : start + layout.ROWS_PER_BATCH] for column in columns])

    def _write_batch(self, columns: Columns) -> None:
        import pyarrow as pa

        lists = [pa.FixedSizeListArray.from_arrays(layout.arrow_array(column), self._ctx) for column in columns]
        self._stream.write_batch(pa.record_batch(lists, schema=self._schema))
        self.rows += len(columns[0])

    def finish(self) -> FileRecord:
        """Flush the file to the disk. Returns its record."""
        self._stream.close()
        self._file.close()
        return FileRecord(self.path.stat().st_size, self._file.sha256.hexdigest())

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


def data_name(number: int, count: int) -> str:
    """Return the name of one of a dataset's `count` files with rows, as datasets names them."""
    return f"data-{number:05d}-of-{count:05d}.arrow"


def write_descriptions(
    folder: Path, data_files: Sequence[str], ctx: int, split: str, total_vocab: int, payload_sha256: str,
    positions_sha256: str | None,
) -> dict[str, FileRecord]:  # fmt: skip
    """Write `dataset_info.json` and `state.json` beside the files with rows. Returns the two files' records."""
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in data_files],
        "_fingerprint": layout.fingerprint(payload_sha256, positions_sha256),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    info = layout.dataset_info(ctx, total_vocab, positions=positions_sha256 is not None)
    written: dict[str, FileRecord] = {}
    for name, value in (("dataset_info.json", info), ("state.json", state)):
        data = json.dumps(value, indent=2).encode()
        write_bytes(folder / name, data)
        written[name] = FileRecord(len(data), hashlib.sha256(data).hexdigest())
    return written


class RowWriter:
    """Writes rows of `ctx` tokens into a dataset directory beside its place.

    Used in a `with`, at whose end the directory is whole, or gone if there was an error; then `put_in_place()` or
    `discard()`. The bytes depend on the rows alone, not on how many come in one call.
    """

    def __init__(
        self, place: Path, ctx: int, split: str, total_vocab: int = NARROW_VOCAB, *, positions: bool = False
    ) -> None:
        self._place = place
        self._partial = place.with_name(place.name + PARTIAL)
        self._ctx = ctx
        self._split = split
        dtypes = layout.column_dtypes(total_vocab, positions=positions).values()
        self._total_vocab = total_vocab
        self._schema = layout.schema(ctx, total_vocab, positions=positions)
        self._held: Columns = [np.empty((0, ctx), dtype.newbyteorder("<")) for dtype in dtypes]
        self._shards: list[FileRecord] = []
        self._file: DataFile | None = None
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
            while len(columns[0]):
                if self._file is None:
                    self._file = DataFile(self._shard_path(len(self._shards)), self._schema, self._ctx)
                room = layout.ROWS_PER_SHARD - self._file.rows
                self._file.write([column[:room] for column in columns])
                columns = [column[room:] for column in columns]
                if self._file.rows == layout.ROWS_PER_SHARD:
                    self._close_shard(self._file)

    def _close_shard(self, file: DataFile) -> None:
        self._shards.append(file.finish())
        self._file = None

    def _shard_path(self, number: int) -> Path:
        """Return the path of a shard until their number, which is in the final name, is known."""
        return self._partial / f"shard-{number:05d}"

    def _finish(self) -> None:
        with disk_errors(self._partial):
            if self._file is not None:
                self._close_shard(self._file)
            for number, record in enumerate(self._shards):
                name = data_name(number, len(self._shards))
                self._shard_path(number).rename(self._partial / name)
                self.outputs[name] = record
            self.outputs |= write_descriptions(
                self._partial, list(self.outputs), self._ctx, self._split, self._total_vocab, self.payload_sha256,
                self.positions_sha256,
            )  # fmt: skip
            sync_directory(self._partial)

    def put_in_place(self) -> None:
        """Put the finished directory in the place of what was there."""
        replace_directory(self._partial, self._place)

    def discard(self) -> None:
        """Remove the finished directory, which is not to be put in place."""
        shutil.rmtree(self._partial, ignore_errors=True)
