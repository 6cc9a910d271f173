"""Plots of a run: each function draws one thing on the axes that it is given.

>>> from matplotlib.figure import Figure
>>> axes = Figure().add_subplot()
>>> plots.loss(open_run("first"), axes); axes.get_ylabel()
'training loss (nats per token)'
"""

from duckling_train.plots.curves import (
    black_holes,
    centroid,
    coherence,
    detectability,
    forces,
    isotropy,
    loss,
    regimes,
    second_moments,
    survival,
    velocity,
)
from duckling_train.plots.points import cloud, distance, spectrum, stratigraphy

__all__ = [
    "black_holes",
    "centroid",
    "cloud",
    "coherence",
    "detectability",
    "distance",
    "forces",
    "isotropy",
    "loss",
    "regimes",
    "second_moments",
    "spectrum",
    "stratigraphy",
    "survival",
    "velocity",
]
