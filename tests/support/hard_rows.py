"""Rows of float32 that a measurement may get wrong: zeros of both signs, subnormals, crossed exponents, equal rows."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
EDGES = (
    *(0.0, -0.0, 2.0**-149, -(2.0**-149), 2.0**-133, 2.0**-126, -(2.0**-126), 2.0**-127, 1e-40, 1.0, -1.0),
    *(np.nextafter(np.float32(1), np.float32(0)), 1.0 + 2.0**-7, 1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, 2.0 - 2.0**-8),
    *(0.5, 0.02, -0.02, 127.5, 1e30, -1e30, 3.38e38),
)  # fmt: skip


def bits_of(value: float) -> int:
    """The bits of the bf16 value nearest to a float32, ties to even, by whole numbers."""
    (whole,) = struct.unpack("<I", struct.pack("<f", value))
    above, rest = divmod(whole, 1 << 16)
    return above + (rest > 0x8000 or (rest == 0x8000 and above % 2 == 1))


def coordinate(value: float) -> int:
    """The lattice coordinate of the bf16 value nearest to a float32."""
    bits = bits_of(value)
    return bits if bits < 0x8000 else -(bits & 0x7FFF)


def pairs() -> list[tuple[Rows, Rows]]:
    """Rows before and after a step: random ones, drifting and still, and hand-made ones."""
    rng = np.random.default_rng(5)
    start = rng.normal(0, 0.02, (17, 12)).astype(np.float32)
    drift = (start + rng.normal(1e-3, 1e-4, start.shape)).astype(np.float32)
    drift[3], drift[5, 2:] = start[3], start[5, 2:]  # one at rest, one almost
    edges = np.array(EDGES, np.float32)
    every = np.repeat(edges[:, None], len(edges), axis=1)
    same = np.repeat(start[:1], 4, axis=0)
    near = np.array([[1.0, 0.0, 2.0**-149], [-0.0, 1.0, 255 / 256]], np.float32)
    far = np.array([[1.0 + 2.0**-7, -0.0, 0.0], [0.0, 2.0, 1.0]], np.float32)
    return [
        *((start, drift), (start, start.copy()), (every, every.T.copy()), (same, (same * 1.01).astype(np.float32))),
        *((start[:1], drift[:1]), (near, far)),
    ]  # fmt: skip


def moving(steps: int = 9, rows: int = 7, width: int = 6, seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows that drift together, float32[steps, rows, width]; the first stops halfway, the second never moves."""
    rng = np.random.default_rng(seed)
    drift = 1e-3 * np.cumsum(rng.normal(1, 0.3, (steps, 1, width)), axis=0)
    own = 1e-4 * np.cumsum(rng.normal(0, 1, (steps, rows, width)), axis=0)
    all_of = (rng.normal(0, 0.02, (1, rows, width)) + drift + own).astype(np.float32)
    all_of[steps // 2 :, 0], all_of[:, 1] = all_of[steps // 2, 0], all_of[0, 1]
    return all_of
