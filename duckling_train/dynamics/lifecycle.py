"""The phases that a row goes through, and when it last moved (measurements 4 and 5).

A row behaves early, midlife, late or frozen in a step (`displacement.py`). Its phase at a step is the hottest behaviour
that it still shows then or later: a row is in its early phase up to its last early step, then in midlife up to its last
midlife step, then late, then frozen.

Its freeze onset is the last step in which it moved at all (L1 > 0). The end of the run hides what comes after: the
onset is only as certain as the silence after it is long, next to how often the row moved before (`survival.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics.arrays import Flags, Floats, Integers, ratio
from duckling_train.dynamics.displacement import EARLY, FROZEN, LATE, MIDLIFE

HOTTER = (EARLY, MIDLIFE, LATE)
"""The regimes whose last steps set the phases, in the order of the phases."""
WINDOW = 1000
"""Steps before the onset over which the hop rate is counted: movement slows down over a run."""


def last_steps(regimes: npt.NDArray[np.int8], steps: Integers, start: int) -> Integers:
    """Return the last step of each behaviour hotter than frozen, int64[3, rows]: early, midlife, late.

    `regimes` is int8[steps, rows], `steps` the optimizer steps that they were measured after, `start` the step of the
    recording's beginning, which stands for "never". The largest over consecutive blocks is that of all of them.
    """
    shown = [np.where(regimes == regime, steps[:, None], start) for regime in HOTTER]
    return np.stack([each.max(axis=0, initial=start) for each in shown]).astype(np.int64)


def phases(last: Integers, steps: Integers) -> npt.NDArray[np.int8]:
    """Return the phase of each row at each of the steps, int8[steps, rows]: the numbers of `displacement.REGIMES`."""
    found = np.full((len(steps), last.shape[1]), FROZEN, np.int8)
    for regime, ends in reversed(tuple(zip(HOTTER, last, strict=True))):  # a hotter one covers a colder one
        found[steps[:, None] <= ends] = regime
    return found


def onsets(last: Integers) -> Integers:
    """Return the freeze onset of each row, int64: its last step with L1 > 0, whatever its regime was."""
    return np.asarray(last.max(axis=0))


def silent_windows(onset: Integers, end: int) -> Integers:
    """Return the steps from each row's onset to the end of the recording, in which it was not seen to move, int64."""
    return end - onset


def hop_rates(moved: Iterable[Flags], steps: Integers, onset: Integers, start: int, window: int = WINDOW) -> Floats:
    """Return how often each row moved before its onset, in hops a step, float64.

    A hop is a recorded step with L1 > 0. Those of the `window` steps up to and with the onset are counted, and divided
    by the number of these steps, fewer where the recording starts within the window. 0 for a row that never moved.
    `moved` is bool[rows] for each of the `steps` after `start`.
    """
    first = np.maximum(onset - window, start)
    counted = np.zeros(len(onset), np.float64)
    for step, each in zip(steps, moved, strict=True):  # one by one: the flags of a long run are kept as bits
        counted += each & (step > first) & (step <= onset)
    return np.nan_to_num(ratio(counted, (onset - first).astype(np.float64)))
