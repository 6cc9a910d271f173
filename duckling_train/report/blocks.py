"""Arrays in a page: little-endian bytes in one block, each with its type, place and length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Place = tuple[str, int, int]
"""The type (i2, u1, i4 or f4), the first byte and the number of values."""
LARGEST = 32767


@dataclass
class Block:
    """Bytes to which arrays are added."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, values: npt.NDArray[Any], kind: str) -> Place:
        """Add an array as values of this type; return where it is. It begins at a multiple of 4 bytes."""
        content = np.ascontiguousarray(values, np.dtype(f"<{kind}")).tobytes()
        place = kind, self.size, values.size
        padded = content + b"\0" * (-len(content) % 4)
        self.parts.append(padded)
        self.size += len(padded)
        return place

    def add_points(self, *groups: npt.NDArray[np.float32] | None) -> dict[str, Any]:
        """Add points, [..., 2], as int16: value = scale · q + offset of its axis, one scale for all groups."""
        present = [group.reshape(-1, 2) for group in groups if group is not None]
        low = np.min([group.min(axis=0) for group in present], axis=0).astype(np.float64)
        high = np.max([group.max(axis=0) for group in present], axis=0).astype(np.float64)
        offset, scale = (low + high) / 2, float((high - low).max()) / 2 / LARGEST or 1.0
        places = [None if group is None else self.add(np.rint((group - offset) / scale), "i2") for group in groups]
        return {"places": places, "offset": offset.tolist(), "scale": scale}

    def bytes(self) -> bytes:
        """Return all of them."""
        return b"".join(self.parts)


def packed(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return numbers of 0 to 3, [rows, columns], as four in a byte, the first in the lowest bits; rows begin anew."""
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % 4)))
    return np.asarray(sum(padded[:, first::4] << (2 * first) for first in range(4)), np.uint8)
