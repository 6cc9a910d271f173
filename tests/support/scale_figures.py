"""What a measurement over sizes says: medians, how time grows, Ray's overhead; as tables and as a plot."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

FULL = 2_119_719
"""TinyStories' stories."""
LOCAL, AGAIN, RAY, SHARDS = "local", "again", "ray", "shards"
STAGES = ("count", "build-vocab", "pack", "report")
WITHIN = 0.15
"""The spread of the time a story that counts as linear growth."""


@dataclass(frozen=True)
class Step:
    """One command of a run, as `watched.Watched` measured it."""

    stage: str
    array: bool
    """Whether it is a task of an array, whose other tasks could run beside it."""
    seconds: float
    memory: int
    cluster: int
    worker: int
    temporary: int


@dataclass(frozen=True)
class Run:
    """All stages in one workspace."""

    way: str
    stories: int
    text_bytes: int
    start: float
    """Seconds that the Ray cluster took to start, before the commands."""
    steps: list[Step]
    digests: dict[str, str]

    def seconds(self, *stages: str, side_by_side: bool = False) -> float:
        """Return the sum of these stages' seconds; `side_by_side` takes the longest of an array's tasks alone."""
        total = 0.0
        for (stage, array), steps in itertools.groupby(self.steps, lambda step: (step.stage, step.array)):
            if stage in stages:
                times = [step.seconds for step in steps]
                total += max(times) if array and side_by_side else sum(times)
        return total


Runs = dict[tuple[str, int], list[Run]]
"""The rounds of each way and number of stories."""
MADE = STAGES[:3]
"""The stages that all ways have; the report is drawn in one process whatever the way."""


def grouped(runs: Sequence[Run]) -> Runs:
    """Return the runs by way and size, ascending."""
    found: Runs = {}
    for run in sorted(runs, key=lambda run: run.stories):
        found.setdefault((run.way, run.stories), []).append(run)
    return found


def median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    """Return the median of a figure over the rounds."""
    return statistics.median(map(figure, runs))


def peak(runs: Sequence[Run], figure: str) -> float:
    """Return the largest of a figure over the steps of all rounds, in MB."""
    sizes: list[int] = [getattr(step, figure) for run in runs for step in run.steps]
    return max(sizes) / 1e6


class Growth(NamedTuple):
    """How time grows with the number of stories."""

    startup: float
    """Seconds at no story, on the line through the two smallest sizes."""
    exponent: float
    """The slope of log time above that over log stories."""
    spread: float
    """The largest time a story above that, over the smallest, less 1."""


def growth(times: dict[int, float]) -> Growth | None:
    """Return how the seconds by number of stories grow; of sizes from FULL/16 on, or of all where there are fewer.

    None where there are not three sizes, or one that takes no longer than the start-up.
    """
    if len(times) < 3:
        return None
    (small, first), (larger, second) = sorted(times.items())[:2]
    startup = max(0.0, first - small * (second - first) / (larger - small))
    counted = [stories for stories in times if stories >= 0.99 * FULL / 16]
    work = {stories: times[stories] - startup for stories in (counted if len(counted) > 1 else times)}
    if min(work.values()) <= 0:
        return None
    exponent = np.polyfit(np.log(list(work)), np.log(list(work.values())), 1)[0]
    rates = [seconds / stories for stories, seconds in work.items()]
    return Growth(startup, float(exponent), max(rates) / min(rates) - 1)


