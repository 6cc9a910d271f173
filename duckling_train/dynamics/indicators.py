"""Indicators of under-trained tokens (Land & Bartolo 2024, "Fishing for Magikarp").

Given reference ids U that are known to be unused, and u = mean W[U], for each row i, all in float64:

    cosine                  1 - cos(W_i, u)
    cosine_without_mean     1 - cos(W_i - m, u - m), m the mean of all rows
    cosine_without_first_pc 1 - cos(P W_i, P u), P W_i = W_i - (c . W_i) c
    distance                ||W_i - u||

c is the first principal component: the eigenvector of the rows' covariance with the largest eigenvalue. As in the
authors' code it is found with the mean removed, and taken out of W with its mean. A low value means that a row is like
the unused ones. The cosine with a row of zeros counts as 0, its distance as 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from scipy.linalg import eigh

from duckling_data.base.errors import InputError
from duckling_data.base.progress import nothing
from duckling_train.dynamics.rows import SMALL, Done, Float64, Ids, Rows, block_rows, blocks


@dataclass(frozen=True)
class Basis:
    """What the indicators take out of W."""

    mean: Float64
    """The mean of all rows; [width]."""
    first_pc: Float64
    """The first principal component, a unit vector; zeros where all rows are the same; [width]."""


@dataclass(frozen=True)
class Indicators:
    """The value of each indicator for each row, float64, [n]: see the module."""

    cosine: Float64
    cosine_without_mean: Float64
    cosine_without_first_pc: Float64
    distance: Float64


NAMES = tuple(field.name for field in fields(Indicators))
"""The indicators' names, in order."""


def mean_row(rows: Rows, done: Done = nothing) -> Float64:
    """Return the mean of all rows, float64, [width]. Raises InputError where there is none, and as `blocks` does."""
    if not rows.shape[0]:
        raise InputError("no rows, expected at least one")
    total = np.zeros(rows.shape[1])
    for _, block in blocks(rows, done):
        total += block.sum(axis=0, dtype=np.float64)
    return total / rows.shape[0]


def basis(rows: Rows, mean: Float64 | None = None, done: Done = nothing) -> Basis:
    """Return the mean of all rows and their first principal component. `mean` is that mean, where it is known already.

    The covariance is summed in float64: width x width values in memory. Raises as `mean_row` does.
    """
    mean = mean_row(rows, done) if mean is None else mean
    width = rows.shape[1]
    covariance = np.zeros((width, width))
    for _, block in blocks(rows, done):
        centred = block - mean
        covariance += centred.T @ centred
    if not covariance.any():
        return Basis(mean, np.zeros(width))
    _, vectors = eigh(covariance, subset_by_index=(width - 1, width - 1), overwrite_a=True, check_finite=False)
    return Basis(mean, vectors[:, 0])


def indicators(rows: Rows, unused: Ids, given: Basis | None = None, done: Done = nothing) -> Indicators:
    """Return the indicators of all rows, given the ids that are known to be unused. `given` is `basis(rows)`.

    Raises InputError where no unused id is given or one is no row, and as `basis` does.
    """
    if not len(unused):
        raise InputError("no unused ids are given, expected at least one to compare with")
    if not (unused.min() >= 0 and unused.max() < rows.shape[0]):
        raise InputError(f"unused ids from {unused.min()} to {unused.max()}; expected ids below {rows.shape[0]:,}")
    given = basis(rows, done=done) if given is None else given
    step = block_rows(rows.shape[1])
    parts = (rows[unused[first : first + step]] for first in range(0, len(unused), step))
    reference = np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(unused)

    def without_pc(values: Float64) -> Float64:
        along = np.asarray(np.einsum("...j,j->...", values, given.first_pc))
        return np.asarray(values - along[..., None] * given.first_pc)

    changes: tuple[Callable[[Float64], Float64], ...] = (np.asarray, lambda values: values - given.mean, without_pc)
    found = np.empty((4, rows.shape[0]))
    for first, block in blocks(rows, done, SMALL):
        values = block.astype(np.float64)
        part = found[:, first : first + len(block)]
        for number, change in enumerate(changes):
            part[number] = cosine_distance(change(values), change(reference))
        part[3] = lengths(values - reference)
    return Indicators(*found)


def cosine_distance(values: Float64, to: Float64) -> Float64:
    """Return 1 - cos of each row of `values`, [k, width], with `to`, [width]; 1 where either of them is zero."""
    both = lengths(values) * np.linalg.norm(to)
    cosine = np.divide(np.einsum("ij,j->i", values, to), both, out=np.zeros(len(values)), where=both > 0)
    return np.asarray(1.0 - cosine)


def lengths(values: Float64) -> Float64:
    """Return the Euclidean norm of each row, float64, [k]."""
    found: Float64 = np.sqrt(np.einsum("ij,ij->i", values, values))
    return found
