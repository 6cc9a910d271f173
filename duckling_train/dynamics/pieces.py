"""A piece of a record, measured: consecutive steps in, the numbers of each step out.

A piece needs the two steps before it. A step's numbers follow from these three alone, so they are the same however the
steps are divided into pieces, and whichever thread measures which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics import shape
from duckling_train.dynamics import values as columns
from duckling_train.dynamics.arrays import Floats, dot, refuse_non_finite
from duckling_train.dynamics.snapshot import Move, Setting, Snapshot
from duckling_train.dynamics.values import Values


@dataclass(frozen=True)
class Piece:
    """Consecutive recorded steps."""

    first: int
    """The number of the first among the recorded steps."""
    before: npt.NDArray[np.float32]
    """W at up to two recorded steps before it, float32[≤ 2, rows, width]."""
    block: npt.NDArray[np.float32]
    """W at the steps, float32[steps, rows, width]."""
    others: dict[str, npt.NDArray[Any]]
    """The other recorded tensors at the steps."""


@dataclass
class Measured:
    """The measurements of a piece; of each step, in order."""

    values: list[Values] = field(default_factory=list)
    """The columns that are known."""
    covariances: list[Floats | None] = field(default_factory=list)
    """Of the dead rows, at some steps."""
    centroids: list[Floats] = field(default_factory=list)
    regimes: list[npt.NDArray[np.int8]] = field(default_factory=list)
    """Of each recorded row in the step; absent, as what follows is, for the first recorded step."""
    lengths: list[Floats] = field(default_factory=list)
    """‖Δ‖ of each recorded row."""
    products: list[Floats] = field(default_factory=list)
    """d_t·d_{t−1}, ‖d_t‖² and ‖d_{t−1}‖² of the dead rows' deviations, float64[3, dead]; from the third step on."""


def measure_piece(setting: Setting, piece: Piece) -> Measured:
    """Return the measurements of the steps of a piece. Raises InputError where a number of it is not finite."""
    found, steps = Measured(), setting.steps[piece.first : piece.first + len(piece.block)]
    for name, values_of in {"W": piece.block, **piece.others}.items():
        refuse_non_finite(f"{name} at steps {steps[0]:,} to {steps[-1]:,}", values_of)
    earlier = [Snapshot(setting, rows) for rows in piece.before]
    last = Move(setting, *earlier) if len(earlier) == 2 else None
    old = earlier[-1] if earlier else None
    for offset, rows in enumerate(piece.block):
        number, new = piece.first + offset, Snapshot(setting, rows)
        costly = bool(setting.costly[number])
        values = columns.of_rows(setting, new) | columns.of_all(setting, new, costly=costly)
        if costly:
            values |= columns.of_groups(rows[setting.dead_rows])
        if setting.costliest[number]:
            values |= columns.of_indicators(setting, rows)
        if old is not None:
            move = Move(setting, old, new)
            values |= columns.of_move(setting, move, last, number)
            values |= columns.of_others(
                setting, {name: each[offset] for name, each in piece.others.items()}, move, number
            )
            found.regimes.append(move.regimes)
            found.lengths.append(move.lengths)
            if last is not None:
                pairs = (move, last), (move, move), (last, last)
                found.products.append(np.stack([dot(a.deviation, b.deviation) for a, b in pairs]))
            last = move
        found.covariances.append(shape.covariance(new.dead) if costly and len(new.dead) else None)
        found.values.append(values)
        found.centroids.append(new.centroid)
        old = new
    return found
