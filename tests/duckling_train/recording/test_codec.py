"""What is decoded has the bits of what was coded; residuals and means are the ones of the written definition."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from duckling_train.recording import codec
from duckling_train.recording.codec import BLOCK, LARGEST, LEVEL, LINE, ORDER

SMALLEST, LEAST_NORMAL = 2.0**-149, 2.0**-126
EXTREME = np.nextafter(np.float32(LARGEST), np.float32(0))
HARD = [0.0, -0.0, SMALLEST, -SMALLEST, LEAST_NORMAL, -LEAST_NORMAL, 1.0, np.nextafter(np.float32(1), np.float32(0)),
        -1.0, float(EXTREME), -float(EXTREME), 0.02, -0.02]  # fmt: skip
"""Both zeros, subnormals, both sides of an exponent, and the largest that is taken."""
floats = st.one_of(
    st.sampled_from(HARD), st.floats(-float(EXTREME), float(EXTREME), width=32, allow_nan=False, allow_infinity=False)
)
shapes = st.tuples(st.integers(1, BLOCK), st.integers(1, 5), st.integers(1, 4))


def coded(block: Any, coding: str) -> tuple[Any, Any]:
    """Return the residuals and means of a block's steps."""
    made = [codec.residual(w, list(block[max(0, t - 2) : t]), coding) for t, w in enumerate(block)]
    residuals = np.stack([residual for residual, _ in made])
    return residuals, None if coding == ORDER else np.stack([mean for _, mean in made])


def bits(value: float) -> int:
    """The bits of the float32 nearest to a float64: of a sum of two float32, as they add it."""
    (number,) = struct.unpack("<I", struct.pack("<f", value))
    return int(number)


def single(value: float) -> float:
    (number,) = struct.unpack("<f", struct.pack("<f", value))
    return float(number)


def slowly(block: Any, means: Any, coding: str) -> list[int]:
    """The residuals by the definition, number by number, from the means."""
    made = []
    for t, row, column in np.ndindex(*block.shape):
        w = [float(value) for value in block[:, row, column]]
        if t == 0:
            made.append(bits(w[0]))
            continue
        line = w[0] if t == 1 else single(w[t - 1] + single(w[t - 1] - w[t - 2]))
        p = 0.0 if coding == LEVEL else line
        q = single(p + float(means[t, column]))
        made.append((bits(w[t]) - bits(q) + 0x00808080) % 2**32)
    return made


@settings(max_examples=150)
@given(block=shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=floats)),
       coding=st.sampled_from([LINE, LEVEL]))  # fmt: skip
def test_every_float_comes_back_and_the_residuals_are_those_of_the_definition(block: Any, coding: str) -> None:
    residuals, means = coded(block, coding)
    assert np.isfinite(means).all()
    assert residuals.reshape(-1).tolist() == slowly(block, means, coding)
    assert codec.decode(residuals, means, coding).tobytes() == block.tobytes()


@settings(max_examples=100)
@given(block=shapes.flatmap(lambda shape: arrays.arrays(np.uint16, shape)))
def test_every_bit_pattern_of_bf16_comes_back(block: Any) -> None:
    """Infinities and NaN, too."""
    residuals, _ = coded(block, ORDER)
    assert codec.decode(residuals, None, ORDER).tobytes() == block.tobytes()


def test_golden_residuals() -> None:
    """By hand: the first step's bits; 0.5 goes on to 0.625 as expected; a step up by one bit is one more than the bias.

    These numbers are the same on every machine, or a record of one cannot be read on another.
    """
    block = np.array([[[0.25], [0.5]], [[0.375], [0.5625]], [[0.5], [0.625]], [[0.625], [0.6875]]], np.float32)
    block[3, 1, 0] = np.nextafter(np.float32(0.6875), np.float32(1))
    residuals, means = coded(block, LINE)
    assert means[:, 0].tolist() == [0.0, 0.09375, 0.0, float(np.float32(2**-25))]
    assert residuals[:, :, 0].tolist() == [
        [0x3E800000, 0x3F000000],
        [0x3EC00000 - 0x3EB00000 + 0x00808080, 0x3F100000 - 0x3F180000 + 0x00808080],
        [0x00808080, 0x00808080],
        [0x00808080, 0x00808081],  # half a bit is rounded to even: away from what it was for neither
    ]


