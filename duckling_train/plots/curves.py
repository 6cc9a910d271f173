"""Plots of what is measured over the steps: each draws columns of measures.parquet on the axes that it is given.

`columns` is `measure(record).steps`, or the columns of a run's measures.parquet. Each function raises InputError where
none of its columns has a value; docs/dynamics.md defines them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.base.plotting import COLOURS
from duckling_train.dynamics.detectability import OF_MEANS
from duckling_train.plot import Curve, draw_curves
from duckling_train.plots.axes import DEAD, Columns, column, legend_above, lines, nothing_of, over_steps, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REGIMES = {"frozen": "#123F5F", "late": "#56B4E9", "midlife": "#F2CC6B", "early": "#D55E00"}
"""The regimes from cold to hot, with colours that differ to the colour-blind and in lightness."""
INDICATORS = {"cosine": "cosine", "cosine_without_mean": "cosine, less mean",
              "cosine_without_first_pc": "cosine, less 1st PC", "distance": "distance"}  # fmt: skip
"""The indicators of under-trained tokens (Land and Bartolo 2024), and their labels."""
BINS = 500
"""Steps drawn of a stack, at most: each the mean of its neighbours."""


class Losses(Protocol):
    """Logged losses: an opened run's, or a LossTracker's."""

    @property
    def steps(self) -> Sequence[int]:
        """The steps at which a loss was logged."""

    @property
    def losses(self) -> Sequence[float]:
        """The losses, nats a token."""


def loss(logged: Losses, axes: Axes, vocabulary: int | None = None) -> None:
    """Draw the logged losses; with `vocabulary` also its logarithm, the loss where all tokens are equally likely.

    Where they are many, the mean over the last tenth of the logs so far is drawn, too. `logged` is an opened run or a
    LossTracker. Raises InputError where no loss is logged.
    """
    from matplotlib.ticker import LogLocator

    if not logged.losses:
        raise InputError("loss: none is logged yet")
    plain = Curve(logged.steps, logged.losses, {"color": COLOURS[0], "linewidth": 0.8, "label": "logged"})
    curves = [plain]
    if plain.long:
        faint = Curve(logged.steps, logged.losses, {**plain.style, "alpha": 0.45})
        curves = [faint, plain.smoothed(color=COLOURS[0], linewidth=1.5, label="running mean")]
    draw_curves(axes, curves)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
    tidy(axes)
    if vocabulary is not None:
        even = math.log(vocabulary)
        axes.axhline(even, color="0.4", linestyle="--", linewidth=0.8, label=f"ln {vocabulary:,}: all equally likely")
        axes.set_ylim(top=max(axes.get_ylim()[1], even + 0.3))
    legend_above(axes)


def centroid(columns: Columns, axes: Axes) -> None:
    """Draw where the dead rows' centroid C is, the path that it took, and the radius of the rows around it.

    Where ‖C‖ exceeds the largest radius, the origin is outside the ball that holds the dead rows.
    """
    named = {"centroid_norm": "‖C‖", "centroid_displacement": "‖C − C₀‖", "path_length": "path of C",
             "radius_mean": "mean radius", "radius_max": "largest radius"}  # fmt: skip
    lines(columns, axes, named, "distance (units of W)")
    axes.set_ylim(bottom=0)


def velocity(columns: Columns, axes: Axes) -> None:
    """Draw how far rows move, mean ‖Δ‖, and the dead centroid, ‖ΔC‖, from one recorded step to the next."""
    named = {"live_displacement_mean": "live rows", "displacement_mean": "dead rows",
             "velocity": "dead centroid"}  # fmt: skip
    lines(columns, axes, named, "moved in a step (units of W)", log=True)


def coherence(columns: Columns, axes: Axes) -> None:
    """Draw the mean pairwise cosine of the dead rows' displacements, on a scale that is logarithmic towards 1."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    values = column(columns, "coherence")
    if not np.isfinite(values).any():
        raise nothing_of({"coherence": ""})
    known = values < 1
    axes.plot(np.asarray(columns["step"])[known], 1 - values[known], color=DEAD)
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _position: f"{1 - y:.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("coherence (mean cosine)")
    over_steps(axes)


