"""Where a record keeps what, as a zarr version 3 group: opens in stock zarr, and in `record.py` at full speed.

    record.zarr/  zarr.json                     the group: what is recorded, of which run, and the recipe to decode it
                  steps  rows  dead             int64 steps recorded, int64 ids of the rows recorded, bool
                  W/residual  W/c               uint8[step, row, width, byte], float32[step, width]; no c where bf16
                  grad_in grad_out exp_avg …    the same
                  h_mean  p_dead                float32[step, width], float32[step, row]

A file holds `shard` steps and is written whole; of a residual it is a zarr shard of chunks of BLOCK steps by some rows.
Every chunk ends with its CRC-32C, which zarr checks, too. The file of `steps` is written last: what it does not name is
not recorded. -1 in it stands for a step that is not there yet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.files import own_folder, remove, write_bytes
from duckling_data.base.records import read_record
from duckling_train.recording.codec import BLOCK, itemsize

FORMAT = 1
GROUP = "zarr.json"
STEPS, ROWS, DEAD = "steps", "rows", "dead"
MATRICES = ("W", "grad_in", "grad_out", "exp_avg", "exp_avg_sq")
"""Tensors with a row of numbers for each recorded row."""
VECTORS = ("h_mean", "p_dead")
CHUNK_BYTES = 1 << 17
"""A chunk of a residual: its rows are as many as this holds."""
SHARD_BYTES, LONGEST = 1 << 26, 64
"""A shard's steps are as many as this holds, uncompressed, of all tensors; and at most so many."""
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]

