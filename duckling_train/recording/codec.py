"""How a record's numbers become bytes and back, bit for bit: a step is predicted, and the difference compressed.

Steps are coded in blocks of BLOCK; the first of a block is stored as it is, so a block is decoded alone. Of float32
w[t] the prediction is q = p + c, where p goes on in a straight line from the two steps before,

    p = w[t-1] + (w[t-1] - w[t-2])      (w[t-1] at a block's second step; 0 for gradients, which have no course)

and c is the mean of w[t] - p over the rows, which is stored: dead rows move together. What is compressed is the
residual bits(w[t]) - bits(q) + BIAS, modulo 2^32. Decoding a row needs that row and c alone, and only additions and
subtractions of float32, each rounded by itself: the bits are the same on every machine. BIAS keeps a small difference
of either sign out of the upper bytes.

Of bf16 the residual is the difference of two steps' places in the order of the values, + 0x80, modulo 2^16.

Residuals are split into byte planes, each compressed by zstd as a block with a code table of its own: 11 % smaller here
than one table for all four planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]
Halves = npt.NDArray[np.uint16]

BLOCK = 16
"""Steps of a block. More are smaller on disk, and slower to read one of."""
BIAS = {4: 0x00808080, 2: 0x0080}
"""What is added to a residual, by the bytes of a number."""
LINE, LEVEL, ORDER = "line", "level", "order"
"""The codings: float32 with a course (W and AdamW's moments), float32 without one (gradients), bf16."""
LARGEST = 2.0**125
"""Numbers of this size or more are refused: below it no prediction overflows."""
_LEVEL = 1
"""Of zstd. 3 takes 2 to 4 times as long and gains nothing."""


def itemsize(coding: str) -> int:
    """Return the bytes of a number under a coding."""
    return 2 if coding == ORDER else 4


def too_large(w: Floats) -> float | None:
    """Return the first number that is not below LARGEST in size (NaN among them), or None."""
    limit = np.array(LARGEST, np.float32).view(np.uint32)
    bits = w.view(np.uint32) & np.uint32(0x7FFFFFFF)
    return None if bits.max(initial=0) < limit else float(w[bits >= limit][0])


def residual(w: Array, earlier: Sequence[Array], coding: str) -> tuple[Array, Floats | None]:
    """Return a step's residual, and for float32 the mean c.

    `w` is float32[rows, width], or the bits of bf16, uint16. `earlier` are the steps before it in the block, the last
    one last; of an empty one the result is the bits of `w` themselves, and c is 0.
    """
    if coding == ORDER:
        place = in_order(w)
        if not earlier:
            return place, None
        return place - in_order(earlier[-1]) + np.uint16(BIAS[2]), None
    words = w.view(np.uint32)
    if not earlier:
        return words, np.zeros(w.shape[1:], np.float32)
    p = _expected(earlier, coding)
    difference = w if p is None else np.subtract(w, p)
    mean = difference.mean(axis=0, dtype=np.float32) + np.float32(0)  # -0 becomes 0: then 0 + c is c in every reader
    q = np.broadcast_to(mean, w.shape) if p is None else np.add(p, mean, out=difference)
    made = words - q.view(np.uint32)
    made += np.uint32(BIAS[4])
    return made, mean


def decode(residuals: Array, means: Floats | None, coding: str) -> Array:
    """Return the steps of blocks: float32[..., steps, rows, width], or the bits of bf16, uint16.

    `residuals` are uint32 or uint16 of that shape, a block's first steps or all; `means` float32[..., steps, width].
    """
    if coding == ORDER:
        places = residuals.copy()
        places[..., 1:, :, :] -= np.uint16(BIAS[2])
        return out_of_order(np.cumsum(places, axis=-3, dtype=np.uint16))
    assert means is not None
    w = np.empty(residuals.shape, np.float32)
    with np.errstate(all="ignore"):  # other residuals than `residual` makes may overflow
        for t in range(residuals.shape[-3]):
            step, words = residuals[..., t, :, :], w[..., t, :, :].view(np.uint32)
            if t == 0:
                words[:] = step
                continue
            p = _expected([w[..., before, :, :] for before in range(max(0, t - 2), t)], coding)
            mean = means[..., t, None, :]
            q = np.broadcast_to(mean, step.shape).copy() if p is None else np.add(p, mean)
            np.add(step, q.view(np.uint32), out=words)
            words -= np.uint32(BIAS[4])
    return w


def _expected(earlier: Sequence[Array], coding: str) -> Floats | None:
    """Return p; None is 0."""
    if coding == LEVEL:
        return None
    last = np.asarray(earlier[-1], np.float32)
    if len(earlier) == 1:
        return last
    p = np.subtract(last, earlier[-2])
    return np.add(last, p, out=p)


def in_order(bits: Array) -> Halves:
    """Return the places of bf16 values, given as bits, in their order: neighbouring values differ by 1, modulo 2^16.

    -0 comes just before +0, so no bit is lost.
    """
    signed = bits.view(np.int16)
    places: Halves = np.bitwise_xor(signed, (signed >> 15) & np.int16(0x7FFF)).view(np.uint16)
    return places


def out_of_order(places: Array) -> Halves:
    """Return the bits of the values at these places: `in_order` is its own inverse."""
    return in_order(places)


def bf16_bits(w: Array) -> Halves:
    """Return finite float32 rounded to bf16, to nearest even, as bits: torch's `w.to(torch.bfloat16)`."""
    words = np.ascontiguousarray(w, np.float32).view(np.uint32)
    rounded = words >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += words
    rounded >>= np.uint32(16)
    return rounded.astype(np.uint16)


def widened(bits: Array) -> Floats:
    """Return the values of bf16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def pack(residuals: Array) -> bytes:
    """Return the byte planes of a uint32 or uint16 array, lowest first, as one frame of zstd."""
    flat, size = np.ascontiguousarray(residuals).reshape(-1), residuals.itemsize
    stream = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=residuals.nbytes)
    parts: list[bytes] = []
    for byte in range(size):
        plane = (flat >> flat.dtype.type(8 * byte)).astype(np.uint8)
        parts += [stream.compress(plane), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*parts, stream.flush()])


def unpack(content: bytes, shape: tuple[int, ...], size: int) -> list[npt.NDArray[np.uint8]]:
    """Return the byte planes that `pack` was given, each uint8 of `shape`. Raises ValueError for other content."""
    expected = size * int(np.prod(shape))
    try:
        parameters = zstandard.get_frame_parameters(content)
        if parameters.content_size != expected:
            raise ValueError(f"{parameters.content_size} bytes, expected {expected}")
        planes = zstandard.ZstdDecompressor().decompress(content, max_output_size=expected)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return list(np.frombuffer(planes, np.uint8).reshape(size, *shape))


def joined(planes: Sequence[npt.NDArray[np.uint8]]) -> Array:
    """Return the numbers, uint32 or uint16, whose bytes the planes are, lowest first."""
    kind: Any = np.uint32 if len(planes) == 4 else np.uint16
    made: Array = planes[0].astype(kind)
    for byte, plane in enumerate(planes[1:], 1):
        made |= plane.astype(kind) << kind(8 * byte)
    return made
