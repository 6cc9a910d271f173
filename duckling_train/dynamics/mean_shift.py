"""How far the whole of W is from being centred and isotropic (measurement 12).

Mu and Viswanath, "All-but-the-Top" (2018), after the partition function of Arora et al. (2016): with
Z(c) = Σ_i exp(c·W_i), Iso = min Z(c) / max Z(c) over c = ± the eigenvectors of WᵀW. It is 1 where all directions are
alike, near 0 where W points one way.
"""

from __future__ import annotations

import numpy as np

from duckling_train.dynamics.arrays import Floats, gram, norm, product, ratio
from duckling_train.dynamics.bulk import centroid, radii


def mean_shift(rows: Floats) -> float:
    """Return ‖μ‖, μ the mean of all rows of W, float64[rows, width]."""
    return float(norm(centroid(rows)))


def relative_mean_shift(rows: Floats) -> float:
    """Return ‖μ‖ / mean ‖W_i − μ‖; NaN where all rows are equal."""
    mu = centroid(rows)
    return float(ratio(norm(mu), radii(rows, mu).mean()))


def isotropy(rows: Floats, *, centred: bool = False) -> float:
    """Return Iso of W, from 0 to 1; of W − μ where `centred`, with the eigenvectors of that."""
    rows = rows - centroid(rows) if centred else rows
    along = product(rows, np.linalg.eigh(gram(rows))[1])
    logs = np.concatenate([_log_sum_exp(along), _log_sum_exp(-along)])  # Z itself may be larger than float64 holds
    return float(np.exp(logs.min() - logs.max()))


def _log_sum_exp(values: Floats) -> Floats:
    largest = values.max(axis=0)
    return np.asarray(largest + np.log(np.exp(values - largest).sum(axis=0)))
