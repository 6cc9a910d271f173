"""The zero sum that Adam breaks (measurement 13).

Output-side gradients sum to 0 over the vocabulary, since probabilities sum to 1; Adam divides each by its own √v̂, and
its steps do not. Coupled Adam (arXiv 2502.08441) averages v over the vocabulary, which restores the zero sum.
"""

from __future__ import annotations

import numpy as np

from duckling_train.dynamics.arrays import Floats, double, norm, ratio


def broken_zero_sum(displacements: Floats) -> float:
    """Return ‖Σ Δ_i‖ / Σ ‖Δ_i‖ over all rows of W: 0 where they cancel, 1 where all point one way, NaN at rest."""
    return float(ratio(norm(displacements.sum(axis=0)), norm(displacements).sum()))


def root_second_moments(exp_avg_sq: Floats, beta2: float, step: int) -> Floats:
    """Return the mean over its weights of each row's √v̂, v̂ = v / (1 − β2^step), float64[rows].

    `exp_avg_sq` is AdamW's v after that many optimizer steps, float64[rows, width]. NaN at step 0.
    """
    moments = double("exp_avg_sq", exp_avg_sq)
    return np.asarray(np.sqrt(ratio(moments, 1.0 - beta2**step)).mean(axis=-1))
