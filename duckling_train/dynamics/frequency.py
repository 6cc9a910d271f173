"""Rows by how frequent their tokens are, and which side of the tied matrix moves them (measurement 16)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_train.dynamics.arrays import Flags, Floats, mean, norm, ratio

BANDS = 4
"""Into how many bands the live rows are divided."""
DEAD = -1
"""The band of dead rows."""


def frequency_bands(dead: Flags, bands: int = BANDS) -> npt.NDArray[np.int8]:
    """Return the band of each row, int8: 0 the most frequent, `bands` − 1 the rarest, DEAD (−1) for dead rows.

    The rows are in the order of their compact ids, in which live tokens come most frequent first. The live ones are
    divided into equal parts, the first ones of one row more where it does not come out even.
    """
    if not 0 < bands <= np.iinfo(np.int8).max:
        raise InputError(f"{bands} frequency bands; expected 1 to {np.iinfo(np.int8).max}.")
    found = np.full(len(dead), DEAD, np.int8)
    live = np.flatnonzero(~dead)
    for band, part in enumerate(np.array_split(live, bands)):
        found[part] = band
    return found


def band_means(values: Floats, band: npt.NDArray[np.int8], bands: int = BANDS) -> Floats:
    """Return the mean of the rows' values in each band, float64[bands]; NaN where none of a band is a number."""
    return np.array([mean(values[band == each]) for each in range(bands)])


def output_shares(grad_in: Floats, grad_out: Floats) -> Floats:
    """Return ‖g_out‖ / (‖g_in‖ + ‖g_out‖) of each row (arXiv 2603.26663), float64[rows]: 1 for a dead row.

    g_in is the gradient through the input embedding, g_out through the softmax, float64[rows, width]. NaN where both
    are 0.
    """
    out = norm(grad_out)
    return ratio(out, norm(grad_in) + out)
