"""Predictions of dead tokens, and the persistence of a row's own movement, against loops over positions and rows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_train.dynamics import behaviour as module
from duckling_train.dynamics.behaviour import behaviour, deviations, inertia, row_inertia
from tests.support.hard_rows import moving


@pytest.mark.parametrize("at_once", [1, 40, module.PIECE])
@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_and_argmax_are_counted_position_by_position(
    seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", at_once)
    rng = np.random.default_rng(seed)
    hidden, w, dead = rng.normal(0, 3, (25, 6)), rng.normal(0, 1, (9, 6)), np.arange(9) % 3 == 2
    hidden[0], w[8] = 0, w[2]  # all are equally probable; two rows are the same
    largest, counted = dict.fromkeys(range(9), 0.0), dict.fromkeys(range(9), 0)
    for h in hidden:
        logits = [math.fsum(x * y for x, y in zip(h.tolist(), row, strict=True)) for row in w.tolist()]
        total = math.fsum(math.exp(each) for each in logits)
        for row, logit in enumerate(logits):
            largest[row] = max(largest[row], math.exp(logit) / total)
        counted[logits.index(max(logits))] += 1
    found = behaviour(hidden, w, dead)
    assert np.allclose(found.largest_probability, [largest[row] for row in (2, 5, 8)], rtol=1e-12)
    assert found.argmax.tolist() == [counted[row] for row in (2, 5, 8)]


def test_shapes_that_do_not_fit_and_what_is_not_finite_are_refused() -> None:
    hidden, w, dead = np.ones((3, 2)), np.ones((5, 2)), np.zeros(5, bool)
    for wrong in ((hidden[0], w, dead), (hidden, w[:, :1], dead), (hidden, w, dead[:4])):
        with pytest.raises(InputError, match="expected"):
            behaviour(*wrong)
    for wrong in ((hidden * np.nan, w, dead), (hidden, w * np.inf, dead)):
        with pytest.raises(InputError, match="not finite"):
            behaviour(*wrong)
    with pytest.raises(InputError, match="not finite"):
        deviations(np.full((2, 3), np.nan))


def test_inertia_is_the_correlation_of_consecutive_deviations() -> None:
    moves = np.diff(moving(9).astype(float), axis=0)
    found = deviations(moves)
    plain = [[[x - sum(row[j] for row in rows) / len(rows) for j, x in enumerate(row)] for row in rows]
             for rows in moves.tolist()]  # fmt: skip
    assert np.allclose(found, plain, rtol=1e-10, atol=1e-18)
    products = [[[sum(x * y for x, y in zip(a, b, strict=True)) for a, b in zip(*each, strict=True)]
                 for each in ((now, before), (now, now), (before, before))]
                for before, now in itertools.pairwise(plain)]  # fmt: skip
    for step, (between, now, before) in enumerate(products, 1):
        expected = [p / math.sqrt(a * b) for p, a, b in zip(between, now, before, strict=True)]
        assert np.allclose(inertia(found[step], found[step - 1]), expected, rtol=1e-9)
    whole = [[sum(step[part][row] for step in products) for row in range(7)] for part in range(3)]
    expected = [p / math.sqrt(a * b) for p, a, b in zip(*whole, strict=True)]
    assert np.allclose(row_inertia(found), expected, rtol=1e-9)


def test_one_row_and_one_step_have_no_inertia() -> None:
    assert np.isnan(row_inertia(deviations(np.diff(moving(6)[:, :1].astype(float), axis=0)))).all()
    assert np.isnan(row_inertia(np.ones((1, 3, 2)))).all()
