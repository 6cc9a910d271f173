"""Parts of a step, gradients by frequency, mean shift, broken zero sum and memory, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_train.dynamics import forces, frequency, initialisation, mean_shift, zero_sum
from tests.support.hard_rows import moving, pairs
from tests.support.seen import LIVE, SMALL, trained

PAIRS = [(a.astype(float), b.astype(float)) for a, b in pairs() if max(np.abs(a).max(), np.abs(b).max()) < 1e6]
ALL = range(len(PAIRS))


def length(vector: object) -> float:
    return math.sqrt(math.fsum(x * x for x in np.asarray(vector).tolist()))


def cos(a: np.ndarray, b: np.ndarray) -> float:
    below = length(a) * length(b)
    return math.fsum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)) / below if below else math.nan


@pytest.mark.parametrize("number", ALL)
def test_the_parts_of_a_displacement_are_decays_formula_and_the_rest(number: int) -> None:
    before, after = PAIRS[number]
    found = forces.parts(before, after - before, 1e-3, 0.1)
    for row in range(len(before)):
        decay = [-1e-3 * 0.1 * w for w in before[row].tolist()]
        assert np.allclose(found.decay[row], decay, rtol=1e-15, atol=0)
        assert np.allclose(found.adam[row], (after - before)[row] - decay, rtol=1e-12, atol=1e-300)


def test_the_parts_are_adams_own_on_a_trained_model() -> None:
    seen = trained(steps=3, schedule="constant", weight_decay=0.1)
    for step in (1, 2, 3):
        before, move = seen.matrices[step - 1].double().numpy(), seen.moves[step - 1].numpy()
        v = seen.states[step - 1]["exp_avg_sq/transformer.wte.weight"].double().numpy()
        beta1, beta2 = SMALL.betas
        m_hat, v_hat = seen.moment("transformer.wte", step).double().numpy() / (1 - beta1**step), v / (1 - beta2**step)
        update = -SMALL.learning_rate * m_hat / (np.sqrt(v_hat) + SMALL.adam_epsilon)
        assert np.allclose(forces.parts(before, move, SMALL.learning_rate, 0.1).adam, update, atol=2e-8)


def test_law_14_gradients_pull_dead_rows_together_without_decay() -> None:
    """δg_i = (1/N) Σ p_i(1−p_i) h hᵀ δW_i, against the autograd gradients at a row and beside it."""
    seen = trained(steps=4)
    hidden, start = seen.predicting(4).double(), seen.matrices[4].double()
    rng = np.random.default_rng(0)
    for row in range(LIVE, len(start), 16):
        offset = 1e-4 * rng.normal(size=start.shape[1])
        gradients = []
        for scale in (-1, 1):
            w = start.clone()
            w[row] += scale * torch.from_numpy(offset)
            w.requires_grad_(True)
            torch.logsumexp(hidden @ w.T, dim=1).mean().backward()  # a dead row is in no target
            assert w.grad is not None
            gradients.append(w.grad[row].numpy())
        p = torch.softmax(hidden @ start.T, dim=1)[:, row].numpy()
        pulled = forces.pull(hidden.numpy(), p, offset)
        assert np.allclose(pulled, (gradients[1] - gradients[0]) / 2, rtol=1e-5, atol=1e-6 * np.abs(pulled).max())
        assert pulled @ offset > 0
        one_by_one = [sum(q * (1 - q) * h[j] * math.fsum(h * offset) for h, q in zip(hidden.numpy(), p, strict=True))
                      / len(p) for j in range(3)]  # fmt: skip
        assert np.allclose(pulled[:3], one_by_one, rtol=1e-10)


@pytest.mark.parametrize("number", ALL)
def test_the_mean_shift_and_the_broken_zero_sum_are_by_their_definition(number: int) -> None:
    before, after = PAIRS[number]
    mu = [math.fsum(column) / len(after) for column in after.T.tolist()]
    assert math.isclose(mean_shift.mean_shift(after), length(mu), rel_tol=1e-12, abs_tol=1e-16)
    away = math.fsum(length(row - mu) for row in after) / len(after)
    relative = mean_shift.relative_mean_shift(after)
    assert math.isclose(relative, length(mu) / away, rel_tol=1e-10) if away > 1e-15 else not relative < 1e10
    moves = after - before
    below = math.fsum(length(row) for row in moves)
    found = zero_sum.broken_zero_sum(moves)
    together = length([math.fsum(column) for column in moves.T.tolist()])
    assert math.isclose(found, together / below, rel_tol=1e-10) if below else math.isnan(found)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("number", [0, 3, 4])
def test_isotropy_is_the_ratio_of_the_partition_function(number: int, centred: bool) -> None:
    w = PAIRS[number][1] * 30
    w = w - w.mean(axis=0) if centred else w
    directions = np.linalg.eigh(sum(np.outer(row, row) for row in w))[1].T
    z = [math.fsum(math.exp(sign * row @ c) for row in w) for c in directions for sign in (1, -1)]
    found = mean_shift.isotropy(PAIRS[number][1] * 30, centred=centred)
    if number == 0:  # else the eigenvectors of eigenvalue 0 are any, and all have the same Z
        assert found < 0.99
    assert math.isclose(found, min(z) / max(z), rel_tol=1e-9)


def test_isotropy_of_rows_too_long_for_exp_is_still_a_number() -> None:
    assert mean_shift.isotropy(1e4 * np.eye(3) + 1e4) == 0
    assert mean_shift.isotropy(np.concatenate([np.eye(3), -np.eye(3)])) == pytest.approx(1)


@pytest.mark.parametrize("step", [0, 1, 500])
def test_root_second_moments_are_corrected_for_the_start(step: int) -> None:
    v = moving(1)[0].astype(float) ** 2
    found = zero_sum.root_second_moments(v, 0.999, step)
    if step:
        assert np.allclose(found, [sum(math.sqrt(x / (1 - 0.999**step)) for x in row) / len(row) for row in v.tolist()])
    else:
        assert np.isnan(found).all()


@pytest.mark.parametrize("number", ALL)
def test_memory_is_the_cosine_with_the_first_rows_less_the_means(number: int) -> None:
    before, after = PAIRS[number]
    means = before.mean(axis=0), after.mean(axis=0)
    found = initialisation.memory(after, means[1], before, means[0])
    expected = [cos(row - means[1], first - means[0]) for row, first in zip(after, before, strict=True)]
    assert np.allclose(found, expected, atol=1e-12, equal_nan=True)


def test_bands_are_equal_parts_of_the_live_rows_in_order() -> None:
    dead = np.array([0, 0, 1, 0, 0, 0, 1, 0], bool)
    assert frequency.frequency_bands(dead, 4).tolist() == [0, 0, -1, 1, 1, 2, -1, 3]
    assert frequency.frequency_bands(np.ones(3, bool)).tolist() == [-1] * 3
    values = np.array([1.0, 3, 100, np.nan, 5, np.nan, 7, 9])
    found = frequency.band_means(values, frequency.frequency_bands(dead, 4))
    assert np.array_equal(found, [2, 5, np.nan, 9], equal_nan=True)
    with pytest.raises(InputError, match="0 frequency bands"):
        frequency.frequency_bands(dead, 0)


@pytest.mark.parametrize("number", ALL)
def test_the_output_share_is_of_the_two_gradients_norms(number: int) -> None:
    grad_in, grad_out = PAIRS[number]
    grad_in = grad_in.copy()
    grad_in[-1] = 0  # a dead row
    expected = [length(o) / (length(i) + length(o)) if length(i) + length(o) else math.nan
                for i, o in zip(grad_in, grad_out, strict=True)]  # fmt: skip
    found = frequency.output_shares(grad_in, grad_out)
    assert np.allclose(found, expected, rtol=1e-12, equal_nan=True)
    assert found[-1] == 1 or np.isnan(found[-1])


def test_dead_mass_and_drift_are_by_their_definition() -> None:
    p, dead = np.array([0.5, 0.2, 0.2, 0.1]), np.array([False, True, False, True])
    assert math.isclose(forces.dead_mass(p, dead), 0.3)
    move, h = moving(2)[:, 0].astype(float)
    assert math.isclose(forces.drift_against_hidden(move, h), cos(move, -h), rel_tol=1e-12)
    assert math.isnan(forces.drift_against_hidden(np.zeros(6), h))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(value: float) -> None:
    good = np.ones((4, 3))
    rows, flat = good.copy(), np.zeros(4)
    rows[2, 1] = flat[2] = value
    for call in (
        lambda: forces.parts(rows, good, 1e-3, 0.1), lambda: forces.parts(good, rows, 1e-3, 0.1),
        lambda: forces.dead_mass(flat, np.zeros(4, bool)), lambda: forces.drift_against_hidden(good, rows),
        lambda: forces.pull(rows, np.ones(4), good[0]), lambda: mean_shift.mean_shift(rows),
        lambda: mean_shift.relative_mean_shift(rows), lambda: mean_shift.isotropy(rows),
        lambda: mean_shift.isotropy(rows, centred=True), lambda: zero_sum.broken_zero_sum(rows),
        lambda: zero_sum.root_second_moments(rows, 0.999, 3), lambda: frequency.output_shares(rows, good),
        lambda: frequency.output_shares(good, rows), lambda: initialisation.memory(rows, good[0], good, good[0]),
    ):  # fmt: skip
        with pytest.raises(InputError, match="not finite"):
            call()
