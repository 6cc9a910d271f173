"""Whether rows move in one direction (measurement 7)."""

from __future__ import annotations

import numpy as np

from duckling_train.dynamics.arrays import Floats, dot, norm


def coherence(displacements: Floats) -> float:
    """Return the mean cosine between the displacements of two different rows, over all pairs of rows that moved.

    With n unit displacements û_i it is (‖Σ û_i‖² − n) / (n(n − 1)): n·D operations, no pair is sampled or left out. A
    row at rest has no direction and is not counted; NaN for fewer than two rows that moved. `displacements` is
    float64[rows, width].
    """
    size = norm(displacements)
    moved = size > 0
    count = int(np.count_nonzero(moved))
    if count < 2:
        return float("nan")
    together = np.einsum("ij,i->j", displacements, np.divide(1.0, size, out=np.zeros_like(size), where=moved))
    return float((dot(together, together) - count) / (count * (count - 1)))
