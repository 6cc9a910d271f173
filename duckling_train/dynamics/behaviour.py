"""What the model does with dead tokens, and how persistent a row's own movement is (measurement 18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.progress import nothing
from duckling_train.dynamics.arrays import Flags, Floats, Integers, cosine, dot, double, ratio, refuse_non_finite

PIECE = 1 << 22
"""Logits computed at once: 32 MiB of float64."""


class Behaviour(NamedTuple):
    """How often dead tokens are predicted."""

    largest_probability: Floats
    """Of each dead row, in the order of its id, the largest softmax probability over the positions, float64[dead]."""
    argmax: Integers
    """At how many positions each dead row has the largest probability of all, int64[dead]; the first one of a tie."""


def behaviour(
    hidden: npt.NDArray[Any], w: npt.NDArray[Any], dead: Flags, done: Callable[[int], object] = nothing
) -> Behaviour:
    """Return how probable each dead row is at best, and how often it is the most probable of all.

    `hidden` are final hidden states after `ln_f`, [positions, width], of a validation set; `w` is the softmax matrix,
    [vocabulary, width], and `dead` is bool[vocabulary]. `done` is told how many positions were seen, piece by piece.
    Raises InputError for shapes that do not fit and for what is not finite.
    """
    if hidden.ndim != 2 or w.ndim != 2 or hidden.shape[1] != w.shape[1] or dead.shape != w.shape[:1]:
        raise InputError(f"hidden {hidden.shape}, W {w.shape}, dead {dead.shape}: expected [n, D], [V, D] and [V].")
    ids, matrix = np.flatnonzero(dead), double("W", w)
    largest, counted = np.zeros(len(ids)), np.zeros(len(dead), np.int64)
    at_once = max(1, PIECE // max(1, len(w)))
    for first in range(0, len(hidden), at_once):
        logits = double("hidden states", hidden[first : first + at_once]) @ matrix.T
        counted += np.bincount(logits.argmax(axis=1), minlength=len(dead))
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        np.maximum(largest, logits[:, ids].max(axis=0, initial=0.0), out=largest)
        done(len(logits))
    return Behaviour(largest, counted[ids])


def deviations(displacements: Floats) -> Floats:
    """Return each row's displacement less the mean one of the rows, float64[..., rows, width]."""
    together = displacements.mean(axis=-2, keepdims=True)
    refuse_non_finite("displacements", together)
    return np.asarray(displacements - together)


def inertia(deviation: Floats, before: Floats) -> Floats:
    """Return the cosine of each row's deviation from the mean displacement with that of the step before, float64[rows].

    NaN where one of them is 0. The deviations are float64[rows, width].
    """
    return cosine(deviation, before)


def row_inertia(deviation: Floats) -> Floats:
    """Return the lag-1 correlation of each row's deviation over consecutive steps, float64[rows].

    With d_t the deviation of a row it is Σ d_t·d_{t−1} / √(Σ‖d_t‖² Σ‖d_{t−1}‖²) over the pairs of consecutive steps: no
    mean is taken off again, as the deviations sum to 0 over the rows. `deviation` is float64[steps, rows, width].
    """
    now, before = deviation[1:], deviation[:-1]
    products, first, second = (dot(a, b).sum(axis=0) for a, b in ((now, before), (now, now), (before, before)))
    return ratio(products, np.sqrt(first * second))
