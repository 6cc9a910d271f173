"""Plots of rows and directions: the cloud of dead rows, how they freeze, their spectrum, each row's distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_train.plots.axes import DEAD, LIVE, Columns, legend_above, nothing_of, over_steps, tidy
from duckling_train.plots.curves import REGIMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from duckling_train.report.movement import Cloud, Motion

VIEWS = {
    "pca": ("first principal component (units of W)", "second component (units of W)"),
    "tracer": ("along r = h̄ / ‖h̄‖ (units of W)", "perpendicular to r (units of W)"),
}
"""The two views of the cloud, with the names of their axes."""
SPECTRA = 6
"""How many steps' eigenvalues are drawn."""


def look_of(name: str) -> dict[str, Any]:
    """Return how many points look, of live or dead rows: different to who sees no colours."""
    from matplotlib import rcParams

    size = rcParams["lines.markersize"] / 2
    marker = {"marker": "x", "markersize": 0.8 * size, "markeredgewidth": 0.2 * size}
    if name == "live":
        marker = {"marker": ".", "markersize": size, "markeredgewidth": 0}
    return {"linestyle": "none", "rasterized": True, **marker}  # as lines and text, they would make a large file


def cloud(cloud: Cloud, axes: Axes, step: int | None = None, view: str = "pca") -> None:
    """Draw the dead rows as points at a step, the path of their mean up to it, and live rows behind them.

    `cloud` is of `movement(record)`. `step` is the last one unless given, else the last of `cloud.steps` up to it.
    `view` is "pca", two principal components of all positions shown, or "tracer", along the mean hidden state and
    across it. The limits of the axes hold the whole run, and each axis has its own scale. Raises InputError for a step
    before the first, and for a view that was not recorded.
    """
    if view not in VIEWS:
        raise InputError(f"view is {view!r}; expected {' or '.join(VIEWS)}.")
    places, live = (cloud.pca, cloud.live) if view == "pca" else (cloud.tracer, cloud.live_tracer)
    if places is None:
        raise InputError("tracer: h_mean was not recorded; train with --record-tensors W,h_mean.")
    at = len(cloud.steps) - 1 if step is None else int(np.searchsorted(cloud.steps, step, side="right")) - 1
    if at < 0:
        raise InputError(f"step is {step}; expected the first recorded one, {cloud.steps[0]}, or a later one.")
    seen = [places.reshape(-1, 2)]
    if live is not None:
        seen.append(live.reshape(-1, 2))
        latest = np.searchsorted(cloud.live_steps, cloud.steps[at], side="right") - 1
        axes.plot(*live[latest].T, color=LIVE, alpha=0.35, label="live rows", **look_of("live"))
    axes.plot(*places[at].T, color=DEAD, alpha=0.6, label="dead rows", **look_of("dead"))
    path = places[: at + 1].mean(axis=1)
    axes.plot(*path.T, color="black", linewidth=0.8, label="path of mean")
    axes.plot(*path[0], color="black", marker="o", markersize=2)
    low, high = np.min([each.min(axis=0) for each in seen], axis=0), np.max([each.max(axis=0) for each in seen], axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=VIEWS[view][0], ylabel=VIEWS[view][1])
    axes.text(0.98, 0.97, f"step {cloud.steps[at]:,}", transform=axes.transAxes, ha="right", va="top")
    tidy(axes)
    legend_above(axes, 3, markerscale=4, handlelength=1.2)


def stratigraphy(motion: Motion, axes: Axes) -> None:
    """Draw the regime of every dead row over the steps, rows sorted by freeze onset, the first to freeze at the bottom.

    A column is of consecutive recorded steps, and shows the hottest regime in them.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    edges = np.arange(len(motion.order) + 1)
    axes.pcolorfast(motion.edges.astype(float), edges.astype(float), motion.regimes, vmin=-0.5, vmax=len(REGIMES) - 0.5,
                    cmap=ListedColormap([*REGIMES.values()]))  # fmt: skip
    axes.set_ylabel("dead rows, by freeze onset")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    over_steps(axes)
    axes.grid(visible=False)
    legend_above(axes, 4, handles=[Patch(color=colour, label=name) for name, colour in REGIMES.items()])


def spectrum(columns: Columns, axes: Axes) -> None:
    """Draw the eigenvalues of the dead rows' covariance, largest first, at up to SPECTRA equally spaced steps."""
    from matplotlib import colormaps

    pairs = zip(columns["step"], columns.get("eigenvalues", [None] * len(columns["step"])), strict=True)
    known = [(step, np.asarray(each, float)) for step, each in pairs if each is not None and np.isfinite(each).all()]
    if not known:
        raise nothing_of({"eigenvalues": ""})
    chosen = np.unique(np.linspace(0, len(known) - 1, SPECTRA).round().astype(int))
    for number, (step, values) in enumerate(known[index] for index in chosen):
        colour = colormaps["cividis"](0.8 * number / max(len(chosen) - 1, 1))
        axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=f"step {int(step):,}")
    axes.set_yscale("log")
    axes.set(xlabel="rank of the eigenvalue", ylabel="variance (units of W, squared)")
    axes.margins(x=0)
    tidy(axes)
    legend_above(axes, 3)


def distance(
    distances: npt.NDArray[np.floating], dead: npt.NDArray[np.bool_], axes: Axes, *, start: float | None = None
) -> None:  # fmt: skip
    """Draw how far each row is from its start, ‖W_i − W_i,0‖: live rows by frequency, dead rows beside them.

    `distances` and `dead` have a value a row, by compact id. `start` is the mean norm of a row at its start: a line.
    """
    ids, live = np.arange(len(dead)), int(np.count_nonzero(~dead))
    top = float(max(distances.max(), start or 0))
    axes.axvspan(live, len(ids), color=DEAD, alpha=0.08, linewidth=0)
    if start is not None:
        axes.axhline(start, color="0.45", linestyle="--", linewidth=0.8)
        axes.annotate(f"mean norm of a row at the start: {start:.3f}", (live / 2, start), xytext=(0, 3),
                      textcoords="offset points", color="0.2", ha="center", va="bottom",
                      bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})  # fmt: skip
    for name, colour, group in (("live", LIVE, ~dead), ("dead", DEAD, dead)):
        if not group.any():
            continue
        axes.plot(ids[group], distances[group], color=colour, alpha=0.6, label=f"{name} rows", **look_of(name))
        place, side = (ids[group].mean(), "center") if name == "live" else (len(ids), "right")
        axes.text(place, 0.98, f"{group.sum():,} {name} rows", transform=axes.get_xaxis_transform(), color=colour,
                  weight="bold", ha=side, va="top")  # fmt: skip
    axes.set(xlim=(-0.01 * len(ids), 1.005 * len(ids)), ylim=(0, 1.2 * top or 1), xticks=_ticks(live, len(ids)))
    axes.set_xlabel("compact id: live tokens by frequency, then dead")
    axes.set_ylabel("distance from the start, ‖W − W₀‖")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    tidy(axes)
    axes.grid(visible=False, axis="x")


def _ticks(live: int, rows: int) -> list[int]:
    """Return a few round ids of live rows, the first dead id, and the number of rows."""
    size = max(10 ** (len(str(live)) - 1), 1)
    size *= 2 if live >= 4 * size else 1
    return [*range(0, live - size // 2, size), live, rows]
