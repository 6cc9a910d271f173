"""Lattice displacements, their norms and regimes, against whole numbers row by row."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_train.dynamics import displacement as moves
from tests.support.hard_rows import bits_of, coordinate, moving, pairs

ALL = range(len(pairs()))


def restated(number: int) -> list[list[int]]:
    before, after = pairs()[number]
    return [
        [coordinate(b) - coordinate(a) for a, b in zip(*rows, strict=True)] for rows in zip(before, after, strict=True)
    ]


@pytest.mark.parametrize("number", ALL)
def test_displacements_and_norms_are_those_of_whole_numbers(number: int) -> None:
    found = moves.lattice_displacement(*pairs()[number])
    assert found.tolist() == restated(number)
    norms = moves.norms(found)
    assert norms.l1.tolist() == [sum(map(abs, row)) for row in restated(number)]
    assert norms.l2_squared.tolist() == [sum(k * k for k in row) for row in restated(number)]
    assert norms.l2.tolist() == [math.sqrt(sum(k * k for k in row)) for row in restated(number)]
    assert norms.linf.tolist() == [max(map(abs, row)) for row in restated(number)]


@pytest.mark.parametrize("cuts", [moves.Cuts(), moves.Cuts(late=3, early=20.5), moves.Cuts(late=0, early=0)])
@pytest.mark.parametrize("number", ALL)
def test_regimes_and_the_published_cuts_are_by_their_definition(number: int, cuts: moves.Cuts) -> None:
    found = moves.norms(moves.lattice_displacement(*pairs()[number]))
    width = len(restated(number)[0])
    names, published = [], []
    for row in restated(number):
        l1, l2, linf = sum(map(abs, row)), math.sqrt(sum(k * k for k in row)), max(map(abs, row))
        early = l2 > (math.sqrt(width) if cuts.early is None else cuts.early)
        names.append("early" if early else "midlife" if linf > cuts.late else "late" if l1 else "frozen")
        published.append([l2 > math.sqrt(width), linf == 1, l1 == 1, l1 == 0])
    regimes = moves.regimes(found, width, cuts)
    assert [moves.REGIMES[regime] for regime in regimes] == names
    assert moves.fractions(regimes).tolist() == [names.count(name) / len(names) for name in moves.REGIMES]
    assert np.stack([*moves.hops(found, width).values()], axis=1).tolist() == published


@pytest.mark.parametrize("number", ALL)
def test_law_17_norms_are_in_order_and_fractions_sum_to_one(number: int) -> None:
    before, after = pairs()[number]
    norms, width = moves.norms(moves.lattice_displacement(before, after)), before.shape[1]
    assert (norms.linf <= norms.l2).all()
    assert (norms.l2_squared <= norms.l1**2).all()
    assert (norms.l1**2 <= width * norms.l2_squared).all()
    plain = [[[bits_of(value) for value in row] for row in rows] for rows in (before, after)]
    joined = [[[0 if bits == 0x8000 else bits for bits in row] for row in rows] for rows in plain]
    assert (norms.l1 == 0).tolist() == [a == b for a, b in zip(*joined, strict=True)]
    assert math.isclose(moves.fractions(moves.regimes(norms, width)).sum(), 1.0, rel_tol=1e-15)


def test_law_17_holds_on_rows_that_slow_down() -> None:
    seen = set()
    for scale in np.geomspace(1000, 0.1, 9):
        record = moving(width=32, rows=40) * np.float32(scale)
        record += np.float32(1 - record[0, 0, 0])  # near 1, where one lattice step is 2⁻⁷
        for before, after in itertools.pairwise(record):
            regimes = moves.regimes(moves.norms(moves.lattice_displacement(before, after)), 32)
            seen |= {*regimes.tolist()}
            assert math.isclose(moves.fractions(regimes).sum(), 1.0, rel_tol=1e-15)
    assert seen == {*range(len(moves.REGIMES))}


def test_ulp_displacement_is_the_lattices_where_sign_and_exponent_stay_and_huge_near_zero() -> None:
    for before, after in pairs():
        integer, real = moves.lattice_displacement(before, after), moves.ulp_displacement(before, after)
        stays = np.array([[bits_of(a) >> 7 == bits_of(b) >> 7 for a, b in zip(*rows, strict=True)]
                          for rows in zip(before, after, strict=True)])  # fmt: skip
        assert np.array_equal(real[stays], integer[stays])
    near_zero = np.array([[1e-38]], np.float32), np.array([[0.02]], np.float32)
    assert moves.ulp_displacement(*near_zero)[0, 0] > 1e37 > 1e5 > moves.lattice_displacement(*near_zero)[0, 0]


def test_no_rows_are_in_no_regime() -> None:
    assert np.isnan(moves.fractions(np.empty(0, np.int8))).all()


@pytest.mark.parametrize("cut", [-1.0, math.nan])
def test_a_cut_that_is_no_norm_is_refused(cut: float) -> None:
    for cuts in ({"late": cut}, {"early": cut}):
        with pytest.raises(InputError, match="expected numbers from 0 up"):
            moves.Cuts(**cuts)
