"""The report's figures, each a PNG of 1200 x 800: coverage, Zipf's law, story length, the tokens without a live id.

A narrow one of 920 x 1200 is for phones: its text is as large there as the page's own, its legends are below the axes.
Equal facts give equal bytes. Tokens are shown in what matplotlib's own fonts can draw; the rest is escaped.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from duckling_data.base.plotting import COLOURS, default_settings, png
from duckling_data.stages.report.facts import Facts, Lengths, level_name, percent

LIVE, UNKNOWN, SECOND = COLOURS[:3]
MARK, QUIET = "#222222", "#6B6B6B"

SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
"""The fonts that come with matplotlib."""
STYLE: dict[str, Any] = {
    "font.family": SANS,
    "font.size": 13,
    "axes.titlesize": "medium",
    "axes.titlecolor": QUIET,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "figure.figsize": (12, 8),
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "text.parse_math": False,  # a token may hold a "$"
}
NARROW: dict[str, Any] = {"figure.figsize": (4.6, 6), "figure.dpi": 200, "font.size": 10.5}
NARROW_CHARACTERS = 42
"""A narrow figure breaks its text into lines of so many."""
MOST_FREQUENT = "the most frequent first"
LABEL_LIMIT = 28
"""Characters of a token that a label shows."""
TAIL_SHOWN = 0.998
"""The share of the stories that the histogram of lengths reaches; it names the rest."""


def draw(facts: Facts, *, narrow: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, PNG) of each of FIGURES, in the page's order; the narrow ones if so asked."""
    for plot in FIGURES:
        with default_settings(STYLE | (NARROW if narrow else {})):
            content = png(plot(facts))
        yield f"{plot.__name__}.png", content


def coverage(facts: Facts) -> Figure:
    """Return the coverage curve over what it leaves out, the latter on a logarithmic scale, with the live cut."""
    figure = _figure(f"{facts.cut:,} live ids cover {percent(facts.coverage)} of the tokens")
    upper, lower = figure.subplots(2, 1, sharex=True)
    ranks = np.arange(1, len(facts.counts.count) + 1)
    left_out = facts.beyond / facts.counts.total
    upper.plot(ranks, 1 - left_out, color=LIVE, linewidth=2.5)
    lower.plot(ranks[:-1], left_out[:-1], color=LIVE, linewidth=2.5)
    _mark_levels(upper, lower, facts)
    _mark_cut(upper, lower, facts)
    upper.set(title=_lines(_counted(facts)), ylabel="share of tokens covered", ylim=(0, 1.04))
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    deepest = min([level for level in left_out if level > 0] + [1.0])
    floor = max(deepest, min(1e-3, 1 - facts.coverage or 1.0) / 8)
    lower.set(ylabel="share left out", yscale="log", ylim=(floor / 1.5, 1.5), xlabel=f"ids kept, {MOST_FREQUENT}")
    lower.yaxis.set_major_formatter(FuncFormatter(lambda share, _position: f"{100 * share:.10g} %"))
    lower.yaxis.set_minor_formatter(NullFormatter())
    _log_axis(lower.xaxis)
    lower.set_xlim(left=0.9)
    return figure


def _mark_levels(upper: Any, lower: Any, facts: Facts) -> None:
    """Mark where each level of coverage is reached; below, a line leads to it from its name at the left."""
    for name, ids in facts.count.figures["ids_for_coverage"].items():
        left_out = float(facts.beyond[ids - 1]) / facts.counts.total
        upper.plot([ids], [1 - left_out], "o", color=MARK, markersize=6)
        if left_out > 0:
            lower.plot([1, ids], [left_out] * 2, ":", color=QUIET, linewidth=1)
            lower.plot([ids], [left_out], "o", color=MARK, markersize=6)
            label = f"{level_name(name)} with {ids:,} ids"
            lower.text(1, left_out, label, va="center", fontsize=_points(12), bbox={"color": "white", "pad": 1})


