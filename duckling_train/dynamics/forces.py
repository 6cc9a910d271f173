"""What moves a row in a step: AdamW's update and its weight decay, and the mean hidden state (measurement 10).

AdamW: W_t = W_{t−1} − η·λ·W_{t−1} − η·m̂/(√v̂ + ε). The second part is decay's, and what is left of the displacement is
Adam's: it follows from W alone. The output-side gradient of a dead row is (1/N) Σ p_i h: the mean of the hidden states,
weighted by the row's probability.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from duckling_train.dynamics.arrays import Flags, Floats, cosine, dot, double


class Parts(NamedTuple):
    """The two parts of a step's displacement, float64[rows, width] each; they sum to it."""

    adam: Floats
    decay: Floats


def parts(before: Floats, displacement: Floats, learning_rate: float, weight_decay: float) -> Parts:
    """Return Adam's part and decay's part −η·λ·W_{t−1} of the displacement of one optimizer step.

    In bf16 weights what rounding lost or added is in Adam's part.
    """
    displacement = double("displacements", displacement)
    decay = double("weights", before) * (-learning_rate * weight_decay)
    return Parts(displacement - decay, decay)


def dead_mass(probabilities: Floats, dead: Flags) -> float:
    """Return Σ p_i over the dead rows: the probability that is given to tokens that never come. A mean over positions.

    `probabilities` is float64[rows], the mean probability of each row.
    """
    return float(double("probabilities", probabilities)[dead].sum())


def drift_against_hidden(centroid_move: Floats, h_mean: Floats) -> Floats:
    """Return cos(ΔC, −h̄), float64; NaN where either is 0. Positive where the rows move against the hidden states.

    Both are float64[..., width]: h̄ is the mean hidden state of the step that made the move.
    """
    return cosine(centroid_move, -h_mean)


def pull(hidden: Floats, probability: Floats, offset: Floats) -> Floats:
    """Return by how much a dead row's gradient grows, to first order, where the row moves by `offset`, float64[width].

    It is (1/N) Σ p(1 − p) h hᵀ δW over the N positions: a positive part of δW along the hidden states, so descent takes
    a row back to the others, without any decay. `hidden` is float64[N, width], `probability` the row's, float64[N].
    """
    along = dot(hidden, offset) * probability * (1.0 - probability)
    return np.asarray(np.einsum("n,nj->j", along, hidden) / len(hidden))
