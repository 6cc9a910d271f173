"""Lattice components: rows joined where their bf16 lattice distance L-infinity is at most 1.

The components are those of the graph whose nodes are the rows and whose edges are such pairs, as scipy's
`connected_components` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from duckling_data.base.progress import nothing
from duckling_train.dynamics.black_holes import black_holes
from duckling_train.dynamics.lattice import bf16_bits
from duckling_train.dynamics.neighbours import near_pairs
from duckling_train.dynamics.rows import Done, Ids, Rows


@dataclass(frozen=True)
class Components:
    """The lattice components of some rows."""

    labels: NDArray[np.int64]
    """The component of each row, numbered from 0 in the order of their first rows."""
    sizes: NDArray[np.int64]
    """The number of rows of each component."""

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.sizes)

    @property
    def largest(self) -> int:
        """The rows of the largest one; 0 where there are no rows."""
        return int(self.sizes.max(initial=0))

    @property
    def singletons(self) -> int:
        """How many are one row."""
        return int((self.sizes == 1).sum())


def lattice_components(rows: Rows, identical: list[Ids] | None = None, done: Done = nothing) -> Components:
    """Return the components. `identical` are the groups of bf16-identical rows, where they are known already.

    Memory is that of a few blocks of rows, whatever their number. Raises InputError as `rows.blocks` does.
    """
    groups = black_holes(rows, bf16_bits, done) if identical is None else identical
    labels = np.arange(rows.shape[0])
    for group in groups:
        labels[group] = group[0]
    firsts = np.flatnonzero(labels == np.arange(len(labels)))

    def apart(i: Ids, j: Ids) -> NDArray[np.bool_]:
        different: NDArray[np.bool_] = labels[i] != labels[j]
        return different

    for i, j, _ in near_pairs(rows, firsts, apart, done) if len(firsts) else ():
        if len(i):
            edges = coo_array((np.ones(len(i), bool), (labels[i], labels[j])), shape=(len(labels), len(labels)))
            labels = connected_components(edges, directed=False)[1][labels].astype(np.int64)
    _, first, numbers, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Components(rank[numbers], sizes[order])