def test_places_of_bf16_follow_the_values() -> None:
    """All 65,536: neighbours differ by one, -0 comes just before +0."""
    patterns = np.arange(65536, dtype=np.uint16)
    places = codec.in_order(patterns).view(np.int16)
    assert sorted(places.tolist()) == list(range(-32768, 32768))
    values = codec.widened(patterns)
    finite = np.isfinite(values)
    in_order = np.argsort(places[finite])
    assert (np.diff(values[finite][in_order]) >= 0).all()
    assert places[0] == 0
    assert places[0x8000] == -1
    assert (codec.out_of_order(codec.in_order(patterns)) == patterns).all()


def test_rounding_to_bf16_is_torchs() -> None:
    import torch

    numbers = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    numbers = np.concatenate([numbers[np.isfinite(numbers)], np.array(HARD, np.float32)])
    expected = torch.from_numpy(numbers).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert (codec.bf16_bits(numbers) == expected).all()
    assert (codec.widened(expected) == torch.from_numpy(numbers).bfloat16().float().numpy()).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, LARGEST, -LARGEST])
def test_a_number_that_a_prediction_could_not_hold_is_found(bad: float) -> None:
    w = np.full((3, 4), EXTREME, np.float32)
    assert codec.too_large(w) is None
    w[1, 2] = bad
    found = codec.too_large(w)
    assert found is not None
    assert found == bad or np.isnan(bad)


def test_numbers_up_to_the_largest_make_no_prediction_overflow() -> None:
    block = np.full((BLOCK, 2, 3), EXTREME, np.float32)
    block[::2] *= -1
    for coding in (LINE, LEVEL):
        residuals, means = coded(block, coding)
        with np.errstate(all="raise"):
            assert coded(block, coding)[0].tobytes() == residuals.tobytes()
        assert codec.decode(residuals, means, coding).tobytes() == block.tobytes()


@pytest.mark.parametrize("size", [2, 4])
def test_planes_come_back_and_other_bytes_are_refused(size: int) -> None:
    shape = (BLOCK, 3, 5)
    values = np.random.default_rng(2).integers(0, 2 ** (8 * size), shape).astype(f"u{size}")
    packed = codec.pack(values)
    assert (codec.joined(codec.unpack(packed, shape, size)) == values).all()
    for bad in (packed[:-3], b"", packed[4:], codec.pack(values[:-1]), b"x" * len(packed)):
        with pytest.raises(ValueError, match=r"."):
            codec.unpack(bad, shape, size)


def test_each_plane_has_a_code_table_of_its_own() -> None:
    """The lowest byte is noise, the next nearly so, the upper two constant: 11 % smaller than under one table."""
    import zstandard

    noise = np.random.default_rng(3).normal(0, 300, (BLOCK, 16, 128)).astype(np.int64)
    values = (noise + codec.BIAS[4]).astype(np.uint32)
    planes = np.stack(codec.unpack(codec.pack(values), values.shape, 4)).tobytes()
    assert len(codec.pack(values)) < 0.92 * len(zstandard.ZstdCompressor(level=1).compress(planes))


@pytest.mark.parametrize("coding", [LINE, LEVEL])
def test_a_mean_of_minus_zero_is_stored_as_zero(coding: str) -> None:
    """0 + c, as the recipe for stock zarr adds it, is +0 for both: a reader that takes c itself must find the same."""
    block = np.zeros((3, 2, 1), np.float32)
    block[1, 0], block[2] = -SMALLEST, -0.0
    residuals, means = coded(block, coding)
    assert not np.signbit(means[means == 0]).any()
    assert residuals.reshape(-1).tolist() == slowly(block, means, coding)
    assert codec.decode(residuals, means, coding).tobytes() == block.tobytes()
