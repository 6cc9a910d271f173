"""How the dead rows of a record moved, in one pass over it: as points at some steps, and as regimes at every step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from duckling_data.base.executor import LocalExecutor, default_workers
from duckling_data.base.progress import nothing
from duckling_train.dynamics.arrays import Floats, Integers, gram
from duckling_train.dynamics.displacement import FROZEN, norms, regimes
from duckling_train.dynamics.lattice import bf16_bits, lattice
from duckling_train.dynamics.shape import tracer_axes
from duckling_train.recording.record import Record

Float32 = npt.NDArray[np.float32]
FRAMES, LIVE_FRAMES, COLUMNS = 400, 40, 1000
"""At how many steps, at most, the dead and the live rows are points, and how many columns show the regimes."""
KEPT = 512 << 20
"""Bytes of dead rows that are kept to be projected: of rows wider than Duckling II's, fewer steps are points."""
THREADS = 4


@dataclass(frozen=True)
class Cloud:
    """The dead rows as points in the plane, at some of the recorded steps. Coordinates are from the origin of W."""

    steps: Integers
    """int64[k]: equally spaced among the recorded steps, the first and the last among them."""
    ids: Integers
    """int64[m]."""
    pca: Float32
    """float32[k, m, 2], along the first two principal components of the rows' positions pooled over these steps."""
    pca_share: tuple[float, float]
    """The share of the pooled variance along each of them."""
    tracer: Float32 | None
    """float32[k, m, 2], along r = h̄ / ‖h̄‖ of the last step and one fixed perpendicular; None: h̄ was not recorded."""
    live_steps: Integers
    """int64[j]: some of `steps`; empty where no live rows were recorded."""
    live_ids: Integers
    """int64[l]."""
    live: Float32 | None
    """float32[j, l, 2]: the recorded live rows along the same components; None where there are none."""
    live_tracer: Float32 | None
    """float32[j, l, 2]: the same in the tracer view."""


@dataclass(frozen=True)
class Motion:
    """In which regime each dead row was: rows by steps."""

    edges: Integers
    """int64[c + 1]: column j holds the recorded steps after edges[j], up to edges[j + 1]."""
    order: Integers
    """int64[m]: the ids of the rows, those that moved last at the end; of equal ones the lower id first."""
    onset: Integers
    """int64[m]: the last recorded step in which each of them moved on the lattice; the first where none did."""
    regimes: npt.NDArray[np.uint8]
    """uint8[m, c], rows in `order`: the hottest regime in the column, 0 frozen, 1 late, 2 midlife, 3 early."""


def movement(record: Record, done: Callable[[int], object] = nothing) -> tuple[Cloud | None, Motion | None]:
    """Return the cloud and the motion of a record's dead rows; None where it has none, or, of motion, but one step.

    `done` is told how many more steps were read. Raises InputError for a damaged record and weights that are not
    finite.
    """
    count, places = len(record.steps), np.flatnonzero(record.dead)
    if not (len(places) and count):
        return None, None
    most = max(2, min(FRAMES, KEPT // (4 * record.width * len(places))))
    chosen = _spaced(count, most)
    frames = np.empty((len(chosen), len(places), record.width), np.float32)
    cuts = _spaced(count, COLUMNS + 1)
    hottest, last = np.zeros((len(places), len(cuts) - 1), np.uint8), np.zeros(len(places), np.int64)
    work = LocalExecutor(min(default_workers(), THREADS), 1)
    for _, (first, block, found) in work.map(_regimes, _pieces(record, places), ordered=True):
        held = slice(*np.searchsorted(chosen, (first, first + len(block))))
        frames[held] = block[chosen[held] - first]
        for number, of_step in enumerate(found, first + len(block) - len(found)):
            column = hottest[:, np.searchsorted(cuts, number) - 1]
            np.maximum(column, of_step, out=column)
            last[of_step != FROZEN] = number
        done(len(block))
    ids, order = record.rows[places], np.argsort(last, kind="stable")
    motion = Motion(record.steps[cuts], ids[order], record.steps[last][order], hottest[order]) if count > 1 else None
    return _cloud(record, chosen, ids, frames), motion


def _spaced(count: int, most: int) -> Integers:
    """Return at most so many of the numbers below `count`, equally spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def _pieces(record: Record, places: Integers) -> Iterator[tuple[int, Float32, Float32]]:
    """Yield (number of the first step, the step before it, if any, the steps) of the dead rows."""
    span = slice(int(places[0]), int(places[-1]) + 1)
    before = np.empty((0, len(places), record.width), np.float32)
    for first, block in record.W.blocks(rows=span):
        rows = block if len(places) == block.shape[1] else block[:, places - places[0]]
        yield first, before, rows
        before = rows[-1:]


def _regimes(piece: tuple[int, Float32, Float32]) -> tuple[int, Float32, npt.NDArray[np.uint8]]:
    """Return the number of the first step, the steps, and the rows' regimes in those with a step before them."""
    first, before, block = piece
    places = (lattice(bf16_bits(step)) for step in itertools.chain(before, block))
    found = [regimes(norms(new - old), block.shape[2]) for old, new in itertools.pairwise(places)]
    return first, block, np.array(found, np.uint8).reshape(-1, block.shape[1])


def _cloud(record: Record, chosen: Integers, ids: Integers, frames: Float32) -> Cloud:
    axes, share = _pooled_axes(frames)
    tracer = None
    if "h_mean" in record.tensors and record.width > 1 and (h_mean := record["h_mean"][-1]).any():
        tracer = tracer_axes(h_mean.astype(np.float64))
    live = np.flatnonzero(~record.dead)
    shown = chosen[_spaced(len(chosen), LIVE_FRAMES)] if len(live) else chosen[:0]
    points = [(_on(rows, axes), None if tracer is None else _on(rows, tracer))
              for rows in (record.W[int(number)][live] for number in shown)]  # fmt: skip
    return Cloud(
        record.steps[chosen], ids, _on(frames, axes), share, None if tracer is None else _on(frames, tracer),
        record.steps[shown], record.rows[live], np.stack([pca for pca, _ in points]) if points else None,
        np.stack([other for _, other in points if other is not None]) if points and tracer is not None else None,
    )  # fmt: skip


def _on(rows: Float32, axes: Floats) -> Float32:
    return np.asarray(rows @ axes.T.astype(np.float32), np.float32)


def _pooled_axes(frames: Float32) -> tuple[Floats, tuple[float, float]]:
    """Return the first two principal components of all rows of all frames, float64[2, width], and their shares.

    The largest entry of each is positive. Of rows with one weight the second is 0.
    """
    mean = np.mean([frame.mean(axis=0, dtype=np.float64) for frame in frames], axis=0)
    products = np.zeros((frames.shape[2], frames.shape[2]))
    for frame in frames:
        products += gram(frame - mean)
    values, vectors = np.linalg.eigh(products)
    directions = np.zeros((2, frames.shape[2]))
    directions[: len(values)] = vectors[:, ::-1][:, :2].T
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    top = [*np.maximum(values[::-1], 0)[:2], 0.0]
    total = max(float(values.sum()), np.finfo(float).tiny)
    return directions * np.where(largest < 0, -1.0, 1.0), (float(top[0] / total), float(top[1] / total))
