"""The figures of an embedding: norms, groups of identical rows, lattice components, indicators; one matrix or two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.base.progress import SILENT, Reporter
from duckling_train.dynamics.black_holes import adjacent_groups, black_holes
from duckling_train.dynamics.components import lattice_components
from duckling_train.dynamics.detectability import Detected, detectability, norms
from duckling_train.dynamics.indicators import NAMES, basis, indicators, lengths, mean_row
from duckling_train.dynamics.lattice import bf16_bits
from duckling_train.dynamics.rows import SMALL, Done, Float64, Ids, Rows, blocks
from duckling_train.embedding.tensors import Matrix, find
from duckling_train.embedding.tokens import DEAD, Vocabulary, open_vocabulary
from duckling_train.ids import ids_below

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Near:
    """An id that an indicator ranks."""

    id: int
    value: float
    token: str | None
    """Its text; None where it has none, or no tokenizer is there."""


@dataclass(frozen=True)
class MatrixFigures:
    """What is measured of one matrix."""

    role: str
    """input, output, or chosen."""
    file: str
    tensor: str
    dtype: str
    """bf16, fp16 or float32."""
    shape: list[int]
    norms: dict[str, float]
    """The rows' Euclidean norms at QUANTILES, and their mean."""
    mean_norm: float
    """The norm of the mean of all rows."""
    mean_distance: float
    """The mean distance of the rows from that mean."""
    mean_shift: float | None
    """The first divided by the second; None where all rows are the same."""
    identical_float32: list[list[int]]
    """The groups of rows with equal bits in float32: their ids."""
    identical_bf16: list[list[int]]
    """The same in bf16."""
    adjacent: list[list[int]]
    """The pairs of groups in bf16, by their position in that list, whose lattice distance is 1."""
    components: dict[str, int]
    """The lattice components: number, largest, singletons."""
    indicators: dict[str, list[Near]] = field(default_factory=dict)
    """By indicator the ids with the lowest values, the unused ones left out; empty where none are known."""
    detectability: list[Detected] = field(default_factory=list)
    """How well the known dead ids are found; empty where they are not known."""


@dataclass(frozen=True)
class Inspected:
    """What `inspect-embedding` shows."""

    path: str
    output: str
    """What there is of an output matrix: see `tensors.Found`."""
    tokenizer: str | None
    """The file that the tokens are read from."""
    proposed: dict[str, list[int]]
    """The unused ids that the tokenizer shows, by reason."""
    unused: list[int]
    """The ids that the indicators compare with: those given, else all that are proposed."""
    given: bool
    matrices: list[MatrixFigures]

    def json(self) -> dict[str, Any]:
        """Return all figures as JSON holds them."""
        return asdict(self)


def inspect(
    place: Path, *, tensor: str | None = None, unused: list[range] | None = None, top: int = 10,
    reporter: Reporter = SILENT,
) -> Inspected:  # fmt: skip
    """Measure the embedding in a safetensors file, or in a model's directory.

    `tensor` chooses a matrix by name, `unused` are ids that are known to be unused, `top` is how many ids are ranked.
    Raises InputError as `find`, `open_vocabulary` and the measurements do, and for an unused id that is no row.
    """
    found = find(place, tensor)
    rows = found.input.shape[0]
    vocabulary = open_vocabulary(place, rows) if place.is_dir() else None
    proposed = vocabulary.proposed if vocabulary is not None else {}
    shown = sorted({token for ids in proposed.values() for token in ids})
    chosen = ids_below(unused, rows, "--unused") if unused is not None else shown
    matrices = {"input" if tensor is None else "chosen": found.input, "output": found.output}
    dead = np.array(proposed.get(DEAD, []), np.int64)
    request = _Request(np.array(chosen, np.int64), dead, top, vocabulary, reporter)
    figures = [_measured(role, matrix, request) for role, matrix in matrices.items() if matrix is not None]
    tokenizer = vocabulary.file if vocabulary is not None else None
    return Inspected(str(place), found.kind, tokenizer, dict(proposed), chosen, unused is not None, figures)


@dataclass(frozen=True)
class _Request:
    unused: Ids
    dead: Ids
    top: int
    vocabulary: Vocabulary | None
    reporter: Reporter


def _measured(role: str, matrix: Matrix, request: _Request) -> MatrixFigures:
    try:
        return _figures(role, matrix, request)
    except InputError as error:
        raise InputError(f"{matrix.file}: tensor {matrix.name}: {error}") from error


def _figures(role: str, matrix: Matrix, request: _Request) -> MatrixFigures:
    rows = matrix.shape[0]

    def watched(what: str, measure: Callable[[Done], Any], passes: int = 1) -> Any:
        with request.reporter.bar(f"{matrix.name}: {what}", passes * rows, "rows") as bar:
            return measure(bar.update)

    found = watched("norms", lambda done: norms(matrix, done))
    mean = watched("mean", lambda done: mean_row(matrix, done))
    apart = watched("distance from the mean", lambda done: float(distances(matrix, mean, done).mean()))
    exact = watched("identical rows", lambda done: black_holes(matrix, done=done))
    groups = watched("identical rows in bf16", lambda done: black_holes(matrix, bf16_bits, done))
    adjacent = watched("adjacent groups", lambda done: adjacent_groups(matrix, groups, done))
    components = watched("components", lambda done: lattice_components(matrix, groups, done))
    unused, dead = (ids[ids < rows] for ids in (request.unused, request.dead))
    ranked: dict[str, list[Near]] = {}
    detected: list[Detected] = []
    if len(unused):
        known = watched("principal component", lambda done: basis(matrix, mean, done))
        values = watched("indicators", lambda done: indicators(matrix, unused, known, done))
        ranked = {name: _lowest(getattr(values, name), unused, request) for name in NAMES}
        if 0 < len(dead) < rows:
            detected = watched("detectability", lambda done: detectability(matrix, dead, known, done), 4)
    shift = float(np.linalg.norm(mean))
    return MatrixFigures(
        role, str(matrix.file), matrix.name, matrix.dtype, list(matrix.shape), _quantiles(found), shift, apart,
        shift / apart if apart else None, [group.tolist() for group in exact], [group.tolist() for group in groups],
        adjacent.tolist(),
        {name: getattr(components, name) for name in ("number", "largest", "singletons")}, ranked, detected,
    )  # fmt: skip


def distances(rows: Rows, to: Float64, done: Done) -> Float64:
    """Return each row's distance to a vector, float64, [n]."""
    found = np.empty(rows.shape[0])
    for first, block in blocks(rows, done, SMALL):
        found[first : first + len(block)] = lengths(block - to)
    return found


def _quantiles(values: Float64) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    return {f"{quantile:g}": float(value) for quantile, value in zip(QUANTILES, found, strict=True)} | {
        "mean": float(values.mean())
    }


def _lowest(values: Float64, unused: Ids, request: _Request) -> list[Near]:
    """Return the ids with the lowest values, of equal ones the lower id first; the unused ids are left out."""
    order = np.argsort(values, kind="stable")
    others = order[~np.isin(order, unused)][: request.top]
    text = request.vocabulary.text if request.vocabulary is not None else lambda token: None
    return [Near(int(token), float(values[token]), text(int(token))) for token in others]
