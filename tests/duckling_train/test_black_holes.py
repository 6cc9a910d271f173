"""Black holes and lattice components are what a comparison of every row with every other finds."""

from __future__ import annotations

import hashlib
import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from duckling_data.base.errors import InputError
from duckling_train.dynamics import neighbours, rows
from duckling_train.dynamics.black_holes import adjacent_groups, black_holes
from duckling_train.dynamics.components import lattice_components
from duckling_train.dynamics.lattice import bf16_bits
from tests.support.lattice_rows import (
    EDGES,
    Rows,
    bf16_keys,
    coordinate,
    crowded,
    distance,
    from_coordinates,
    slow_components,
    slow_groups,
)

EDGE_ROWS = np.array([*itertools.product(EDGES, EDGES)], np.float32)
RANDOM = [crowded(seed, 150, width) for seed, width in enumerate((1, 2, 3, 5, 17, 40))]
CASES = [
    EDGE_ROWS, np.concatenate([EDGE_ROWS, EDGE_ROWS[::-1]]), *RANDOM, crowded(9, 60, 4, spread=0),
    np.float32([[1.5, -2]]), np.zeros((7, 3), np.float32), np.float32([[1.0, 1.0], [1.0, 1.0 + 2**-20]]),
]  # fmt: skip


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as it is, and once with the smallest blocks, so that every case crosses their borders."""
    if request.param == "in pieces":
        monkeypatch.setattr(rows, "BLOCK", 14)
        monkeypatch.setattr(neighbours, "PAIRS", 5)
        monkeypatch.setattr(neighbours, "SAMPLE", 3)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_groups_are_the_rows_with_equal_bits(case: Rows) -> None:
    assert [group.tolist() for group in black_holes(case)] == slow_groups([row.tobytes() for row in case])
    found = black_holes(case, bf16_bits)
    assert [group.tolist() for group in found] == slow_groups(bf16_keys(case))
    pairs = itertools.combinations(range(len(found)), 2)
    apart = {pair: distance(*(case[found[number][0]].tolist() for number in pair)) for pair in pairs}
    assert adjacent_groups(case, found).tolist() == [list(pair) for pair in apart if apart[pair] == 1]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_components_are_those_of_the_whole_graph(case: Rows) -> None:
    found = lattice_components(case)
    expected = slow_components(case)
    assert found.labels.tolist() == expected
    sizes = np.bincount(expected).tolist()
    assert (found.number, found.largest, found.singletons) == (len(sizes), max(sizes), sizes.count(1))
    assert found.sizes.tolist() == sizes


def test_rows_whose_hashes_are_equal_are_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    case = crowded(5, 80, 3)
    expected = slow_groups([row.tobytes() for row in case])
    hashed = hashlib.blake2b(b"", digest_size=8)
    monkeypatch.setattr("hashlib.blake2b", lambda row, digest_size: hashed)
    assert [group.tolist() for group in black_holes(case)] == expected


def test_both_zeros_are_two_groups_and_one_point() -> None:
    case = np.float32([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [-0.0, 1.0]])
    groups = black_holes(case, bf16_bits)
    assert [group.tolist() for group in groups] == [[0, 2], [1, 3]]
    assert adjacent_groups(case, groups).tolist() == []  # their distance is 0
    assert lattice_components(case).number == 1


def test_values_on_both_sides_of_an_exponent_and_of_zero_are_neighbours() -> None:
    assert [coordinate(value) for value in (1.9921875, 2.0)] == [0x3FFF, 0x4000]
    case = np.float32([[1.9921875], [2.0], [2.015625], [9.2e-41], [-9.2e-41], [-0.0]])
    assert lattice_components(case).labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert lattice_components(case[3:5]).number == 2  # without the zero between them


def test_no_rows_have_no_groups_and_no_components() -> None:
    empty = np.empty((0, 4), np.float32)
    assert black_holes(empty) == []
    found = lattice_components(empty)
    assert (found.number, found.largest, found.singletons) == (0, 0, 0)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3.4e38])
def test_what_is_not_finite_in_bf16_is_refused_with_its_row(value: float) -> None:
    case = np.ones((9, 3), np.float32)
    case[5, 1] = value
    for measure in (black_holes, lattice_components):
        with pytest.raises(InputError, match=r"row 5 has the value .*expected weights that are finite in bf16"):
            measure(case)


def test_components_of_many_rows_are_those_that_a_k_d_tree_finds() -> None:
    rng = np.random.default_rng(3)
    k = rng.integers(0, 14, (20_000, 4)) * rng.choice([1, 2], (20_000, 1))
    found = lattice_components(from_coordinates(k))
    pairs = cKDTree(k).query_pairs(1, p=np.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(k), len(k)))
    count, labels = connected_components(graph, directed=False)
    assert 50 < count == found.number
    assert len({*zip(labels.tolist(), found.labels.tolist(), strict=True)}) == count


def test_150_000_rows_need_no_table_of_all_pairs() -> None:
    rng = np.random.default_rng(4)
    case = rng.standard_normal((150_000, 8), np.float32) * np.float32(0.02)
    case[1::1000] = case[::1000]
    tracemalloc.start()
    found = lattice_components(case, identical=[])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.number, found.largest) == (150_000 - 150, 2)
    assert peak < 300 << 20  # a table of bits would take 2.6 GiB