def regimes(columns: Columns, axes: Axes) -> None:
    """Draw the share of the dead rows in each regime, one above the other."""
    names = [f"{name}_fraction" for name in REGIMES]
    shares = np.stack([column(columns, name) for name in names])
    known = np.isfinite(shares).all(axis=0)
    if not known.any():
        raise nothing_of(dict.fromkeys(names, ""))
    shares, steps = shares[:, known], column(columns, "step")[known]
    starts = np.unique(np.linspace(0, len(steps), min(BINS, len(steps)), endpoint=False).astype(np.int64))
    means = np.add.reduceat(shares, starts, axis=1) / np.diff([*starts, len(steps)])
    middles = np.add.reduceat(steps, starts) / np.diff([*starts, len(steps)])
    middles[[0, -1]] = steps[[0, -1]]
    axes.stackplot(middles, means, labels=[*REGIMES], colors=[*REGIMES.values()], edgecolor="white", linewidth=0.3)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of the dead rows")
    over_steps(axes)
    legend_above(axes, 4)


def survival(columns: Columns, axes: Axes) -> None:
    """Draw the share of the dead rows that still move (Kaplan–Meier), beside rows that hop at random to the end.

    The axis begins shortly before the first of them freezes.
    """
    named = {"surviving": "Kaplan–Meier", "surviving_poisson": "null: random hops"}
    lines(columns, axes, named, "share of the dead rows not frozen")
    curves = [np.asarray(line.get_data(), np.float64) for line in axes.get_lines()]
    first, begins, last = curves[0][0, 0], min(x[y == 1].max(initial=x[0]) for x, y in curves), curves[0][0, -1]
    for line in axes.get_lines():
        line.set_drawstyle("steps-post")
    left = max(first, last - 1.3 * (last - begins)) if begins < last else first
    axes.set_xlim(left, last + 0.02 * (last - left))
    axes.set_ylim(0, 1.02)


def forces(columns: Columns, axes: Axes) -> None:
    """Draw the two parts of a dead row's displacement: Adam's and weight decay's."""
    named = {"adam_part_mean": "Adam", "decay_part_mean": "weight decay"}
    lines(columns, axes, named, "part of ‖Δ‖ (units of W)", log=True)


def second_moments(columns: Columns, axes: Axes) -> None:
    """Draw √v̂, the root of AdamW's second moment, of dead rows against live ones."""
    named = {"root_second_moment_live": "live rows", "root_second_moment_dead": "dead rows"}
    lines(columns, axes, named, "mean √v̂ (nats per unit of W)", log=True)


def isotropy(columns: Columns, axes: Axes) -> None:
    """Draw the isotropy of all of W, as it is and with its mean μ removed, and the mean's size beside the rows'."""
    named = {"isotropy": "isotropy of W", "isotropy_centred": "isotropy of W − μ",
             "mean_shift_relative": "‖μ‖ / mean ‖W − μ‖"}  # fmt: skip
    lines(columns, axes, named, "ratio")
    axes.set_ylim(bottom=0)


def black_holes(columns: Columns, axes: Axes) -> None:
    """Draw the share of the dead rows with the same bits as another, in float32 and in bf16."""
    named = {"identical_fraction": "same bits in float32", "identical_fraction_bf16": "same bits in bf16"}
    lines(columns, axes, named, "share of the dead rows")
    top = max(axes.get_ylim()[1], 0.01)
    axes.set_ylim(-0.03 * top, top)


def detectability(columns: Columns, axes: Axes, references: int = OF_MEANS) -> None:
    """Draw how well indicators of under-trained tokens, given so many dead ids, find the dead rows: the AUROC."""
    named = {"auroc_norm": "norm"} | {f"auroc_{name}_{references}": label for name, label in INDICATORS.items()}
    lines(columns, axes, named, "AUROC")
    axes.set_ylim(top=1.02)
