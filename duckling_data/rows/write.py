"""Writes a directory that `datasets.load_from_disk` opens, with the same bytes under every version of the libraries.

`Dataset.save_to_disk` does not promise its bytes: they change with the versions of datasets and pyarrow. Here each
shard is an Arrow IPC stream written by pyarrow itself, with a fixed number of rows a batch and a shard and frozen
schema metadata, and the two JSON files beside the shards are written by hand. The metadata says `Sequence`, which
datasets 3 and 5 both read (3 does not know the newer name `List`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from duckling_data.base.disk import disk_errors, make_directory
from duckling_data.base.executor import Background
from duckling_data.base.files import PARTIAL, replace_directory, sync_directory, write_bytes
from duckling_data.rows.layout import MAX_VOCAB, TokenIds, dataset_info, row_dtype, schema

if TYPE_CHECKING:
    pass

ROWS_PER_BATCH = 1024
ROWS_PER_SHARD = 1 << 16


class HashingFile:
    """A binary file that hashes what is written to it; pyarrow writes through it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write and hash the bytes. Returns their number."""
        view = memoryview(data)
        self._hash.update(view)
        return self._file.write(view)

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flush to the disk and close."""
        if not self.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self.closed = True

    def describe(self) -> dict[str, Any]:
        """Return `{"bytes", "sha256"}` of the closed file, as the manifest keeps them."""
        return {"bytes": Path(self._file.name).stat().st_size, "sha256": self._hash.hexdigest()}


class RowWriter:
    """Writes rows of `ctx` tokens into a dataset directory beside its place.

    Used in a `with`, at whose end the directory is whole, or gone if there was an error; then `put_in_place()` or
    `discard()`. The bytes depend on the rows alone, not on how many come in one call.
    """

    def __init__(self, place: Path, ctx: int, split: str, total_vocab: int = MAX_VOCAB) -> None:
        self._place = place
        self._partial = place.with_name(place.name + PARTIAL)
        self._ctx = ctx
        self._split = split
        self._dtype = row_dtype(total_vocab)
        self._held: list[TokenIds] = []
        self._held_rows = 0
        self._shard_files: list[tuple[Path, dict[str, Any]]] = []
        self._file: HashingFile | None = None
        self._stream: Any = None
        self._shard_rows = 0
        self._schema = schema(ctx, total_vocab)
        self._info = dataset_info(ctx, total_vocab)
        self._payload = hashlib.sha256()
        self._disk = Background()
        self.rows = 0
        self.outputs: dict[str, dict[str, Any]] = {}
        """After the `with`: size and SHA-256 of each file, by its name inside the directory."""

    @property
    def payload_sha256(self) -> str:
        """SHA-256 of the rows' tokens so far, little-endian, in order."""
        return self._payload.hexdigest()

    def __enter__(self) -> Self:
        with disk_errors(self._partial):
            if self._partial.exists():
                shutil.rmtree(self._partial)
        make_directory(self._partial)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self._drain(whole_batches=False)
            self._disk.close()
            if kind is None:
                self._finish()
                return
        except BaseException:
            self._give_up()
            raise
        self._give_up()

    def _give_up(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):  # of a full disk, once more: the first error is the one to tell
                self._file.close()
        self.discard()

    def write(self, rows: TokenIds) -> None:
        """Append rows: ids of the rows' dtype, shape (n, ctx)."""
        if len(rows) == 0:
            return
        rows = np.ascontiguousarray(rows, self._dtype.newbyteorder("<"))
        self._payload.update(rows.data)
        self.rows += len(rows)
        self._held.append(rows)
        self._held_rows += len(rows)
        if self._held_rows >= ROWS_PER_BATCH:
            self._drain(whole_batches=True)

    def _drain(self, *, whole_batches: bool) -> None:
        """Write what is held, in batches of ROWS_PER_BATCH; the rest stays held if only whole batches are wanted."""
        rows = np.concatenate(self._held) if self._held else np.empty((0, self._ctx), self._dtype)
        end = len(rows) - len(rows) % ROWS_PER_BATCH if whole_batches else len(rows)
        # Hashing and writing the file is half of a row's cost: a thread does it beside the cutting of the next rows.
        self._disk.submit(self._write_batches, rows[:end])
        self._held, self._held_rows = ([rows[end:].copy()], len(rows) - end) if end < len(rows) else ([], 0)

    def _write_batches(self, rows: TokenIds) -> None:
        with disk_errors(self._partial):
            for start in range(0, len(rows), ROWS_PER_BATCH):
                self._write_batch(rows[start : start + ROWS_PER_BATCH])

    def _write_batch(self, rows: TokenIds) -> None:
        import pyarrow as pa

        if self._stream is None:
            path = self._partial / f"shard-{len(self._shard_files):05d}"
            self._file = HashingFile(path)
            self._stream = pa.ipc.new_stream(self._file, self._schema)
            self._shard_files.append((path, {}))
        values = pa.array(rows.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, self._ctx)
        self._stream.write_batch(pa.record_batch([column], schema=self._schema))
        self._shard_rows += len(rows)
        if self._shard_rows >= ROWS_PER_SHARD:
            self._close_shard()

    def _close_shard(self) -> None:
        assert self._file is not None
        self._stream.close()
        self._file.close()
        self._shard_files[-1] = (self._shard_files[-1][0], self._file.describe())
        self._stream = self._file = None
        self._shard_rows = 0

    def _finish(self) -> None:
        names = []
        with disk_errors(self._partial):
            if self._stream is not None:
                self._close_shard()
            for index, (path, described) in enumerate(self._shard_files):
                names.append(f"data-{index:05d}-of-{len(self._shard_files):05d}.arrow")
                path.rename(path.with_name(names[-1]))
                self.outputs[names[-1]] = described
        for name, value in (
            ("dataset_info.json", self._info),
            ("state.json", _state(names, self._split, self.payload_sha256)),
        ):
            data = json.dumps(value, indent=2).encode()
            write_bytes(self._partial / name, data)
            self.outputs[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        with disk_errors(self._partial):
            sync_directory(self._partial)

    def put_in_place(self) -> None:
        """Put the finished directory in the place of what was there."""
        replace_directory(self._partial, self._place)

    def discard(self) -> None:
        """Remove the finished directory, which is not to be put in place."""
        shutil.rmtree(self._partial, ignore_errors=True)


def _state(names: list[str], split: str, payload_sha256: str) -> dict[str, Any]:
    return {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": payload_sha256[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
