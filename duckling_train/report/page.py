"""`duckling-train report`: the page of a run, or of several, as one file of HTML that asks for no other.

It holds no clock and no path: equal runs give equal bytes. Scripts run by their hashes alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from duckling_data.base.errors import printable
from duckling_data.base.page import render
from duckling_data.base.plotting import COLOURS
from duckling_data.base.progress import SILENT, Reporter
from duckling_train.opened import Run
from duckling_train.report import figures, words
from duckling_train.report.blocks import Block
from duckling_train.report.curves import CURVES, POINTS, Curves, Points, columns_of, curves_of
from duckling_train.report.gather import Shown, gather

HERE = Path(__file__).parent


def report(runs: Sequence[Run], reporter: Reporter = SILENT) -> bytes:
    """Return the page of these runs. Raises InputError for a damaged one."""
    return page([gather(run, reporter) for run in _renamed(runs)])


def _renamed(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, those of one name told apart by a number."""
    counts, seen, found = Counter(run.name for run in runs), Counter[str](), []
    for run in runs:
        seen[run.name] += 1
        name = run.name if counts[run.name] == 1 else f"{run.name} ({seen[run.name]})"
        found.append(replace(run, name=printable(name)))
    return found


def page(runs: Sequence[Shown]) -> bytes:
    """Return the page of what is shown of one run or more. Canvases are of one: see `_with_canvases`."""
    block, first = Block(), _with_canvases(runs)
    columns = [(shown.run.name, columns_of(shown)) for shown in runs]
    about: dict[str, Any] = {
        "runs": [name for name, _ in columns], "colours": COLOURS, "dead": _dead(first),
        "tokens": first.tokens, "counts": block.add(first.counts, "f4"), "curves": {},
    }  # fmt: skip
    sections = _sections(runs, columns, about, block)
    if first.distance is not None:
        about["distance"] = block.add(first.distance, "f4")
    one, name = len(runs) == 1, first.run.name
    script, uplot = ((HERE / file).read_text("utf-8") for file in ("report.js", "uplot/uPlot.iife.min.js"))
    return render(
        HERE / "report.html", about=about, data=block.bytes(), script=script, uplot_js=uplot,
        uplot_css=(HERE / "uplot" / "uPlot.min.css").read_text("utf-8"), hashes=" ".join(map(_hash, (uplot, script))),
        title=f"{name if one else f'{len(runs)} runs'}: how dead rows move", sections=sections,
        heading=f"{name}: how its dead rows move" if one else f"How dead rows move: {', '.join(about['runs'])}",
        lines=[words.in_a_line(first)] if one else [f"{shown.run.name}: {words.in_a_line(shown)}" for shown in runs],
        tiles=words.figures_of(first, columns[0][1]) if one else [], compared=None if one else words.compared(runs),
        closing=f"A curve goes through at most {POINTS:,} equally spaced steps of its run; measures.parquet has all.",
        notes=[line for shown in runs for line in words.lacks(shown)],
    )  # fmt: skip


def _with_canvases(runs: Sequence[Shown]) -> Shown:
    """Return the run whose rows are shown: the first that recorded dead rows, else the first."""
    return next((shown for shown in runs if shown.cloud is not None), runs[0])


def _dead(shown: Shown) -> tuple[int, int]:
    """Return the first dead id and the one after the last: they are consecutive."""
    ids = shown.dead.nonzero()[0]
    return (int(ids[0]), int(ids[-1]) + 1) if len(ids) else (len(shown.dead), len(shown.dead))


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _sections(
    runs: Sequence[Shown], columns: Sequence[tuple[str, dict[str, Points]]], about: dict[str, Any], block: Block
) -> list[dict[str, Any]]:
    """Return the sections for the template, in order; add to `about` what the script needs of their figures."""
    first = _with_canvases(runs)
    sections: dict[str, dict[str, Any]] = {}

    def under(title: str) -> dict[str, Any]:
        return sections.setdefault(title, {"title": title, "facts": [], "figures": []})

    def canvas(title: str, figure: dict[str, Any]) -> None:
        if len(runs) > 1:
            figure["caption"] += f" Of {first.run.name} alone."
        under(title)["figures"].append(figure)

    def curves(plot: Curves) -> None:
        figure, about["curves"][plot.name] = figures.curve_figure(plot, columns, block)
        under(plot.section)["figures"].append(figure)

    drawn = {plot.name: plot for plot in curves_of([found for _, found in columns])}
    for plot in CURVES:  # a canvas has its place among them, whether the run has those or not
        if plot.name == "start" and (distance := figures.distance_figure(first)) is not None:
            canvas(plot.section, distance)
        if plot.name in drawn:
            curves(drawn[plot.name])
        if plot.name == "loss" and (cloud := figures.cloud_figure(first, block)) is not None:
            about["cloud"] = cloud[1]
            canvas("The cloud of dead rows", cloud[0])
        if plot.name == "regimes" and (motion := figures.motion_figure(first, block)) is not None:
            about["motion"] = motion[1]
            canvas(plot.section, motion[0])
    for title, of in (("Black holes", words.black_holes_in_words), ("Survival of motion", words.survival_in_words)):
        if title in sections:
            sections[title]["facts"] += [f"{first.run.name}: {line}" if len(runs) > 1 else line for line in of(first)]
    return list(sections.values())
