"""What the pieces of a record add up to, in the order of the steps: the columns, and each row's movements so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics import lifecycle, shape, survival
from duckling_train.dynamics.arrays import Flags, Floats, Integers, ratio
from duckling_train.dynamics.columns import STEP_COLUMNS
from duckling_train.dynamics.displacement import FROZEN
from duckling_train.dynamics.pieces import Measured
from duckling_train.dynamics.snapshot import Setting

NAMES = tuple(column.name for column in STEP_COLUMNS)
AT_ONCE = 16 << 20
"""Bytes of covariances that are kept until their eigenvalues are computed."""


@dataclass(frozen=True)
class Fates:
    """When each recorded row was last seen to move, and how certain it is that it has frozen."""

    onset: Integers
    silent: Integers
    rate: Floats
    """Hops a step before the onset."""
    censored: Flags


class Totals:
    """Everything that is kept of the steps measured so far: a few numbers a step, and some bits and sums a row."""

    def __init__(self, setting: Setting) -> None:
        self.steps, self.start = setting.steps[1:], int(setting.steps[0])
        self.values: list[Floats] = []
        """Of each piece, float64[steps, STEP_COLUMNS]."""
        self.eigenvalues: list[Floats | None] = []
        self.centroids: list[Floats] = []
        rows = len(setting.dead)
        self.last_steps = np.full((len(lifecycle.HOTTER), rows), self.start)
        self.hops = np.zeros(rows, np.int64)
        self.path_lengths = np.zeros(rows)
        self._products = np.zeros((3, np.count_nonzero(setting.dead)))
        self._covariances: dict[int, Floats] = {}
        self._moved: list[npt.NDArray[np.uint8]] = []

    def add(self, part: Measured) -> None:
        """Add the steps that follow on those added so far. Sums over the steps are made one by one, in their order."""
        self.values.append(np.array([[of.get(name, np.nan) for name in NAMES] for of in part.values]))
        self._covariances.update(
            (len(self.eigenvalues) + number, each) for number, each in enumerate(part.covariances) if each is not None
        )
        self.eigenvalues += [None] * len(part.covariances)
        if sum(each.nbytes for each in self._covariances.values()) >= AT_ONCE:
            self.solve()
        self.centroids += part.centroids
        if part.regimes:
            regimes, seen = np.stack(part.regimes), len(self._moved)
            new = lifecycle.last_steps(regimes, self.steps[seen : seen + len(regimes)], self.start)
            self.last_steps = np.maximum(self.last_steps, new)
            self.hops += np.count_nonzero(regimes > FROZEN, axis=0)
            self._moved.extend(np.packbits(regimes > FROZEN, axis=1))
        for lengths in part.lengths:
            self.path_lengths += lengths
        for products in part.products:
            self._products += products

    def solve(self) -> None:
        """Compute the eigenvalues that are due: many at once, as each call has the threads of BLAS spin for a while."""
        if self._covariances:
            solved = shape.eigenvalues(np.stack([*self._covariances.values()]))
            for number, found in zip(self._covariances, solved, strict=True):
                self.eigenvalues[number] = found
            self._covariances.clear()

    def inertia(self) -> Floats:
        """Return the lag-1 correlation of each dead row's deviation (`behaviour.row_inertia`), float64[dead]."""
        between, now, before = self._products
        return ratio(between, np.sqrt(now * before))

    def fates(self) -> Fates:
        """Return when each row was last seen to move."""
        onset = lifecycle.onsets(self.last_steps)
        silent = lifecycle.silent_windows(onset, int(self.steps[-1]) if len(self.steps) else self.start)
        rate = lifecycle.hop_rates(self._flags(), self.steps, onset, self.start)
        return Fates(onset, silent, rate, survival.censored(silent, rate))

    def _flags(self) -> Iterator[Flags]:
        for bits in self._moved:
            yield np.unpackbits(bits, count=self.hops.size).view(np.bool_)
