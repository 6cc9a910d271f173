"""Do rows freeze, or only move ever more rarely? Freeze onsets as a survival curve (measurement 5).

A run ends, and a row that is silent at its end may only be between two hops. A row that hops at random at rate r is
silent for s steps with probability exp(−r·s) (Poisson). Where that is above a level α the row has not been seen to
freeze: its onset is right-censored at the end of the run. The other onsets are events, and the share of the rows that
still move after a step is Kaplan and Meier's (1958) estimate, beside the share that a Poisson process would show: that
of rows that hop at their rates to the end, and whose last hop is after the step.

Under a learning rate that falls to 0 every row freezes by construction: look at displacement / learning rate, too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from duckling_data.base.errors import InputError
from duckling_train.dynamics.arrays import Flags, Floats, Integers

ALPHA = 0.01
"""A silence that is less probable than this without a freeze is one."""


@dataclass(frozen=True)
class Survival:
    """The share of the rows that have not frozen, after each step at which one did."""

    steps: Floats
    """Onsets, rising, and the end of the run where a row was censored, float64."""
    share: Floats
    """Kaplan and Meier's estimate just after each of them, float64."""
    low: Floats
    """The lower end of its 95 % confidence interval (Greenwood, log-log); NaN where it has none."""
    high: Floats
    """The upper end."""

    def at(self, steps: Integers) -> Floats:
        """Return the share after each of the steps, float64: 1 before the first onset."""
        place = np.searchsorted(self.steps, steps, side="right")
        return np.concatenate([[1.0], self.share])[place]

    @property
    def median(self) -> float | None:
        """The first step by which half of the rows have frozen; None where fewer have."""
        reached = np.flatnonzero(self.share <= 0.5)
        return float(self.steps[reached[0]]) if reached.size else None


def silence_probabilities(silent: Integers, rate: Floats) -> Floats:
    """Return exp(−r·s): how probable a silence of s steps is for a row that hops at random r times a step, float64."""
    return np.asarray(np.exp(-rate * silent))


def censored(silent: Integers, rate: Floats, alpha: float = ALPHA) -> Flags:
    """Return which rows have not been seen to freeze: their silence is no rarer than `alpha` between two hops."""
    return silence_probabilities(silent, rate) > alpha


def kaplan_meier(onset: Integers, hidden: Flags, end: int) -> Survival:
    """Return the survival curve of rows with these onsets; the `hidden` ones are censored at `end`, the last step.

    Raises InputError where there is no row.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the interval has no ends where the share is 0 or 1
        curve = stats.ecdf(_sample(onset, hidden, end)).sf
        interval = curve.confidence_interval(method="log-log")
    return Survival(
        np.asarray(curve.quantiles, np.float64), np.asarray(curve.probabilities, np.float64),
        np.asarray(interval.low.probabilities, np.float64), np.asarray(interval.high.probabilities, np.float64),
    )  # fmt: skip


def poisson_null(rate: Floats, end: int, steps: Integers) -> Floats:
    """Return the share of rows whose last hop is after each step, if each hops at random at its rate up to `end`.

    It is the mean of 1 − exp(−r·(end − step)), float64[steps]: what the survival curve shows where nothing freezes and
    nothing is censored.
    """
    return np.array([np.mean(-np.expm1(-rate * (end - step))) for step in steps.tolist()])


def logrank(first: tuple[Integers, Flags], second: tuple[Integers, Flags], end: int) -> tuple[float, float]:
    """Return the statistic and the two-sided p of the log-rank test that two groups of rows freeze alike (Mantel 1966).

    A group is its onsets and which of them are censored. Raises InputError for a group without a row, or where no row
    of either has frozen.
    """
    if first[1].all() and second[1].all():
        raise InputError("no row of the two groups has frozen; expected at least one for a log-rank test.")
    found = stats.logrank(_sample(*first, end), _sample(*second, end))
    return float(found.statistic), float(found.pvalue)


def _sample(onset: Integers, hidden: Flags, end: int) -> Any:
    if not len(onset):
        raise InputError("a survival curve of no rows; expected at least one.")
    return stats.CensoredData(uncensored=onset[~hidden], right=np.full(np.count_nonzero(hidden), end))
