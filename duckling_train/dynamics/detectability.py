"""Detectability: how well the indicators of under-trained tokens find the rows that are dead.

AUROC is the probability that a dead row has a lower value than a live one, equal values counting half (Mann & Whitney
1947), from the mean ranks. Precision at n is the share of dead rows among the n lowest values, n the number of dead
rows; where equal values stand at that border it is the mean over their orders. The plain norm is judged in the same
direction, so that an AUROC below 0.5 means that dead rows are the long ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duckling_data.base.errors import InputError
from duckling_data.base.progress import nothing
from duckling_train.dynamics.indicators import NAMES, Basis, basis, indicators, lengths
from duckling_train.dynamics.rows import SMALL, Done, Float64, Ids, Rows, blocks

REFERENCES = (1, 8, 64)
"""The numbers of reference ids that detectability is measured with."""
OF_MEANS = 8
"""The number of reference ids that mean values of the indicators are given for."""
NORM = "norm"
"""The name of the plain norm, which needs no reference ids."""


@dataclass(frozen=True)
class Detected:
    """How well one indicator finds the dead rows."""

    indicator: str
    references: int
    """How many dead ids it was given."""
    auroc: float
    precision: float
    """At as many rows as are dead."""


def auroc(values: Float64, dead: NDArray[np.bool_]) -> float:
    """Return the probability that a dead row's value is below a live one's. Raises InputError where one kind is absent.

    With R the sum of the dead rows' ranks, equal values having their mean rank, n dead and m live rows:
    1 - (R - n (n + 1) / 2) / (n m).
    """
    count, others = _counts(dead)
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[place]
    return float(1 - (ranks[dead].sum() - count * (count + 1) / 2) / (count * others))


def precision(values: Float64, dead: NDArray[np.bool_]) -> float:
    """Return the share of dead rows among as many lowest values as there are dead rows. Raises as `auroc` does."""
    count, _ = _counts(dead)
    border = np.partition(values, count - 1)[count - 1]
    below, equal = values < border, values == border
    return float((dead[below].sum() + (count - below.sum()) * dead[equal].mean()) / count)


def norms(rows: Rows, done: Done = nothing) -> Float64:
    """Return each row's Euclidean norm, float64, [n]. Raises as `blocks` does."""
    found = np.empty(rows.shape[0])
    for first, block in blocks(rows, done, SMALL):
        found[first : first + len(block)] = lengths(block.astype(np.float64))
    return found


def detectability(rows: Rows, dead: Ids, given: Basis | None = None, done: Done = nothing) -> list[Detected]:
    """Return how well the plain norm and each indicator finds the dead rows, given 1, 8 and 64 of their ids.

    The k reference ids are the first of `dead`; they are left out of what is judged, and a k that leaves no dead row is
    left out. `given` is `basis(rows)`. Raises InputError where no row or every row is dead, and as `indicators` does.
    """
    is_dead = np.zeros(rows.shape[0], bool)
    is_dead[dead] = True
    given = basis(rows, done=done) if given is None else given
    plain = norms(rows, done)
    found = [Detected(NORM, 0, auroc(plain, is_dead), precision(plain, is_dead))]
    for references in (k for k in REFERENCES if k < len(dead)):
        judged = np.ones(len(is_dead), bool)
        judged[dead[:references]] = False
        values = indicators(rows, dead[:references], given, done)
        for name in NAMES:
            of_judged = getattr(values, name)[judged], is_dead[judged]
            found.append(Detected(name, references, auroc(*of_judged), precision(*of_judged)))
    return found


def _counts(dead: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the numbers of dead and of live rows."""
    count = int(dead.sum())
    if not 0 < count < len(dead):
        raise InputError(f"{count:,} of {len(dead):,} rows are dead; expected some dead and some live ones")
    return count, len(dead) - count