def named(way: str) -> str:
    """Return a way as the tables name it."""
    if way.startswith(RAY):
        count = int(way.removeprefix(RAY))
        return f"Ray, {count} node{'s' if count > 1 else ''}"
    if way.startswith(SHARDS):
        return f"{way.removeprefix(SHARDS)} shards in turn"
    return {LOCAL: "local", AGAIN: "local, no kept tokens"}[way]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a Markdown table; the first `words` columns hold words, the others numbers."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figures_table(runs: Runs) -> str:
    """Return what each way took at each size."""
    head = ["way", "stories", "text, MB", *(f"{stage}, s" for stage in STAGES), "first three, s", "MB/s",
            "command, MB", "cluster, MB", "a worker, MB", "temporary disk, MB"]  # fmt: skip
    rows = []
    for (way, stories), own in runs.items():
        text = own[0].text_bytes / 1e6
        for side_by_side in (False, True) if way.startswith(SHARDS) else (False,):

            def of(*stages: str, side_by_side: bool = side_by_side, own: Sequence[Run] = own) -> float:
                return median(own, lambda run: run.seconds(*stages, side_by_side=side_by_side))

            name = named(way).replace("in turn", "side by side") if side_by_side else named(way)
            stages = [f"{of(stage):,.2f}" if of(stage) else "" for stage in STAGES]
            sizes = [f"{peak(own, kind):,.0f}" for kind in ("memory", "cluster", "worker")]
            sizes[1:] = sizes[1:] if way.startswith(RAY) else ["", ""]
            total = of(*MADE)
            rows.append(
                [name, f"{stories:,}", f"{text:,.0f}", *stages, f"{total:,.2f}", f"{text / total:,.0f}", *sizes,
                 f"{peak(own, 'temporary'):,.0f}"]
            )  # fmt: skip
    return table(head, rows)


def overhead_table(runs: Runs) -> str:
    """Return how much longer Ray takes than the local ways: with a cluster that runs already, and with its start."""
    head = ["way", "over", "stories", "s", "share", "start of the cluster, s", "with it, s", "share"]
    rows = []
    for (way, stories), own in runs.items():
        for base in (LOCAL, AGAIN) if way.startswith(RAY) else ():
            if (base, stories) in runs:
                local = median(runs[base, stories], lambda run: run.seconds(*MADE))
                over, start = median(own, lambda run: run.seconds(*MADE)) - local, median(own, lambda run: run.start)
                rows.append(
                    [named(way), named(base), f"{stories:,}", f"{over:+,.2f}", f"{over / local:+,.0%}",
                     f"{start:.1f}", f"{over + start:+,.2f}", f"{(over + start) / local:+,.0%}"]
                )  # fmt: skip
    return table(head, rows, words=2)


def growth_table(runs: Runs) -> str:
    """Return how each way's time grows, and whether that is linear."""
    head = ["way", "start-up, s", "exponent", "spread of the time a story", f"linear within {WITHIN:.0%}"]
    rows = []
    for way in dict.fromkeys(way for way, _ in runs):
        times = {size: median(own, lambda run: run.seconds(*MADE)) for (of, size), own in runs.items() if of == way}
        if found := growth(times):
            linear = "yes" if found.spread <= WITHIN else "no"
            rows.append([named(way), f"{found.startup:.2f}", f"{found.exponent:.3f}", f"{found.spread:.1%}", linear])
        else:
            rows.append([named(way), "", "", "", "cannot be told"])
    return table(head, rows)


def tables(runs: Sequence[Run]) -> str:
    """Return all tables, as Markdown."""
    found = grouped(runs)
    return "\n\n".join([figures_table(found), overhead_table(found), growth_table(found)]) + "\n"


PANELS: dict[str, Callable[[Sequence[Run]], float]] = {
    "seconds": lambda own: median(own, lambda run: run.seconds(*MADE)),
    "MB of text a second": lambda own: own[0].text_bytes / 1e6 / median(own, lambda run: run.seconds(*MADE)),
    "peak memory, MB": lambda own: peak(own, "memory") + peak(own, "cluster"),
    "temporary disk, MB (1 for less)": lambda own: max(1.0, peak(own, "temporary")),
}


def plot(runs: Sequence[Run], title: str) -> bytes:
    """Return a PNG of time, rate, memory and disk over the number of stories, a line for each way."""
    from duckling_data.base.plotting import COLOURS, default_settings, png

    with default_settings():
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        figure: Any = Figure(figsize=(9, 7), dpi=120, layout="constrained")
        found = grouped(runs)
        for axes, (name, value) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            for way, colour in zip(dict.fromkeys(way for way, _ in found), COLOURS, strict=False):
                points = {stories: value(own) for (of, stories), own in found.items() if of == way}
                axes.plot(list(points), list(points.values()), color=colour, marker="o", markersize=3.5,
                          label=named(way))  # fmt: skip
            axes.set(xscale="log", yscale="log", xlabel="stories", ylabel=name)
            axes.grid(which="both", alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda amount, _: f"{amount:,.10g}"))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        figure.suptitle(title, fontsize=10)
        return png(figure)
