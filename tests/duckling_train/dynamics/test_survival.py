"""Survival curves of freeze onsets, against the product over the onsets and simulated Poisson processes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_train.dynamics import survival

END = 200


def product_limit(onset: list[int], hidden: list[bool], step: int) -> float:
    """Kaplan and Meier's product: over the onsets up to a step, the share of those at risk that do not freeze there."""
    times = [END if censored else time for time, censored in zip(onset, hidden, strict=True)]
    left = 1.0
    for time in sorted({t for t, censored in zip(onset, hidden, strict=True) if not censored and t <= step}):
        at_risk = sum(each >= time for each in times)
        left *= 1 - sum(t == time and not censored for t, censored in zip(onset, hidden, strict=True)) / at_risk
    return left


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_curve_is_the_product_over_the_onsets(share: float) -> None:
    rng = np.random.default_rng(1)
    onset, hidden = rng.integers(1, END, 60), rng.random(60) < share
    curve = survival.kaplan_meier(onset, hidden, END)
    steps = np.arange(END + 1)
    expected = [product_limit(onset.tolist(), hidden.tolist(), step) for step in steps.tolist()]
    assert np.allclose(curve.at(steps), expected, rtol=0, atol=1e-12)
    half = [step for step, left in zip(steps.tolist(), expected, strict=True) if left <= 0.5 + 1e-12]
    assert curve.median == (half[0] if half else None)
    inside = ~np.isnan(curve.low)
    assert (curve.low[inside] <= curve.share[inside]).all()
    assert (curve.share[inside] <= curve.high[inside]).all()


def test_one_row_is_a_curve_and_none_is_refused() -> None:
    assert survival.kaplan_meier(np.array([7]), np.array([False]), END).at(np.array([6, 7])).tolist() == [1, 0]
    assert survival.kaplan_meier(np.array([7]), np.array([True]), END).at(np.array([6, END])).tolist() == [1, 1]
    with pytest.raises(InputError, match="of no rows"):
        survival.kaplan_meier(np.empty(0, np.int64), np.empty(0, bool), END)


def test_a_silence_is_a_freeze_only_where_the_hop_rate_makes_it_improbable() -> None:
    silent, rate = np.array([0, 1, 40, 40, 199]), np.array([1.0, 1.0, 1.0, 0.01, 0.0])
    expected = [math.exp(-r * s) for r, s in zip(rate, silent, strict=True)]
    assert np.allclose(survival.silence_probabilities(silent, rate), expected, rtol=1e-14)
    assert survival.censored(silent, rate).tolist() == [True, True, False, True, True]
    assert survival.censored(silent, rate, alpha=0.5).tolist() == [True, False, False, True, True]


def test_the_null_is_the_last_hop_of_a_poisson_process() -> None:
    rng = np.random.default_rng(3)
    rates = np.array([0.001, 0.02, 0.3])
    steps = np.array([0, 50, 150, 195, END])
    lasts = np.array(
        [[max([0.0, *rng.uniform(0, END, rng.poisson(rate * END))]) for rate in rates] for _ in range(4000)]
    )
    simulated = [(lasts > step).mean() for step in steps]
    assert np.allclose(survival.poisson_null(rates, END, steps), simulated, atol=0.01)


def test_rows_that_only_hop_at_random_are_not_seen_to_freeze() -> None:
    rng = np.random.default_rng(4)
    hops = rng.random((END, 500)) < 0.1
    onset = np.array([np.flatnonzero(each)[-1] + 1 for each in hops.T])
    hidden = survival.censored(END - onset, np.full(500, 0.1))
    assert hidden.mean() > 0.98
    assert survival.kaplan_meier(onset, hidden, END).at(np.array([END - 1]))[0] > 0.98


def test_logrank_tells_groups_apart_and_is_the_sum_over_the_onsets() -> None:
    rng = np.random.default_rng(5)
    early, late = (rng.integers(1, 100, 40), rng.random(40) < 0.2), (rng.integers(60, END, 50), rng.random(50) < 0.4)
    statistic, p = survival.logrank(early, late, END)
    rows = [(END if h else int(t), not h, group) for group, (ts, hs) in enumerate((early, late))
            for t, h in zip(ts, hs, strict=True)]  # fmt: skip
    observed = expected = variance = 0.0
    for time in sorted({t for t, event, _ in rows if event}):
        at_risk = [[each for each in rows if each[0] >= time and each[2] == group] for group in (0, 1)]
        n, n0 = len(at_risk[0]) + len(at_risk[1]), len(at_risk[0])
        d = sum(t == time and event for t, event, _ in rows)
        observed += sum(t == time and event for t, event, group in rows if group == 0)
        expected += d * n0 / n
        variance += d * n0 / n * (1 - n0 / n) * (n - d) / (n - 1) if n > 1 else 0
    assert math.isclose(abs(statistic), abs(observed - expected) / math.sqrt(variance), rel_tol=1e-9)
    assert p < 1e-6
    assert survival.logrank(early, early, END)[1] > 0.99
    with pytest.raises(InputError, match="no row of the two groups has frozen"):
        survival.logrank((early[0], np.ones(40, bool)), (late[0], np.ones(50, bool)), END)
