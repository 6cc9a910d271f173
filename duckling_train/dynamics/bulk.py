"""The rows of a group as one body: where its centre is, how large it is and how it travels (measurement 6).

The centroid is C = mean W_i, the radius the mean and the maximum of ‖W_i − C‖, the velocity ‖C_t − C_{t−1}‖.
"""

from __future__ import annotations

import numpy as np

from duckling_train.dynamics.arrays import Floats, Integers, cosine, norm, ratio, refuse_non_finite


def centroid(rows: Floats) -> Floats:
    """Return the mean row, float64[width]; NaN where there are none. `rows` is float64[rows, width]."""
    if not len(rows):
        return np.full(rows.shape[-1], np.nan)
    centre = rows.sum(axis=0) / len(rows)
    refuse_non_finite("rows", centre)
    return np.asarray(centre)


def radii(rows: Floats, centre: Floats) -> Floats:
    """Return the distance of each row from the centroid, float64[rows]."""
    return norm(rows - centre)


def velocities(centroids: Floats) -> Floats:
    """Return ‖C_t − C_{t−1}‖ of consecutive centroids, float64[steps]: NaN for the first."""
    return np.concatenate([[np.nan], norm(np.diff(centroids, axis=0))])[: len(centroids)]


def path_lengths(centroids: Floats) -> Floats:
    """Return Σ‖ΔC‖ up to each step, float64[steps]: 0 for the first."""
    return np.concatenate([[0.0], np.cumsum(norm(np.diff(centroids, axis=0)))])[: len(centroids)]


def path_efficiencies(centroids: Floats) -> Floats:
    """Return ‖C_t − C_0‖ / Σ‖ΔC‖ up to each step, float64[steps]: 1 on a straight path, NaN where nothing moved."""
    return ratio(norm(centroids - centroids[:1]), path_lengths(centroids))


def curvatures(centroids: Floats) -> Floats:
    """Return cos(ΔC_t, ΔC_{t+1}), float64[steps]: 1 straight on; NaN for the first and the last, and at rest."""
    moves = np.diff(centroids, axis=0)
    found = np.full(len(centroids), np.nan)
    found[1:-1] = cosine(moves[:-1], moves[1:])
    return found


def angles(a: Floats, b: Floats) -> Floats:
    """Return the angle between two vectors (the last axis), as seen from the origin, in degrees, float64."""
    return np.asarray(np.degrees(np.arccos(cosine(a, b))))


def liftoff(steps: Integers, centroid_norm: Floats, radius_max: Floats) -> int | None:
    """Return the first step at which the origin is outside the ball around C of the largest radius; None for never."""
    outside = np.flatnonzero(centroid_norm > radius_max)
    return int(steps[outside[0]]) if outside.size else None