RECIPE = """import numpy as np, zarr
def block(tensor, b, coding="line", n=16):  # steps 16 b to 16 b + 15 of a group such as zarr.open("record.zarr")["W"]
    part = np.ascontiguousarray(tensor["residual"][b * n : (b + 1) * n])
    r = part.view(f"<u{part.shape[-1]}")[..., 0]
    if coding == "order":  # bf16: returns its bits
        k = r.copy()
        k[1:] -= np.uint16(0x80)
        k = np.cumsum(k, axis=0, dtype=np.uint16).view(np.int16)
        return (k ^ ((k >> 15) & 0x7FFF)).view(np.uint16)
    c, w = tensor["c"][b * n : (b + 1) * n], r.view(np.float32).copy()
    for t in range(1, len(w)):
        p = 0 if coding == "level" else w[t - 1] if t == 1 else w[t - 1] + (w[t - 1] - w[t - 2])
        q = np.ascontiguousarray(np.broadcast_to(np.float32(p) + c[t], w[t].shape))
        w[t] = (r[t] - np.uint32(0x00808080) + q.view(np.uint32)).view(np.float32)
    return w
"""
"""How a block is decoded, in the group's attributes: nothing but numpy and stock zarr."""


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a record holds; in the attributes of its group."""

    format: int
    run: str
    """What run it is of: `run_identity`."""
    every: Positive
    """Steps between two that are recorded."""
    rows: Positive
    """How many."""
    width: Positive
    dtype: str
    """Of W: float32 or bfloat16."""
    codings: dict[str, str]
    """Each matrix's."""
    vectors: list[str]
    block: int
    shard: Positive
    """Steps of a file: a multiple of `block`."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of what is recorded."""
        return (*self.codings, *self.vectors)

    def chunk_rows(self, coding: str) -> int:
        """Return the rows of a residual's chunk."""
        return max(1, min(self.rows, CHUNK_BYTES // (BLOCK * self.width * itemsize(coding))))

    def step_bytes(self) -> int:
        """Return the bytes of a step, uncompressed."""
        matrices = sum(self.rows * self.width * itemsize(coding) for coding in self.codings.values())
        return matrices + 4 * self.width * len(self.codings) + 4 * sum(self.vector(name) for name in self.vectors)

    def vector(self, name: str) -> int:
        """Return how many numbers a step of a vector has."""
        return self.width if name == "h_mean" else self.rows


def shard_steps(step_bytes: int) -> int:
    """Return how many steps a shard has where a step has so many bytes."""
    return max(BLOCK, min(LONGEST, SHARD_BYTES // step_bytes // BLOCK * BLOCK))


@dataclass(frozen=True)
class Place:
    """A record's directory."""

    path: Path

    def file(self, array: str, *numbers: int) -> Path:
        """Return the path of an array's file by its chunk's numbers."""
        return self.path / array / ".".join(["c", *map(str, numbers)])

    def shard(self, tensor: str, number: int) -> Path:
        """Return the path of a tensor's file: of a matrix its residual's."""
        return self.file(tensor, number, 0) if tensor in VECTORS else self.file(f"{tensor}/residual", number, 0, 0, 0)

    def write(self, array: str, numbers: tuple[int, ...], content: bytes) -> None:
        """Write an array's file, whole or not at all. Raises as `disk_errors` does."""
        own_folder(self.path, *array.split("/"))
        write_bytes(self.file(array, *numbers), content)

    def layout(self) -> Layout:
        """Return what the record holds. Raises InputError where this is none, or one of another version."""
        path = self.path / GROUP
        if not path.is_file():
            raise InputError(f"{self.path}: no record of Duckling ({GROUP} is missing): train with --record dead")
        content = read_record(path, dict[str, Any], "record the run again", limit=1 << 20)
        held = (content.get("attributes") or {}).get("duckling_record")
        advice = "expected a record that duckling-train --record wrote"
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise InputError(f"{path}: another zarr group, or another version's record; {advice}")
        try:
            layout = msgspec.convert(held, Layout)
        except msgspec.ValidationError as error:
            raise InputError(f"{path}: {error}; {advice}") from error
        if layout.block != BLOCK or layout.shard % BLOCK or layout.shard > LONGEST or not layout.codings:
            raise InputError(f"{path}: blocks of {layout.block} and files of {layout.shard} steps; {advice}")
        return layout

    def create(self, layout: Layout) -> None:
        """Make the directory, empty, and its groups. Raises as `disk_errors` does."""
        remove(self.path)
        own_folder(self.path.parent, self.path.name)
        self._put(ROWS, _array("int64", (layout.rows,), (layout.rows,), [_BYTES]))
        self._put(DEAD, _array("bool", (layout.rows,), (layout.rows,), [_BYTES], fill=False))
        for name, coding in layout.codings.items():
            self._put(name, _group({"coding": coding}))
        self.describe(layout, 0)
        self._put("", _group({"duckling_record": msgspec.to_builtins(layout), "recipe": RECIPE}))

    def describe(self, layout: Layout, steps: int) -> None:
        """Write what stock zarr reads of each array that grows: its shape is that of so many steps."""
        shard, width = layout.shard, layout.width
        self._put(STEPS, _array("int64", (steps,), (shard,), [_BYTES], fill=-1))
        for name in layout.vectors:
            size = layout.vector(name)
            self._put(name, _array("float32", (steps, size), (shard, size), [_BYTES, _ZSTD]))
        for name, coding in layout.codings.items():
            chunk, size = layout.chunk_rows(coding), itemsize(coding)
            whole = (shard, -(-layout.rows // chunk) * chunk, width, size)
            codecs = [_sharding((BLOCK, chunk, width, size))]
            shape = (steps, layout.rows, width, size)
            self._put(f"{name}/residual", _array("uint8", shape, whole, codecs, sums=False))
            if size == 4:
                self._put(f"{name}/c", _array("float32", (steps, width), (shard, width), [_BYTES, _ZSTD]))

    def _put(self, node: str, content: dict[str, Any]) -> None:
        folder = own_folder(self.path, *node.split("/")) if node else self.path
        write_bytes(folder / GROUP, json.dumps(content, indent=2).encode() + b"\n")


_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
_CRC = {"name": "crc32c"}


def _sharding(chunk: tuple[int, ...]) -> dict[str, Any]:
    """Return the codec of a residual: byte planes first, so that they compress each by itself."""
    planes = {"name": "transpose", "configuration": {"order": [3, 0, 1, 2]}}
    settings = {
        "chunk_shape": list(chunk), "codecs": [planes, _BYTES, _ZSTD, _CRC], "index_codecs": [_BYTES, _CRC],
        "index_location": "end",
    }  # fmt: skip
    return {"name": "sharding_indexed", "configuration": settings}


def _array(
    kind: str, shape: tuple[int, ...], chunk: tuple[int, ...], codecs: list[Any], *, fill: Any = 0, sums: bool = True
) -> dict[str, Any]:
    return {
        "zarr_format": 3, "node_type": "array", "shape": list(shape), "data_type": kind,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill, "codecs": codecs + ([_CRC] if sums else []), "attributes": {},
    }  # fmt: skip


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
