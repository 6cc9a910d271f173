"""Centroid, radius, path, coherence and shape of a group of rows, against loops in plain Python floats."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_train.dynamics import bulk, shape
from duckling_train.dynamics.coherence import coherence
from tests.support.hard_rows import moving, pairs
from tests.support.seen import LIVE, trained

GROUPS = [rows.astype(float) for pair in pairs() for rows in pair if np.abs(rows).max() < 1e6]
CLOSE = {"rel_tol": 1e-12, "abs_tol": 1e-300}


def length(vector: list[float]) -> float:
    return math.sqrt(math.fsum(x * x for x in vector))


def cos(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (length(a) * length(b))


def difference(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def middle(rows: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("number", range(len(GROUPS)))
def test_centroid_and_radius_are_by_their_definition(number: int) -> None:
    rows = GROUPS[number]
    centre = middle(rows.tolist())
    assert np.allclose(bulk.centroid(rows), centre, rtol=1e-13, atol=1e-16)
    distances = [length(difference(row, centre)) for row in rows.tolist()]
    assert np.allclose(bulk.radii(rows, bulk.centroid(rows)), distances, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_the_path_of_the_centroid_is_by_its_definition(steps: int) -> None:
    centres = [middle(rows.tolist()) for rows in moving(steps).astype(float)]
    found = np.array(centres)
    moves = [difference(b, a) for a, b in itertools.pairwise(centres)]
    ways = [0.0, *itertools.accumulate(map(length, moves))]
    assert np.isnan(bulk.velocities(found)[0])
    assert np.isnan(bulk.path_efficiencies(found)[0])
    assert np.allclose(bulk.velocities(found)[1:], [*map(length, moves)], rtol=1e-12)
    assert np.allclose(bulk.path_lengths(found), ways, rtol=1e-12)
    straight = [length(difference(centre, centres[0])) for centre in centres]
    expected = [a / b for a, b in zip(straight[1:], ways[1:], strict=True)]
    assert np.allclose(bulk.path_efficiencies(found)[1:], expected, rtol=1e-12)
    turns = [math.nan, *(cos(a, b) for a, b in itertools.pairwise(moves)), math.nan]
    assert np.allclose(bulk.curvatures(found), turns[:steps], rtol=1e-12, equal_nan=True)


def test_a_straight_path_is_efficient_and_liftoff_is_its_first_step_beyond_the_ball() -> None:
    centres = np.arange(6.0)[:, None] * np.array([[3.0, 4.0]])
    assert bulk.path_efficiencies(centres)[1:].tolist() == [1.0] * 5
    steps, norms = np.arange(0, 60, 10), np.linalg.norm(centres, axis=1)
    assert bulk.liftoff(steps, norms, np.full(6, 10.0)) == 30
    assert bulk.liftoff(steps, norms, np.full(6, 25.0)) is None
    assert np.allclose(bulk.angles(np.array([[1.0, 0], [1, 1]]), np.array([[0.0, 2], [3, 0]])), [90, 45])


@pytest.mark.parametrize("number", range(len(GROUPS)))
def test_law_15_the_coherence_identity_equals_the_n_by_n_computation(number: int) -> None:
    rows = GROUPS[number].copy()
    rows[len(rows) // 2 :: 3] = 0  # rows at rest have no direction
    moved = [row for row in rows.tolist() if length(row) > 0]
    cosines = [cos(a, b) for a, b in itertools.permutations(moved, 2)]
    if cosines:
        assert math.isclose(coherence(rows), math.fsum(cosines) / len(cosines), rel_tol=1e-10, abs_tol=1e-13)
    else:
        assert math.isnan(coherence(rows))


def test_law_15_holds_on_a_trained_model_whose_dead_rows_soon_move_as_one() -> None:
    seen = trained(steps=12)
    found = []
    for step in (1, 2, 5, 12):
        moves = seen.moves[step - 1][LIVE:].numpy()
        units = moves / np.linalg.norm(moves, axis=1, keepdims=True)
        cosines = units @ units.T
        others = (cosines.sum() - np.trace(cosines)) / (len(units) * (len(units) - 1))
        assert math.isclose(coherence(moves), others, rel_tol=1e-12)
        found.append(coherence(moves))
    assert found == sorted(found)
    assert found[0] < 0.95
    assert found[-1] > 0.99


def test_coherence_of_one_row_or_of_rows_at_rest_is_undefined() -> None:
    assert math.isnan(coherence(np.ones((1, 3))))
    assert math.isnan(coherence(np.zeros((5, 3))))
    assert coherence(np.array([[1.0, 0], [-2, 0]])) == -1


@pytest.mark.parametrize("number", range(len(GROUPS)))
def test_eigenvalues_solve_the_covariance_summed_row_by_row(number: int) -> None:
    rows = GROUPS[number]
    centre = middle(rows.tolist())
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for row in rows:
        covariance += np.outer(row - centre, row - centre) / len(rows)
    found, largest = shape.eigenvalues(shape.covariance(rows)), np.abs(covariance).max()
    assert found.tolist() == sorted(found, reverse=True)
    assert (found >= 0).all()
    for power in (1, 2, 3):  # the traces of a matrix's powers fix its eigenvalues
        trace = np.trace(np.linalg.matrix_power(covariance / (largest or 1), power))
        assert math.isclose(((found / (largest or 1)) ** power).sum(), trace, rel_tol=1e-9, abs_tol=1e-12)
    ratio = shape.participation_ratio(found)
    if largest:
        assert math.isclose(ratio, np.trace(covariance) ** 2 / (covariance**2).sum(), rel_tol=1e-9)
    else:
        assert math.isnan(ratio)


def test_principal_components_are_uncorrelated_directions_of_the_eigenvalues() -> None:
    rows = GROUPS[0]
    found, values = shape.principal_components(rows, 3), shape.eigenvalues(shape.covariance(rows))
    assert np.allclose(found.directions @ found.directions.T, np.eye(3), atol=1e-12)
    assert np.allclose(found.projections.T @ found.projections / len(rows), np.diag(values[:3]), atol=1e-15)
    assert (np.take_along_axis(found.directions, np.abs(found.directions).argmax(1)[:, None], 1) > 0).all()
    for count in (0, rows.shape[1] + 1):
        with pytest.raises(InputError, match="expected 1 up to these"):
            shape.principal_components(rows, count)


def test_the_tracer_view_is_along_h_and_perpendicular_to_it() -> None:
    h = np.array([3.0, 0.5, -4.0, 1.0])
    axes = shape.tracer_axes(h)
    assert np.allclose(axes @ axes.T, np.eye(2), atol=1e-15)
    assert np.allclose(axes[0] * np.linalg.norm(h), h)
    rows = moving(2, 5, 4)[1].astype(float)
    expected = [[math.fsum(x * a for x, a in zip(row, axis, strict=True)) for axis in axes] for row in rows.tolist()]
    assert np.allclose(shape.project(rows, axes), expected, rtol=1e-12)
    for none in (np.zeros(4), np.ones(1)):
        with pytest.raises(InputError, match="expected a direction"):
            shape.tracer_axes(none)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_rows_that_are_not_finite_are_refused(value: float) -> None:
    rows = np.ones((4, 3))
    rows[2, 1] = value
    for function in (
        bulk.centroid, bulk.velocities, bulk.path_lengths, bulk.path_efficiencies, bulk.curvatures, coherence,
        shape.covariance, shape.principal_components, lambda rows: bulk.radii(rows, np.ones(3)),
        lambda rows: bulk.angles(rows, rows), lambda rows: shape.project(rows, np.eye(3)),
    ):  # fmt: skip
        with pytest.raises(InputError, match="not finite"):
            function(rows)
    with pytest.raises(InputError, match="not finite"):
        shape.tracer_axes(rows[2])
