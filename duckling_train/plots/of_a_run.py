"""`duckling-train plots RUN`: what a run's directory shows, as files for print and as a movie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import in_the_way, own_folder, write_bytes
from duckling_data.base.progress import SILENT, Reporter
from duckling_train.opened import open_run
from duckling_train.plots import curves, points
from duckling_train.plots.files import picture
from duckling_train.plots.movie import refuse_movie, write_movie
from duckling_train.report.gather import Shown, gather
from duckling_train.runs import layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from duckling_train.plots.axes import Columns
    from duckling_train.report.movement import Cloud

OTHER = "choose another --out"


def _measured(draw: Callable[[Columns, Axes], None], shown: Shown, axes: Axes) -> None:
    if shown.steps is None:
        raise InputError(
            f"{shown.run.directory} is not measured; duckling-train measure does that, after --record dead"
        )
    if "step" not in shown.steps:
        raise InputError(
            f"{shown.run.directory / layout.MEASURES} has no column step; run duckling-train measure again"
        )
    draw(shown.steps, axes)


def _cloud(shown: Shown) -> Cloud:
    if shown.cloud is None:
        raise InputError(f"{shown.run.directory} has no record of dead rows; train with --record dead")
    return shown.cloud


def _stratigraphy(shown: Shown, axes: Axes) -> None:
    if shown.motion is None:
        raise InputError(f"{shown.run.directory} has no record of dead rows at two steps; train with --record dead")
    points.stratigraphy(shown.motion, axes)


def _distance(shown: Shown, axes: Axes) -> None:
    if shown.distance is None:
        raise InputError(f"{shown.run.directory} has no model yet, or this machine draws another start than its own")
    points.distance(shown.distance, shown.dead, axes)


MEASURED = (
    *(curves.centroid, curves.velocity, curves.coherence, curves.regimes, curves.survival, points.spectrum),
    *(curves.forces, curves.second_moments, curves.isotropy, curves.black_holes, curves.detectability),
)
PLOTS: dict[str, Callable[[Shown, Axes], None]] = {
    "loss": lambda shown, axes: curves.loss(shown.run, axes, len(shown.dead)),
    "distance": _distance,
    "cloud": lambda shown, axes: points.cloud(_cloud(shown), axes),
    "tracer": lambda shown, axes: points.cloud(_cloud(shown), axes, view="tracer"),
    "stratigraphy": _stratigraphy,
    **{draw.__name__.replace("_", "-"): partial(_measured, draw) for draw in MEASURED},
}
"""Each plot by its name. One that lacks what it draws raises InputError."""
OF_THE_RECORD = {"cloud", "tracer", "stratigraphy"}
"""Those for which the record is read."""


def plot_run(
    run_dir: Path, workspace: Path, *, format: str = "png", out: Path | None = None, only: Sequence[str] | None = None,
    movie: Path | None = None, reporter: Reporter = SILENT,
) -> None:  # fmt: skip
    """Write plots of a run as NAME.FORMAT into `out`, else `plots/` in its directory, and say which; then its movie.

    All plots are written that the run has data for, and a line says what the others lack; with `only` those named.
    Raises InputError for an unknown name, where one of `only` or the movie lacks data, and as `refuse_movie`.
    """
    for name in only or ():
        if name not in PLOTS:
            raise InputError(f"--only has {name!r}, which is no plot; expected names among {', '.join(PLOTS)}.")
    if movie is not None:
        refuse_movie(movie)
    names = [name for name in PLOTS if only is None or name in only]
    run = open_run(run_dir, workspace)
    shown = gather(run, reporter, moved=movie is not None or not OF_THE_RECORD.isdisjoint(names))
    cloud = _cloud(shown) if movie is not None else None
    folder = _folder(run_dir, out)
    written, lacks = _written(shown, folder, names, format, reporter, strict=only is not None)
    for line in lacks:
        reporter.say(f"left out: {line}")
    reporter.say(f"{folder}: {', '.join(written)}")
    if cloud is not None and movie is not None:
        write_movie(cloud, movie, reporter=reporter)
        reporter.say(f"{movie}")


def _folder(run_dir: Path, out: Path | None) -> Path:
    """Return the folder of the plots; it is made where it is not there."""
    if out is None:
        return own_folder(run_dir, layout.PLOTS)
    if out.exists() and not out.is_dir():
        raise in_the_way(out, "a folder")
    with disk_errors(out, instead=OTHER):
        out.mkdir(parents=True, exist_ok=True)
    return out


def _written(
    shown: Shown, folder: Path, names: Sequence[str], format: str, reporter: Reporter, *, strict: bool
) -> tuple[list[str], list[str]]:
    """Write the plots. Return the files' names, and a line for each plot that lacks data; where `strict`, raise it."""
    written, lacks = [], []
    with reporter.bar("draw", len(names), "plot") as bar:
        for name in names:
            try:
                content = picture(partial(PLOTS[name], shown), format)
            except InputError as error:
                if strict:
                    raise InputError(f"{name}: {error}") from error
                lacks.append(f"{name}: {error}")
            else:
                write_bytes(folder / f"{name}.{format}", content)
                written.append(f"{name}.{format}")
            bar.update()
    return written, lacks
