"""The shape of a group of rows around its centroid (measurement 8): covariance, principal components, tracer view."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from duckling_data.base.errors import InputError
from duckling_train.dynamics.arrays import Floats, dot, double, gram, norm, refuse_non_finite
from duckling_train.dynamics.bulk import centroid


def covariance(rows: Floats) -> Floats:
    """Return (1/n) Σ (W_i − C)(W_i − C)ᵀ of the n rows, float64[width, width]."""
    return gram(rows - centroid(rows)) / len(rows)


def eigenvalues(covariances: Floats) -> Floats:
    """Return the eigenvalues of covariances, largest first, float64[..., width]; what rounding makes negative is 0.

    Their sum is the mean of ‖W_i − C‖². Several matrices at once, float64[..., width, width], give the same numbers.
    """
    refuse_non_finite("covariances", covariances)
    return np.asarray(np.maximum(np.linalg.eigvalsh(covariances)[..., ::-1], 0.0))


def participation_ratio(of: Floats) -> float:
    """Return (Σλ)² / Σλ² of eigenvalues: in how many directions the rows spread; NaN where they do not spread."""
    largest = of.max(initial=0.0)
    if largest == 0:
        return float("nan")
    share = of / largest
    return float(share.sum() ** 2 / (share**2).sum())


class Components(NamedTuple):
    """The principal components of rows."""

    directions: Floats
    """Unit vectors, the largest variance first, float64[count, width]; the largest entry of each is positive."""
    projections: Floats
    """Each row's coordinates along them, from the centroid, float64[rows, count]."""


def principal_components(rows: Floats, count: int = 2) -> Components:
    """Return the first `count` principal components of the rows, and the rows' projections on them."""
    if not 0 < count <= rows.shape[1]:
        raise InputError(f"{count} principal components of rows of {rows.shape[1]} weights; expected 1 up to these.")
    offsets = rows - centroid(rows)
    directions = np.linalg.eigh(gram(offsets))[1][:, ::-1][:, :count].T
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    directions = directions * np.sign(largest)
    return Components(directions, offsets @ directions.T)


def tracer_axes(h_mean: Floats) -> Floats:
    """Return r = h̄ / ‖h̄‖ and one fixed unit vector perpendicular to it, float64[2, width].

    The perpendicular is the axis of the weight with the smallest |r_k|, less its part along r: it follows from h̄ alone.
    Raises InputError where h̄ is 0 or has fewer than two components.
    """
    length = float(norm(double("h_mean", h_mean)))
    if length == 0 or len(h_mean) < 2:
        raise InputError("the mean hidden state is 0, or has one component; expected a direction to project on.")
    r = h_mean / length
    axis = np.eye(len(r))[np.abs(r).argmin()]
    perpendicular = axis - (axis @ r) * r
    return np.stack([r, perpendicular / norm(perpendicular)])


def project(rows: Floats, axes: Floats) -> Floats:
    """Return the rows' coordinates on the axes, float64[rows, axes]: from the origin, not from the centroid."""
    return dot(rows[..., None, :], axes)
