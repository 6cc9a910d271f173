"""Each plot shows the numbers that it is given, with labels and units, legibly at the width of a column of print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from duckling_data.base.errors import InputError
from duckling_data.base.plotting import default_settings
from duckling_train import LossTracker, plots
from duckling_train.plots.files import SIZE, STYLE, figure_of
from duckling_train.plots.of_a_run import PLOTS
from duckling_train.report.gather import Shown

SMALLEST = 6
"""Points of type that print shows legibly."""


def drawn(draw: Callable[[Any], None]) -> tuple[Any, Any]:
    """A figure for print, and its axes, once `draw` has drawn on them."""
    with default_settings(STYLE):
        figure, axes = figure_of(SIZE)
        FigureCanvasAgg(figure)
        draw(axes)
        figure.canvas.draw()
    return figure, axes


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_not_blank_and_all_its_text_is_legible_and_inside(name: str, shown: Shown) -> None:
    figure, axes = drawn(lambda axes: PLOTS[name](shown, axes))
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(int)
    (left, bottom), (right, top) = axes.bbox.get_points().astype(int)
    inside = pixels[bottom:top, left:right]
    assert np.count_nonzero(np.ptp(inside, axis=2) > 40) > 60  # a colour, no grey of the grid
    labels = [axes.get_xlabel(), axes.get_ylabel()]
    assert all(labels)
    legend = axes.get_legend()
    texts = [axes.xaxis.label, axes.yaxis.label, *axes.texts, *(legend.get_texts() if legend else [])]
    for text in texts:
        box = text.get_window_extent()
        assert text.get_fontsize() >= SMALLEST
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text


def test_lines_are_the_columns_and_what_has_no_value_is_left_out(shown: Shown) -> None:
    columns = dict(shown.steps or {})
    _, axes = drawn(lambda axes: plots.velocity(columns, axes))
    assert len(axes.lines) == 3
    columns["live_displacement_mean"] = np.full(len(columns["step"]), np.nan)
    _, axes = drawn(lambda axes: plots.velocity(columns, axes))
    rows, centroid = axes.lines
    assert [line.get_label() for line in (rows, centroid)] == ["dead rows", "dead centroid"]
    assert rows.get_xdata().tolist() == columns["step"][1:].tolist()
    assert rows.get_ydata().tolist() == columns["displacement_mean"][1:].tolist()
    assert len({(line.get_color(), str(line.get_linestyle())) for line in (rows, centroid)}) == 2


@pytest.mark.parametrize(
    ("draw", "names"),
    [(plots.isotropy, ("isotropy", "isotropy_centred", "mean_shift_relative")), (plots.coherence, ("coherence",)),
     (plots.regimes, ("late_fraction",)), (plots.spectrum, ("eigenvalues",))],
)  # fmt: skip
def test_a_plot_without_a_value_is_refused(draw: Any, names: tuple[str, ...], shown: Shown) -> None:
    columns = dict(shown.steps or {})
    columns |= {name: np.full_like(columns[name], np.nan) for name in names}
    older = {name: values for name, values in columns.items() if name not in names}
    for lacking in (columns, older):
        with pytest.raises(InputError, match=f"{names[0]}.*: no value in the measures; docs/dynamics.md says"):
            drawn(lambda axes, lacking=lacking: draw(lacking, axes))  # type: ignore[misc]


def test_coherence_is_read_off_its_axis(shown: Shown) -> None:
    assert shown.steps is not None
    _, axes = drawn(lambda axes: plots.coherence(shown.steps or {}, axes))
    (line,) = axes.lines
    assert np.allclose(1 - line.get_ydata(), shown.steps["coherence"][1:])
    bottom, top = axes.get_ylim()
    assert bottom > top  # nearer to 1 is higher
    formatter = axes.yaxis.get_major_formatter()
    assert [formatter(place, 0) for place in (1.0, 0.1, 0.001, 1e-5)] == ["0", "0.9", "0.999", "0.99999"]


def test_the_shares_of_the_regimes_fill_the_plot_however_many_steps_there_are() -> None:
    steps = np.arange(1201)
    shares = np.random.default_rng(0).dirichlet([1, 1, 1, 1], len(steps)).T
    shares[:, 0] = np.nan
    names = [f"{name}_fraction" for name in ("frozen", "late", "midlife", "early")]
    _, axes = drawn(lambda axes: plots.regimes({"step": steps, **dict(zip(names, shares, strict=True))}, axes))
    top = axes.collections[-1].get_paths()[0].vertices
    assert (top[:, 0].min(), top[:, 0].max()) == (1, 1200)
    assert top[:, 1].max() == pytest.approx(1)
    assert len(axes.collections[0].get_paths()[0].vertices) < 2 * 500 + 10
    means = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert abs(means.max() - means[means > 0].min()) < 1


def test_the_cloud_is_at_the_step_and_the_axes_hold_all_steps(shown: Shown) -> None:
    cloud = shown.cloud
    assert cloud is not None
    limits = set()
    for step, at in ((0, 0), (5, 5), (None, -1), (10**6, -1)):
        _, axes = drawn(lambda axes, step=step: plots.cloud(cloud, axes, step))  # type: ignore[misc]
        points = next(line for line in axes.lines if line.get_label() == "dead rows")
        assert np.array_equal(points.get_xydata(), cloud.pca[at])
        assert axes.texts[0].get_text() == f"step {cloud.steps[at]:,}"
        limits.add((axes.get_xlim(), axes.get_ylim()))
    assert len(limits) == 1
    for wrong, says in (({"step": -1}, "step is -1; expected the first"), ({"view": "side"}, "'side'; expected pca")):
        with pytest.raises(InputError, match=says):
            drawn(lambda axes, wrong=wrong: plots.cloud(cloud, axes, **wrong))  # type: ignore[misc]
    with pytest.raises(InputError, match="h_mean was not recorded"):
        drawn(lambda axes: plots.cloud(replace(cloud, tracer=None), axes, view="tracer"))


def test_each_row_is_at_its_distance_and_live_and_dead_rows_look_different(shown: Shown) -> None:
    distance = shown.distance
    assert distance is not None
    _, axes = drawn(lambda axes: plots.distance(distance, shown.dead, axes, start=0.08))
    live, dead = (line for line in axes.lines if line.get_label().endswith("rows"))
    assert np.array_equal(live.get_xydata()[:, 1].astype(np.float32), distance[~shown.dead])
    assert np.array_equal(dead.get_xydata()[:, 0], np.flatnonzero(shown.dead))
    assert (live.get_color(), live.get_marker()) != (dead.get_color(), dead.get_marker())
    assert "mean norm of a row at the start: 0.080" in [text.get_text() for text in axes.texts]


def test_survival_shows_the_steps_in_which_rows_freeze() -> None:
    steps = np.arange(1001)
    share = np.where(steps < 990, 1, 0.4)
    columns = {"step": steps, "surviving": share, "surviving_poisson": np.where(steps < 1000, 1.0, 0)}
    _, axes = drawn(lambda axes: plots.survival(columns, axes))
    left, right = axes.get_xlim()
    assert 900 < left < 990
    assert right > 1000


def test_a_loss_that_is_not_finite_is_left_out_and_none_at_all_refused() -> None:
    tracker = LossTracker()
    with pytest.raises(InputError, match="loss: none is logged yet"):
        drawn(lambda axes: plots.loss(tracker, axes))
    tracker.steps, tracker.losses = [1, 2, 3], [9.0, 8.0, float("inf")]
    _, axes = drawn(lambda axes: plots.loss(tracker, axes, vocabulary=8192))
    assert axes.get_ylim()[1] > np.log(8192) > 8 > axes.get_ylim()[0]
