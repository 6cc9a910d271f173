"""W at a recorded step and its displacement since the one before, in float64: what a step's columns follow from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics import behaviour, bulk
from duckling_train.dynamics.arrays import Flags, Floats, Integers, double, norm
from duckling_train.dynamics.displacement import Cuts, Norms, norms, regimes
from duckling_train.dynamics.frequency import frequency_bands
from duckling_train.dynamics.lattice import bf16_bits, lattice

Index = slice | Integers


def index_of(flags: Flags) -> Index:
    """Return the rows that are marked: a slice where they are consecutive, which copies nothing."""
    ids = np.flatnonzero(flags)
    consecutive = len(ids) and ids[-1] - ids[0] + 1 == len(ids)
    return slice(int(ids[0]), int(ids[-1]) + 1) if consecutive else ids


@dataclass(frozen=True)
class Setting:
    """What is the same for all steps of a record."""

    steps: Integers
    """The optimizer steps recorded."""
    dead: Flags
    """Of each recorded row."""
    whole: bool
    """Whether all rows of W are recorded."""
    first: npt.NDArray[np.float32]
    """W at the first recorded step."""
    rates: Floats
    """The learning rate of every optimizer step, by its number; NaN where it is not known, as for step 0."""
    weight_decay: float
    beta2: float
    costly: Flags
    """The steps at which eigenvalues are computed."""
    costliest: Flags
    """The steps at which indicators are."""
    axes: Floats | None
    """The directions of the tracer view."""
    cuts: Cuts

    @cached_property
    def start(self) -> Snapshot:
        """The first recorded step."""
        return Snapshot(self, self.first)

    @cached_property
    def band(self) -> npt.NDArray[np.int8]:
        """The frequency band of each row."""
        return frequency_bands(self.dead)

    @cached_property
    def dead_rows(self) -> Index:
        """The dead rows."""
        return index_of(self.dead)

    @cached_property
    def live_rows(self) -> Index:
        """The live rows."""
        return index_of(~self.dead)


class Snapshot:
    """W at a recorded step, float64."""

    def __init__(self, setting: Setting, rows: npt.NDArray[np.float32]) -> None:
        self.rows = double("W", rows)
        self.lattice = lattice(bf16_bits(rows))
        self.dead = self.rows[setting.dead_rows]
        self.live = self.rows[setting.live_rows]
        self.centroid, self.live_centroid = bulk.centroid(self.dead), bulk.centroid(self.live)
        self.mean = bulk.centroid(self.rows) if setting.whole else np.full(rows.shape[1], np.nan)


class Move:
    """The displacement from a recorded step to the next: of rows, float64, and on the lattice."""

    def __init__(self, setting: Setting, before: Snapshot, after: Snapshot) -> None:
        self.before, self.after = before, after
        self.rows = after.rows - before.rows
        self.dead = self.rows[setting.dead_rows]
        self.deviation = behaviour.deviations(self.dead) if len(self.dead) else self.dead
        self.lengths = norm(self.rows)
        self.norms: Norms = norms(after.lattice - before.lattice)
        self.regimes = regimes(self.norms, self.rows.shape[1], setting.cuts)