def _mark_cut(upper: Any, lower: Any, facts: Facts) -> None:
    for axes, share in ((upper, facts.coverage), (lower, 1 - facts.coverage)):
        axes.axvline(facts.cut, color=UNKNOWN, linewidth=1.8, linestyle="--")
        if share > 0:
            axes.plot([facts.cut], [share], "o", color=UNKNOWN, markersize=10, zorder=5)
    # The label is on the wider side: the axis is logarithmic, its middle the square root.
    side, shift = ("right", -10) if facts.cut**2 > len(facts.counts.count) else ("left", 10)
    label = f"{facts.cut:,} ids: {percent(facts.coverage)}"
    look = {"color": UNKNOWN, "weight": "bold", "fontsize": _points(15), "xycoords": upper.get_xaxis_transform()}
    upper.annotate(label, (facts.cut, 0.06), (shift, 0), textcoords="offset points", ha=side, **look)


def zipf(facts: Facts) -> Figure:
    """Return count by rank, with the live part, the rest and the live cut."""
    ranks, counts = np.arange(1, len(facts.counts.count) + 1), facts.counts.count
    figure = _figure(f"Token counts by rank: {facts.unknown_ids:,} of {len(ranks):,} distinct tokens have no live id")
    axes = figure.subplots()
    axes.plot(ranks, counts[0] / ranks, color=QUIET, linewidth=1.2, linestyle=":", label="Zipf's law: count ∝ 1 / rank")
    for chosen, color, label in ((facts.live, LIVE, "live"), (~facts.live, UNKNOWN, "without a live id")):
        share = percent(float(counts[chosen].sum()) / facts.counts.total, 4)
        text = _lines(f"{label}: {np.count_nonzero(chosen):,} tokens, {share} of all occurrences")
        axes.plot(ranks[chosen], counts[chosen], "o", color=color, markersize=4.5, markeredgewidth=0, label=text)
    axes.axvline(facts.cut, color=MARK, linewidth=1.5, linestyle="--", label=f"the live cut: {facts.cut:,} ids")
    drawable = _drawable()
    for rank in (1, 10, 100, 1_000, 10_000):
        if rank <= len(counts):
            text = f"“{_label(facts.visible(int(facts.counts.gpt2_id[rank - 1]), drawable))}”"
            # Room is right of the curve; in a narrow figure, of its right half at the left.
            shift, side = ((-7, -7), "right") if _narrow() and rank > 100 else ((9, 3 if _narrow() else 9), "left")
            look: Any = {"textcoords": "offset points", "ha": side, "family": MONO, "color": MARK}
            axes.annotate(text, (rank, counts[rank - 1]), shift, **look)
    axes.set(xlabel=f"rank of the token, {MOST_FREQUENT}", ylabel="count in the stories counted")
    axes.set_title(_lines(_counted(facts)))
    _log_axis(axes.xaxis)
    _log_axis(axes.yaxis)
    axes.set(xlim=(0.8, 1.9 * max(len(counts), facts.cut)), ylim=(0.7, 3 * counts[0]))
    _legend(axes, loc="lower left", markerscale=2.5)
    return figure


def story_length(facts: Facts) -> Figure:
    """Return the histogram of story lengths with mean, median and the length of a packed row."""
    lengths, ctx = facts.lengths, facts.ctx
    figure = _figure(f"Story length: {lengths.mean:,.0f} tokens on average")
    axes = figure.subplots()
    shown = min(len(lengths.stories), math.ceil(lengths.quantile(TAIL_SHOWN) / lengths.bin) + 1)
    edges = np.arange(shown) * lengths.bin
    axes.bar(edges, lengths.stories[:shown], lengths.bin, align="edge", color=LIVE, edgecolor="white", linewidth=0.8)
    median, about = lengths.median
    marks = [(lengths.mean, UNKNOWN, "-", f"mean {lengths.mean:,.1f}"), (median, MARK, "--", f"median {about}")]
    end = max(shown * lengths.bin, lengths.mean)
    if ctx:
        longer = lengths.at_least(ctx)
        share = "" if longer is None else f": {percent(longer / lengths.total)} of the stories are as long or longer"
        marks.append((ctx, SECOND, "-.", f"a row, {ctx:,}{share}"))
        end = max(end, min(ctx, 2 * end))
    for length, color, line, label in marks:
        axes.axvline(length, ymax=0.9, color=color, linewidth=2.2, linestyle=line, label=_lines(label))
    axes.set(xlim=(0, end * 1.02), ylim=(0, 1.16 * lengths.stories.max()))  # room for the legend above
    axes.set(title=_lines(_counted(facts) + _tail(lengths, shown)), xlabel="tokens in the story")
    axes.set_ylabel(f"stories per {lengths.bin} tokens")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _plain_numbers(axes.xaxis, axes.yaxis)
    axes.grid(visible=False, axis="x")
    _legend(axes, loc="upper right", ncols=len(marks))
    return figure


