"""The indicators of under-trained tokens, and how well they find dead rows, against slow restatements in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_train.dynamics import rows
from duckling_train.dynamics.detectability import NORM, auroc, detectability, norms, precision
from duckling_train.dynamics.indicators import NAMES, basis, indicators, mean_row
from tests.support.lattice_rows import Rows, crowded

RNG = np.random.default_rng(11)
SHIFTED = (RNG.standard_normal((60, 5)) * [3, 1, 1, 0.5, 0.1] + [5, 0, -2, 1, 0]).astype(np.float32)
CASES = [SHIFTED, SHIFTED[:6], crowded(2, 50, 4), SHIFTED[:, :1], np.concatenate([np.zeros((2, 5)), SHIFTED])]
CASES = [np.ascontiguousarray(case, np.float32) for case in CASES]
UNUSED = np.array([1, 4])


def slow_cosine_distance(first: list[float], second: list[float]) -> float:
    lengths = math.sqrt(math.fsum(x * x for x in first) * math.fsum(x * x for x in second))
    return 1.0 - (math.fsum(x * y for x, y in zip(first, second, strict=True)) / lengths if lengths else 0.0)


def slow_component(w: Rows) -> list[float]:
    """The first right singular vector of the centred rows: another way than that of the eigenvectors."""
    found: list[float] = np.linalg.svd(w.astype(np.float64) - w.astype(np.float64).mean(axis=0))[2][0].tolist()
    return found


def slow_indicators(w: Rows, unused: list[int]) -> list[list[float]]:
    """The four indicators of each row, one row and one value at a time."""
    table = w.astype(np.float64).tolist()
    mean = [math.fsum(column) / len(table) for column in zip(*table, strict=True)]
    component = slow_component(w)

    def without_mean(row: list[float]) -> list[float]:
        return [x - m for x, m in zip(row, mean, strict=True)]

    def without_pc(row: list[float]) -> list[float]:
        along = math.fsum(x * c for x, c in zip(row, component, strict=True))
        return [x - along * c for x, c in zip(row, component, strict=True)]

    u = [math.fsum(column) / len(unused) for column in zip(*(table[row] for row in unused), strict=True)]
    return [
        [slow_cosine_distance(row, u) for row in table],
        [slow_cosine_distance(without_mean(row), without_mean(u)) for row in table],
        [slow_cosine_distance(without_pc(row), without_pc(u)) for row in table],
        [math.dist(row, u) for row in table],
    ]


@pytest.mark.parametrize("block", [1 << 22, 7])
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_indicators_are_those_of_one_row_at_a_time(case: Rows, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK", block)
    found = indicators(case, UNUSED)
    slow = slow_indicators(case, UNUSED.tolist())
    for name, expected in zip(NAMES, slow, strict=True):
        if name == "cosine_without_first_pc" and case.shape[1] == 1:
            continue  # nothing but rounding is left
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9, atol=1e-12, err_msg=name)
    known = basis(case)
    np.testing.assert_allclose(np.abs(known.first_pc), np.abs(slow_component(case)), atol=1e-9)
    np.testing.assert_allclose(known.mean, case.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(norms(case), [math.hypot(*row) for row in case.tolist()], rtol=1e-12)


def test_by_hand() -> None:
    w = np.float32([[3, 4], [0, 2], [-3, 4], [0, 0]])
    found = indicators(w, np.array([1]))
    np.testing.assert_allclose(found.cosine, [0.2, 0, 0.2, 1])  # a row of zeros is at a right angle to all
    np.testing.assert_allclose(found.distance, [math.sqrt(13), 0, math.sqrt(13), 2])
    np.testing.assert_allclose(basis(w).mean, [0, 2.5])
    np.testing.assert_allclose(np.abs(basis(w).first_pc), [1, 0])  # variance 18 along it, 11 across
    np.testing.assert_allclose(found.cosine_without_first_pc, [0, 0, 0, 1], atol=1e-15)


def test_rows_that_are_all_the_same_have_no_component_and_no_angle_without_their_mean() -> None:
    found = indicators(np.full((5, 3), 0.25, np.float32), np.array([0]))
    assert found.cosine_without_mean.tolist() == [1] * 5
    np.testing.assert_allclose([found.cosine, found.cosine_without_first_pc, found.distance], 0, atol=1e-15)


def slow_auroc(values: list[float], dead: list[bool]) -> float:
    pairs = [
        1.0 if low < high else 0.5 if low == high else 0.0
        for low, is_dead in zip(values, dead, strict=True) if is_dead
        for high, other_dead in zip(values, dead, strict=True) if not other_dead
    ]  # fmt: skip
    return sum(pairs) / len(pairs)


def slow_precision(values: list[float], dead: list[bool], draws: int = 400) -> float:
    """The mean share over random orders of the rows with equal values."""
    rng = np.random.default_rng(0)
    count = sum(dead)
    shares = []
    for _ in range(draws):
        order = sorted(rng.permutation(len(values)).tolist(), key=lambda row: values[row])
        shares.append(sum(dead[row] for row in order[:count]) / count)
    return sum(shares) / draws


@pytest.mark.parametrize(("seed", "levels"), [(0, 1000), (1, 4), (2, 1), (3, 2)])
def test_auroc_and_precision_are_those_of_every_pair_and_every_order(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    dead = rng.random(40) < 0.3
    values = rng.integers(0, levels, 40) / 8 - dead * rng.random()
    assert auroc(values, dead) == pytest.approx(slow_auroc(values.tolist(), dead.tolist()), abs=1e-12)
    drawn = slow_precision(values.tolist(), dead.tolist())
    assert precision(values, dead) == pytest.approx(drawn, abs=1e-12 if levels == 1000 else 0.03)


def test_perfect_reversed_and_equal_values_are_1_0_and_a_half() -> None:
    dead = np.array([False, True, True, False, False])
    values = np.where(dead, 0.0, 1.0) + np.arange(5) / 100
    assert (auroc(values, dead), precision(values, dead)) == (1, 1)
    assert (auroc(-values, dead), precision(-values, dead)) == (0, 0)
    assert (auroc(np.zeros(5), dead), precision(np.zeros(5), dead)) == (0.5, 0.4)


def test_detectability_judges_each_indicator_without_its_reference_ids() -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((300, 6), np.float32)
    dead = np.arange(200, 300)
    w[dead] = w[dead] * np.float32(0.8) + np.float32(0.7)
    found = {(each.indicator, each.references): each for each in detectability(w, dead)}
    assert [*found] == [(NORM, 0), *((name, k) for k in (1, 8, 64) for name in NAMES)]
    is_dead = np.isin(np.arange(300), dead)
    plain = np.linalg.norm(w.astype(np.float64), axis=1).tolist()
    assert found[NORM, 0].auroc == pytest.approx(slow_auroc(plain, is_dead.tolist()))
    for k in (1, 8, 64):
        judged = ~np.isin(np.arange(300), dead[:k])
        for name, values in zip(NAMES, slow_indicators(w, dead[:k].tolist()), strict=True):
            of = np.array(values)[judged].tolist(), is_dead[judged].tolist()
            assert found[name, k].auroc == pytest.approx(slow_auroc(*of), abs=1e-9)
            assert found[name, k].precision == pytest.approx(slow_precision(*of, draws=1), abs=1e-9)


def test_one_dead_row_is_judged_by_its_norm_alone() -> None:
    assert [each.indicator for each in detectability(SHIFTED, np.array([7]))] == [NORM]


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no unused ids are given"):
        indicators(SHIFTED, np.array([], np.int64))
    with pytest.raises(InputError, match="unused ids from 3 to 60; expected ids below 60"):
        indicators(SHIFTED, np.array([3, 60]))
    with pytest.raises(InputError, match="no rows"):
        mean_row(SHIFTED[:0])
    for dead in (np.array([], np.int64), np.arange(60)):
        with pytest.raises(InputError, match="expected some dead and some live ones"):
            detectability(SHIFTED, dead)
    wrong = SHIFTED.copy()
    wrong[59, 4] = np.inf
    with pytest.raises(InputError, match="row 59 has the value inf"):
        indicators(wrong, UNUSED)
