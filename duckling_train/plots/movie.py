"""A movie of the cloud of dead rows: mp4 by ffmpeg, gif by Pillow."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.files import write_bytes
from duckling_data.base.plotting import default_settings
from duckling_data.base.progress import SILENT, Reporter
from duckling_train.plots.files import STYLE, figure_of
from duckling_train.plots.points import cloud as draw_cloud

if TYPE_CHECKING:
    from duckling_train.report.movement import Cloud

SIZE = (4.8, 3.6)
LOOK = {".mp4": (25, 200, 250), ".gif": (20, 100, 200)}
"""Frames a second, dots an inch, and frames at most. A gif is held in memory until it is written."""
H264 = ["-pix_fmt", "yuv420p", "-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]
"""What every player shows; and neither clock nor version in the file."""


def refuse_movie(file: Path) -> None:
    """Raise InputError where a movie cannot be written to `file`: another ending, no folder for it, no ffmpeg."""
    if file.suffix not in LOOK:
        raise InputError(f"{file}: no movie's name; expected one that ends with .mp4 or .gif.")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: not a folder; make it first, or choose another path.")
    with default_settings():
        from matplotlib.animation import FFMpegWriter

        if file.suffix == ".mp4" and not FFMpegWriter.isAvailable():
            raise InputError(f"{file}: an mp4 needs ffmpeg, which is not installed; install it, or write a .gif.")


@default_settings({**STYLE, "lines.markersize": 6})
def write_movie(cloud: Cloud, file: Path, view: str = "pca", reporter: Reporter = SILENT) -> None:
    """Write the cloud over the steps as a movie. Raises InputError as `refuse_movie`, OutsideError where ffmpeg fails.

    `view` is as `plots.cloud` takes it. An earlier file is replaced.
    """
    from matplotlib.animation import FFMpegWriter, PillowWriter

    frames_a_second, dots, most = LOOK[file.suffix]
    movie = PillowWriter(frames_a_second) if file.suffix == ".gif" else FFMpegWriter(
        frames_a_second, codec="h264", extra_args=H264)  # fmt: skip
    steps = cloud.steps[np.unique(np.linspace(0, len(cloud.steps) - 1, most).round().astype(int))]
    figure, axes = figure_of(SIZE)
    draw_cloud(cloud, axes, view=view)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the axes stay where they are
    with tempfile.TemporaryDirectory() as folder, reporter.bar("movie", len(steps), "frame") as bar:
        made = Path(folder) / f"movie{file.suffix}"
        try:
            with movie.saving(figure, str(made), dots):
                for step in steps:
                    axes.clear()
                    draw_cloud(cloud, axes, int(step), view)
                    movie.grab_frame()
                    bar.update()
        except (subprocess.CalledProcessError, BrokenPipeError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1][:200]
            raise OutsideError(f"{file}: ffmpeg failed ({said}); mend it, or write a .gif.") from error
        write_bytes(file, made.read_bytes())