def _tail(lengths: Lengths, shown: int) -> str:
    """Return what the histogram does not show of the longest stories, in a few words."""
    rest = int(lengths.stories[shown:].sum())
    if rest == 0:
        return "; the last bar holds all that are longer" if lengths.open_ended else ""
    end = "more" if lengths.open_ended else f"{len(lengths.stories) * lengths.bin - 1:,}"
    return f"; not shown: {rest:,} stories of {shown * lengths.bin:,} to {end} tokens"


def unknown(facts: Facts) -> Figure:
    """Return how many distinct tokens without a live id occur once, twice, …, a bar each."""
    if not facts.unknown:
        return _figure("Every token counted has a live id of its own")
    drawable = _drawable()
    figure = _figure(
        f"Tokens without a live id: {facts.unknown_become(lambda token: _label(facts.visible(token, drawable)))}"
    )
    axes = figure.subplots()
    times, ids, occurrences = zip(*facts.unknown_times, strict=True)
    gap, room = ("\n", 1.75) if _narrow() else (" ", 1.3)
    axes.barh(range(len(times)), ids, 0.72, color=UNKNOWN)
    for bar, (number, together) in enumerate(zip(ids, occurrences, strict=True)):
        label = f"{number:,} tokens,{gap}{together:,} occurrences"
        axes.annotate(label, (number, bar), (6, 0), textcoords="offset points", va="center", fontsize=_points(12))
    axes.set_yticks(range(len(times)), [f"{which} ×" for which in times])
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, max(ids) * room), ylim=(max(len(times), 4) - 0.4, -0.6), ylabel="count in the stories counted")
    axes.xaxis.set_major_locator(MaxNLocator(5 if _narrow() else "auto", integer=True))
    _plain_numbers(axes.xaxis)
    axes.grid(visible=False)
    share = percent(1 - facts.coverage, 4)
    together = f"{facts.unknown_ids:,} distinct tokens, which together are {share} of the tokens counted"
    axes.set_title(_lines(together))
    axes.set_xlabel("distinct tokens")
    return figure


def _figure(title: str) -> Figure:
    figure = Figure()
    size = _points(16 if _narrow() else 18)
    figure.suptitle(_lines(title, 36), x=0.012, ha="left", fontsize=size, weight="bold", color=MARK)
    return figure


def _narrow() -> bool:
    return bool(rcParams["figure.figsize"][0] < STYLE["figure.figsize"][0])


def _points(size: float) -> float:
    """Return the size that text of `size` points in a wide figure has in this one."""
    return float(size / STYLE["font.size"] * rcParams["font.size"])


def _lines(text: str, characters: int = NARROW_CHARACTERS) -> str:
    return textwrap.fill(text, characters) if _narrow() else text


def _legend(axes: Any, **look: Any) -> None:
    if _narrow():
        look |= {"loc": "outside lower left", "ncols": 1}
        axes.figure.legend(**look)
    else:
        axes.legend(**look)


def _counted(facts: Facts) -> str:
    figures = facts.count.figures
    return f"{figures['tokens']:,} tokens of {figures['stories_counted']:,} stories, {figures['distinct']:,} distinct"


def _log_axis(axis: Any) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(numticks=12))
    axis.set_minor_formatter(NullFormatter())
    _plain_numbers(axis)


def _plain_numbers(*axes: Any) -> None:
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:,.10g}"))


def _drawable() -> set[int]:
    """Return the code points that both fonts draw: others would come out as boxes, with a warning each."""
    sans, mono = (FT2Font(findfont(family)).get_charmap() for family in (SANS, MONO))
    return set(sans) & set(mono)


def _label(text: str) -> str:
    return text if len(text) <= LABEL_LIMIT else f"{text[: LABEL_LIMIT - 1]}…"


FIGURES = (coverage, zipf, story_length, unknown)
"""The figures of the report; a figure's file has its function's name."""
