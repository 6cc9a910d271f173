"""What `inspect-embedding` prints for a person, from the figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from duckling_data.base.errors import printable
from duckling_train.embedding.figures import Inspected, MatrixFigures, Near

RANGES = 12
"""Ranges of ids in a line, at most."""
TITLES = {
    "cosine": "1 - cos to the mean of the unused rows",
    "cosine_without_mean": "the same, the mean of all rows removed",
    "cosine_without_first_pc": "the same, the first principal component removed",
    "distance": "distance to the mean of the unused rows",
    "norm": "norm",
}


def ranges(ids: Iterable[int]) -> str:
    """Return rising ids as `ids.read_ids` reads them, cut after RANGES ranges."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    shown = [f"{first}:{end}" if end > first + 1 else f"{first}" for first, end in runs[:RANGES]]
    return ",".join(shown) + (f" and {len(runs) - RANGES:,} more" if len(runs) > RANGES else "")


def text_of(found: Inspected, top: int) -> str:
    """Return the report: a paragraph for each matrix, at most `top` lines for each list in it."""
    return "\n".join(printable(line) for line in _lines(found, top))


def _lines(found: Inspected, top: int) -> Iterator[str]:
    yield f"output matrix: {found.output}"
    for matrix in found.matrices:
        shape = " x ".join(map(str, matrix.shape))
        yield f"{matrix.role} matrix {matrix.tensor}: {shape}, {matrix.dtype} ({matrix.file})"
        yield from _of_rows(matrix, top)
        yield ""
    yield from _of_ids(found)
    for matrix in found.matrices:
        for name, near in matrix.indicators.items():
            yield from ("", f"{matrix.role}, {TITLES[name]}; lowest, unused ids left out:")
            yield from map(_near, near)
        if matrix.detectability:
            yield from ("", f"{matrix.role}, how well the dead rows are found: AUROC, precision at as many as are dead")
        for line in matrix.detectability:
            given = f", given {line.references}" if line.references else ""
            yield f"  {line.auroc:.4f}  {line.precision:.4f}  {TITLES[line.indicator]}{given}"


def _of_rows(matrix: MatrixFigures, top: int) -> Iterator[str]:
    shown = {"0": "min", "0.01": "1 %", "0.25": "25 %", "0.5": "median", "0.75": "75 %", "0.99": "99 %", "1": "max"}
    yield "  norms: " + ", ".join(f"{shown[key]} {matrix.norms[key]:.5g}" for key in shown)
    shift = "" if matrix.mean_shift is None else f", {matrix.mean_shift:.4g} of it"
    yield f"  mean of all rows: norm {matrix.mean_norm:.5g}; mean distance from it {matrix.mean_distance:.5g}{shift}"
    for dtype, groups in (("float32", matrix.identical_float32), ("bf16", matrix.identical_bf16)):
        largest = f", the largest {max(map(len, groups)):,}" if groups else ""
        yield f"  black holes (rows equal in every bit of {dtype}): {len(groups):,} groups of " + (
            f"{sum(map(len, groups)):,} rows{largest}"
        )
        for group in sorted(groups, key=len, reverse=True)[:top]:
            yield f"    {len(group):,} rows: {ranges(group)}"
    yield f"  pairs of bf16 groups that are adjacent (lattice distance 1): {len(matrix.adjacent):,}"
    sizes = matrix.components
    yield (
        f"  lattice components (rows joined at a bf16 distance of at most 1): {sizes['number']:,}, "
        f"the largest {sizes['largest']:,}, {sizes['singletons']:,} of one row"
    )


def _of_ids(found: Inspected) -> Iterator[str]:
    for reason, ids in found.proposed.items():
        yield f"proposed as unused by {found.tokenizer}: {len(ids):,} {reason}" + (f": {ranges(ids)}" if ids else "")
    if found.given:
        yield f"unused ids, as given: {len(found.unused):,}"
    elif found.unused:
        yield f"unused ids, as proposed (--unused gives others): {len(found.unused):,}"
    else:
        yield "no unused ids are known: --unused IDS gives some, and the indicators are measured against them"


def _near(near: Near) -> str:
    return f"  {near.id:>7}  {near.value:.8g}  {'' if near.token is None else repr(near.token)}"
