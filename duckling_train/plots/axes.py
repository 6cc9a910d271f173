"""What the plots share: lines of columns over the step, labels that suit one column of print, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.plotting import COLOURS
from duckling_train.plot import LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Columns = Mapping[str, Any]
"""Columns of measures.parquet by name: an array [recorded steps] each, NaN where there is no value."""

LIVE, DEAD = COLOURS[0], COLOURS[1]
"""The colours of live and dead rows in every plot."""
STEP = "optimizer step"


def lines(columns: Columns, axes: Axes, named: Mapping[str, str], ylabel: str, *, log: bool = False) -> None:
    """Draw columns over the step, each with its label; those without a value are left out.

    Raises InputError where none has a value.
    """
    found = {name: values for name in named if np.isfinite(values := column(columns, name)).any()}
    if not found:
        raise nothing_of(named)
    for (name, label), colour, style in zip(named.items(), COLOURS, (*LINES, *LINES), strict=False):
        if name in found:
            known = np.isfinite(found[name]) & (found[name] > 0 if log else True)  # the logarithm of 0 is not drawn
            axes.plot(columns["step"][known], found[name][known], color=colour, linestyle=style, label=label)
    axes.set_ylabel(ylabel)
    if log:
        axes.set_yscale("log")
    over_steps(axes)
    legend_above(axes)


def column(columns: Columns, name: str) -> npt.NDArray[np.float64]:
    """Return a column of numbers, float64; NaN where another version of `measure` had no such column."""
    return np.asarray(columns.get(name, np.full(len(columns["step"]), np.nan)), np.float64)


def nothing_of(names: Mapping[str, str]) -> InputError:
    """Return the refusal of a plot whose columns have no value."""
    return InputError(f"{', '.join(names)}: no value in the measures; docs/dynamics.md says what is to be recorded")


def over_steps(axes: Axes) -> None:
    """Give a plot its axis of steps, without empty space at its ends."""
    axes.set_xlabel(STEP)
    axes.margins(x=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    tidy(axes)


def tidy(axes: Axes) -> None:
    """Leave out what a plot does not need, and let its grid be faint."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)


def legend_above(axes: Axes, columns: int = 2, **given: Any) -> None:
    """Draw a legend above the axes, where it covers nothing."""
    look = {"columnspacing": 1.2, "handlelength": 2.2, "borderaxespad": 0.3, "frameon": False} | given
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, **look)
