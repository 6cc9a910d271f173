"""Phases, freeze onsets, silent windows and hop rates, against loops over the steps of each row."""

from __future__ import annotations

import numpy as np
import pytest

from duckling_train.dynamics import lifecycle
from duckling_train.dynamics.displacement import EARLY, FROZEN, LATE, MIDLIFE

START = 4


def histories(seed: int, steps: int = 30, rows: int = 12, every: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Regimes that cool down, int8[steps, rows], and the steps that they are of; one row never moves, one always."""
    rng = np.random.default_rng(seed)
    heat = rng.integers(-3, 2, (steps, rows)) + np.linspace(3, -1, steps)[:, None]
    regimes = np.clip(heat, FROZEN, EARLY).astype(np.int8)
    regimes[:, 0], regimes[:, 1] = FROZEN, EARLY
    return regimes, START + every * np.arange(1, steps + 1)


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_phases_follow_from_the_last_step_of_each_hotter_behaviour(seed: int, steps: int) -> None:
    regimes, at = histories(seed, steps)
    last = lifecycle.last_steps(regimes, at, START)
    phases = lifecycle.phases(last, at)
    for row in range(regimes.shape[1]):
        ends = [max([START, *at[regimes[:, row] == regime]]) for regime in (EARLY, MIDLIFE, LATE)]
        assert last[:, row].tolist() == ends
        for step, phase in zip(at, phases[:, row], strict=True):
            assert (
                phase == (*[r for r, end in zip((EARLY, MIDLIFE, LATE), ends, strict=True) if step <= end], FROZEN)[0]
            )


def test_a_phase_never_gets_hotter() -> None:
    regimes, at = histories(2)
    phases = lifecycle.phases(lifecycle.last_steps(regimes, at, START), at)
    assert (np.diff(phases.astype(int), axis=0) <= 0).all()


def test_blocks_add_up_to_the_whole() -> None:
    regimes, at = histories(3)
    parts = [lifecycle.last_steps(regimes[a:b], at[a:b], START) for a, b in ((0, 7), (7, 8), (8, 30))]
    assert np.array_equal(np.maximum.reduce(parts), lifecycle.last_steps(regimes, at, START))


@pytest.mark.parametrize("window", [5, 31, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_onset_silence_and_hop_rate_are_counted_step_by_step(seed: int, window: int) -> None:
    regimes, at = histories(seed)
    onset = lifecycle.onsets(lifecycle.last_steps(regimes, at, START))
    rates = lifecycle.hop_rates(regimes > FROZEN, at, onset, START, window)
    silent = lifecycle.silent_windows(onset, int(at[-1]))
    for row in range(regimes.shape[1]):
        hops = [int(step) for step, regime in zip(at, regimes[:, row], strict=True) if regime > FROZEN]
        last = hops[-1] if hops else START
        assert (onset[row], silent[row]) == (last, at[-1] - last)
        begins = max(last - window, START)
        counted = sum(begins < step <= last for step in hops)
        assert rates[row] == (counted / (last - begins) if hops else 0)
