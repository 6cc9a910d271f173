"""The figures of a report: what the page draws each from, its caption, and the table behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics.displacement import REGIMES
from duckling_train.report.blocks import Block, packed
from duckling_train.report.curves import Curves, Points
from duckling_train.report.gather import Shown

ROWS = 11
"""Rows of the table behind a plot, at most."""
ROWS_AND_STEPS = "Left and right arrow: another row; up and down: another step."
Figure = dict[str, Any]


def text(value: float) -> str:
    """Return a number for a table; a dash for what is not defined."""
    return "–" if not np.isfinite(value) else f"{value:,.4g}"


def some(count: int) -> list[int]:
    """Return at most ROWS of the numbers below `count`, equally spaced, the first and the last among them."""
    return [int(number) for number in np.linspace(0, count - 1, min(ROWS, count))]


def curve_figure(plot: Curves, runs: Sequence[tuple[str, dict[str, Points]]], block: Block) -> tuple[Figure, Figure]:
    """Return a plot of curves for the template, and for the script."""
    labels, series, lines = list(plot.columns.values()), [], []
    for number, (run, found) in enumerate(runs):
        for column, (name, label) in enumerate(plot.columns.items()):
            if name in found:
                x, y = found[name]
                series.append({"run": number, "column": column, "x": block.add(x, "i4"), "y": block.add(y, "f4")})
                lines.append((f"{run}: {label}" if len(runs) > 1 else label, x, y))
    steps = np.unique(np.concatenate([x for _, x, _ in lines]))
    head = ["#step", *(f"#{label}" for label, _, _ in lines)]
    rows = [[f"{steps[at]:,}", *(text(_upto(x, y, steps[at])) for _, x, y in lines)] for at in some(len(steps))]
    shown = {"kind": "curves", "name": plot.name, "title": plot.title, "caption": plot.caption,
             "table": {"head": head, "rows": rows}}  # fmt: skip
    return shown, {"unit": plot.unit, "logarithmic": plot.logarithmic, "stacked": plot.stacked, "columns": labels,
                   "series": series}  # fmt: skip


def _upto(x: npt.NDArray[np.int64], y: npt.NDArray[np.float64], step: int) -> float:
    """Return the last value up to a step, NaN where there is none."""
    at = int(np.searchsorted(x, step, side="right")) - 1
    return float(y[at]) if at >= 0 else float("nan")


def cloud_figure(shown: Shown, block: Block) -> tuple[Figure, Figure] | None:
    """Return the cloud of dead rows for the template, and for the script; None where there is none."""
    cloud, motion = shown.cloud, shown.motion
    if cloud is None:
        return None
    share = [f"{100 * part:.3g} %" for part in cloud.pca_share]
    views = {"pca": (cloud.pca, cloud.live, [f"PC{n + 1} ({share[n]} of the variance)" for n in (0, 1)], ["PC1", "PC2"],
                     "principal components")}  # fmt: skip
    if cloud.tracer is not None:
        labels = ["along r = h̄ / ‖h̄‖", "along one perpendicular"]
        views["tracer"] = cloud.tracer, cloud.live_tracer, labels, ["along r", "perpendicular"], "tracer, along h̄"
    script: Figure = {"views": {}, "steps": block.add(cloud.steps, "i4"), "ids": block.add(cloud.ids, "i4"),
                      "live_steps": block.add(cloud.live_steps, "i4"),
                      "live_ids": block.add(cloud.live_ids, "i4")}  # fmt: skip
    rows = [[f"{cloud.steps[at]:,}"] for at in some(len(cloud.steps))]
    head = ["#step"]
    for name, (points, live, labels, names, _) in views.items():
        coded = block.add_points(points, live)
        places = coded.pop("places")
        script["views"][name] = {**coded, "points": places[0], "live": places[1], "labels": labels, "short": names}
        head += [f"#{what} {axis}" for axis in names for what in ("mean", "spread")]
        for row, at in zip(rows, some(len(cloud.steps)), strict=True):
            row += [text(float(of(points[at, :, axis]))) for axis in (0, 1) for of in (np.mean, np.std)]
    if motion is not None:
        script["onset"] = block.add(motion.onset[np.argsort(motion.order)], "i4")
    behind = " Grey: the live rows, at fewer steps." if cloud.live is not None else ""
    tracer = (" The tracer view is along the last step's mean hidden state h̄, which the dead rows move against, and "
              "along one fixed perpendicular." if cloud.tracer is not None else "")  # fmt: skip
    caption = (
        f"The {len(cloud.ids):,} dead rows of W as points (blue) at {len(cloud.steps):,} steps, with the path of their "
        f"mean (orange); the cross is the origin.{behind} Both axes have one scale and stay as they are over all "
        "steps. Principal components are those of the rows' positions pooled over these steps; their share of that "
        f"variance is at the axes.{tracer} A row that is pointed at shows its own path."
    )
    template = {
        "kind": "cloud", "name": "cloud", "title": "The cloud of dead rows", "caption": caption, "live": bool(behind),
        "arrows": ROWS_AND_STEPS, "views": [(name, view[4]) for name, view in views.items()],
        "frames": len(cloud.steps), "table": {"head": head, "rows": rows},
    }  # fmt: skip
    return template, script


def motion_figure(shown: Shown, block: Block) -> tuple[Figure, Figure] | None:
    """Return the regimes of every dead row for the template, and for the script; None where there are none."""
    motion = shown.motion
    if motion is None:
        return None
    columns = motion.regimes.shape[1]
    shares = [(motion.regimes == number).mean(axis=0) for number in range(len(REGIMES))]
    rows = [[f"{motion.edges[at] + 1:,} to {motion.edges[at + 1]:,}", *(text(float(share[at])) for share in shares)]
            for at in some(columns)]  # fmt: skip
    several = f"the {columns:,} columns of consecutive steps, in the hottest regime of the column" \
        if columns < motion.edges[-1] - motion.edges[0] else "steps"  # fmt: skip
    template = {
        "kind": "motion", "name": "motion", "title": "Stratigraphy", "arrows": "The arrow keys: another row or step.",
        "key": REGIMES, "table": {"head": ["steps", *(f"#{name}" for name in REGIMES)], "rows": rows},
        "caption": f"Each of the {len(motion.order):,} dead rows as a line over {several}, sorted by its freeze onset, "
        "the last step in which it moved on the bf16 lattice: the rows that stop first are on top.",
    }  # fmt: skip
    script = {"edges": block.add(motion.edges, "i4"), "order": block.add(motion.order, "i4"), "names": REGIMES,
              "onset": block.add(motion.onset, "i4"), "packed": block.add(packed(motion.regimes), "u1")}  # fmt: skip
    return template, script


def distance_figure(shown: Shown) -> Figure | None:
    """Return the distance of every row from its start for the template; None where it is not known."""
    if shown.distance is None:
        return None
    live, dead = np.flatnonzero(~shown.dead), np.flatnonzero(shown.dead)
    groups = {f"live, quarter {n + 1} of 4": part for n, part in enumerate(np.array_split(live, 4))} | {"dead": dead}
    rows = [
        [name, f"{len(ids):,}", *(text(float(of(shown.distance[ids]))) for of in (np.min, np.median, np.max))]
        for name, ids in groups.items()
        if len(ids)
    ]
    return {
        "kind": "distance", "name": "distance", "title": "Distance from the start, by row",
        "arrows": "Left and right arrow: another row.",
        "caption": "How far each row of W is from its initial value after the last step. Live rows (grey) in the order "
        "of their ids, which is that of their tokens' frequency, the most frequent first; beside them the dead (blue).",
        "table": {"head": ["rows", "#number", "#smallest", "#median", "#largest"], "rows": rows},
    }  # fmt: skip
