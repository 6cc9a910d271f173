"""A whole record measured in one pass, in bounded memory: a table with a row a step, and one with a row a token.

Pieces of the record are measured by threads (numpy works without the interpreter's lock) and put together in order, so
no number depends on how many threads there are or how the record is divided. Eigenvalues, which cost most, are computed
at up to `COSTLY` equally spaced steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.executor import LocalExecutor, default_workers
from duckling_data.base.progress import nothing
from duckling_train.dynamics.arrays import Flags, Floats, Integers
from duckling_train.dynamics.displacement import DEFAULT_CUTS, Cuts
from duckling_train.dynamics.pieces import Piece, measure_piece
from duckling_train.dynamics.shape import tracer_axes
from duckling_train.dynamics.snapshot import Setting
from duckling_train.dynamics.tables import Table, row_table, step_table, summary
from duckling_train.dynamics.totals import Totals

COSTLY = 1000
"""At how many steps, at most, eigenvalues are computed."""
THREADS = 4
"""How many measure, at most, unless more are asked for: one thread decodes, and keeps no more of them busy."""
COSTLIEST = 30
"""At how many steps, at most, the indicators of under-trained tokens are: a fifth of a second each."""
OTHERS = ("grad_in", "grad_out", "exp_avg_sq", "h_mean", "p_dead")
"""The tensors besides W that columns follow from."""


class Tensor(Protocol):
    """A recorded tensor: an array [steps, ...] that is read in parts."""

    def __getitem__(self, part: Any, /) -> npt.NDArray[np.float32]:
        """Return a step's array, or those of a slice of steps."""

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterable[tuple[int, npt.NDArray[np.float32]]]:
        """Yield consecutive blocks: the number of the first step, and float32[steps, ...] in memory of its own."""


class Record(Protocol):
    """What is measured: the rows of W at recorded steps, and perhaps more."""

    @property
    def steps(self) -> Integers:
        """The optimizer steps recorded, rising, int64[n]."""

    @property
    def rows(self) -> Integers:
        """The rows of W recorded, rising, int64[m]."""

    @property
    def dead(self) -> Flags:
        """Which of them are dead, bool[m]."""

    @property
    def tensors(self) -> Sequence[str]:
        """The names of the recorded tensors, "W" among them."""

    @property
    def W(self) -> Tensor:  # noqa: N802  # the field's name for it
        """The recorded rows of W, float32[n, m, width]."""

    def __getitem__(self, name: str, /) -> Tensor:
        """Return a recorded tensor."""


@dataclass(frozen=True)
class Training:
    """What a record does not say about its run. Without it the columns that need it are null."""

    learning_rates: Sequence[float] | None = None
    """The learning rate of every optimizer step up to the last recorded one; that of step s at index s − 1."""
    weight_decay: float = 0.0
    """AdamW's, of the embedding."""
    beta2: float = 0.999
    """AdamW's."""
    vocabulary: int | None = None
    """The rows of W in all; None: unknown, and what needs all of them is not measured."""


UNKNOWN = Training()


@dataclass(frozen=True)
class Measures:
    """The measurements of a record."""

    steps: Table
    """A value a recorded step for each of STEP_COLUMNS; NaN, or None among eigenvalues, is null."""
    rows: Table
    """A value a recorded row for each of ROW_COLUMNS."""
    summary: dict[str, Any]
    """The main figures."""


def measure(
    record: Record, training: Training = UNKNOWN, *, cuts: Cuts = DEFAULT_CUTS, costly: int = COSTLY,
    threads: int | None = None, done: Callable[[int], object] = nothing,
) -> Measures:  # fmt: skip
    """Return the measurements of a record, in one pass over it; `done` is told how many steps were measured.

    `cuts` are the regimes', `costly` is at how many steps, at most, eigenvalues are computed, and `threads` is how many
    measure (None: one a core, THREADS at most), which changes no number. Raises InputError where the record holds
    nothing, or a number that is not finite, and where learning rates are missing.
    """
    setting = _setting(record, training, cuts, costly)
    totals = Totals(setting)
    names = [name for name in OTHERS if name in record.tensors]
    work = LocalExecutor(threads or min(default_workers(), THREADS), 1)
    for _, part in work.map(partial(measure_piece, setting), _pieces(record, names), ordered=True):
        totals.add(part)
        done(len(part.values))
    totals.solve()
    last = np.asarray(record.W[len(setting.steps) - 1], np.float64)
    fates = totals.fates()
    steps, rows = step_table(setting, totals, fates), row_table(setting, totals, fates, record.rows, last)
    return Measures(steps, rows, summary(setting, steps, rows, fates))


def _setting(record: Record, training: Training, cuts: Cuts, costly: int) -> Setting:
    steps, dead = np.asarray(record.steps, np.int64), np.asarray(record.dead, np.bool_)
    if not (len(steps) and len(dead)):
        raise InputError(f"the record holds {len(steps)} steps of {len(dead)} rows; expected at least one of each.")
    if costly < 1:
        raise InputError(f"eigenvalues at {costly} steps; expected at least 1.")
    rates = np.full(int(steps[-1]) + 1, np.nan)
    if training.learning_rates is not None:
        if len(training.learning_rates) < steps[-1]:
            known = f"the learning rates of {len(training.learning_rates)} steps"
            raise InputError(f"{known}; expected those of all {steps[-1]} up to the last recorded one.")
        rates[1:] = training.learning_rates[: int(steps[-1])]
    return Setting(
        steps=steps, dead=dead, whole=len(dead) == training.vocabulary, first=record.W[0], rates=rates,
        weight_decay=training.weight_decay, beta2=training.beta2, costly=_spaced(len(steps), costly),
        costliest=_spaced(len(steps), min(costly, COSTLIEST)), axes=_axes(record), cuts=cuts,
    )  # fmt: skip


def _spaced(count: int, most: int) -> Flags:
    """Return which of so many steps are chosen: at most so many, equally spaced, the first and the last among them."""
    chosen = np.zeros(count, np.bool_)
    chosen[np.linspace(0, count - 1, min(most, count)).astype(np.int64)] = True
    return chosen


def _axes(record: Record) -> Floats | None:
    """Return the directions of the tracer view; None where no mean hidden state was recorded, or it is 0."""
    if "h_mean" not in record.tensors or len(record.steps) < 2:
        return None
    h_mean = np.asarray(record["h_mean"][len(record.steps) - 1], np.float64)
    return tracer_axes(h_mean) if len(h_mean) > 1 and h_mean.any() else None


def _pieces(record: Record, names: Sequence[str]) -> Iterator[Piece]:
    before = record.W[0][None][:0]
    for first, block in record.W.blocks():
        others = {name: record[name][first : first + len(block)] for name in names}
        yield Piece(first, before, block, others)
        before = np.concatenate([before, block[-2:]])[-2:]
