"""How much of its first direction a row keeps (measurement 15)."""

from __future__ import annotations

from duckling_train.dynamics.arrays import Floats, cosine


def memory(rows: Floats, mean: Floats, first_rows: Floats, first_mean: Floats) -> Floats:
    """Return cos(W_t − μ_t, W_0 − μ_0) of each row, float64[rows]; NaN where a row is at the mean.

    The rows are float64[rows, width]; a mean is that of the set that is compared, float64[width]: all rows of W, or the
    dead rows, whose common drift then does not count.
    """
    return cosine(rows - mean, first_rows - first_mean)
