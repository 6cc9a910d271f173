"""bf16 bits, lattice coordinates and ULPs, against whole numbers one at a time, and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_train.dynamics.lattice import bf16_bits, lattice, ulp
from tests.support.hard_rows import EDGES, bits_of, coordinate, pairs

EVERY = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
FINITE = EVERY[(EVERY & 0x7F80) != 0x7F80]


@pytest.mark.parametrize("number", range(len(pairs())))
def test_bits_and_coordinates_are_those_of_whole_numbers(number: int) -> None:
    rows = pairs()[number][1]
    assert bf16_bits(rows).tolist() == [[bits_of(value) for value in row] for row in rows]
    assert lattice(bf16_bits(rows)).tolist() == [[coordinate(value) for value in row] for row in rows]


def test_bits_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 1 << 32, 50_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.concatenate([drawn[np.abs(drawn) < 3.38e38], np.array(EDGES, np.float32)])
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bf16_bits(values), expected)


def test_the_lattice_rises_with_the_value_and_joins_both_zeros() -> None:
    values = (FINITE.astype(np.uint32) << 16).view(np.float32)
    order = np.argsort(values, kind="stable")
    steps = np.diff(lattice(FINITE)[order])
    assert np.array_equal(steps, (np.diff(values[order].astype(np.float64)) > 0).astype(np.int32))
    assert np.array_equal(bf16_bits(values), FINITE)


def test_the_ulp_is_the_distance_to_the_next_value_away_from_zero() -> None:
    inner = FINITE[(FINITE & 0x7FFF) < 0x7F7F]
    here, above = ((bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for bits in (inner, inner + 1))
    assert np.array_equal(ulp(inner), np.abs(above - here))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3.4e38, np.float32(np.uint32(0xFFFFFFFF).view(np.float32))])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        bf16_bits(np.array([1, value], np.float32))


@pytest.mark.parametrize("function", [lattice, ulp])
@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF])
def test_bits_of_what_is_not_finite_are_refused(function: object, bits: int) -> None:
    with pytest.raises(InputError, match="not finite"):
        function(np.array([0, bits], np.uint16))  # type: ignore[operator]


def test_another_dtype_is_refused() -> None:
    with pytest.raises(InputError, match="expected float32"):
        bf16_bits(np.zeros(3))  # type: ignore[arg-type]
