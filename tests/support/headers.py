"""Headers of safetensors files that hold no tensors: cut off, too long, too deep, or at odds with their data."""

from __future__ import annotations

import json
import struct
from typing import Any


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


HEADERS = [
    b"",
    b"\x00" * 7,
    raw(b"{}", length=2**63),
    raw(b"{}", length=10**8 + 1),
    raw(b"[" * 100_000),
    raw(b'{"a":' * 100_000),
    raw(json.dumps({"a": entry(), "b": entry()}).encode(), bytes(8)),  # one place for two tensors
    raw(json.dumps({"a": entry(data_offsets=[8, 0])}).encode(), bytes(8)),
    raw(json.dumps({"a": entry()}).encode(), bytes(7)),
    raw(json.dumps({"a": entry()}).encode(), bytes(9)),
    raw(json.dumps({"a": entry(shape=[2**62, 2**62])}).encode(), bytes(8)),
    raw(json.dumps({"a": entry(dtype="\x1b[31mred")}).encode(), bytes(8)),
]
