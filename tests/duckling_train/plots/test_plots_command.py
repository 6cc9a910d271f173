"""`duckling-train plots`: files for print, the same bytes each time; a movie; and what is refused, in a line."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from duckling_train import open_run
from duckling_train.plots.of_a_run import PLOTS
from duckling_train.report.gather import Shown, gather
from duckling_train.runs.layout import prepare
from duckling_train.runs.verify import verify_run
from tests.support.train import TINY_SHAPE, command_here

FAULTS = {
    ("--only", "loss,lost"): "--only has 'lost', which is no plot; expected names among loss, distance, cloud",
    ("--movie", "cloud.avi"): "cloud.avi: no movie's name; expected one that ends with .mp4 or .gif",
    ("--movie", "none/cloud.gif"): "none: not a folder; make it first",
    ("--movie", "cloud.mp4"): "cloud.mp4: an mp4 needs ffmpeg, which is not installed; install it, or write a .gif",
    ("--out", "file"): "file: a file, expected a folder",
}


def test_a_run_gets_all_its_plots_and_they_are_no_part_of_what_is_verified(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_here("plots", recorded) == 0
    contents = {path.name: path.read_bytes() for path in (recorded / "plots").iterdir()}
    assert [*sorted(contents)] == sorted(f"{name}.png" for name in PLOTS)
    assert command_here("plots", recorded, "--only", "loss,cloud,regimes,stratigraphy", "-q") == 0
    assert {path.name: path.read_bytes() for path in (recorded / "plots").iterdir()} == contents
    with Image.open(recorded / "plots" / "regimes.png") as picture:
        assert picture.width / 300 == pytest.approx(3.4)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"{recorded / 'plots'}: {', '.join(f'{name}.png' for name in PLOTS)}\n"
    assert list(verify_run(recorded, recorded.parent))


@pytest.mark.parametrize("format", ["svg", "pdf"])
def test_vector_files_have_equal_bytes_no_clock_and_their_fonts(recorded: Path, tmp_path: Path, format: str) -> None:
    names = ("loss", "cloud", "stratigraphy")
    for folder in ("a", "b"):
        given = ("--format", format, "--only", ",".join(names), "--out", tmp_path / folder / "deep", "-q")
        assert command_here("plots", recorded, *given) == 0
    for name in names:
        first, second = ((tmp_path / folder / "deep" / f"{name}.{format}").read_bytes() for folder in ("a", "b"))
        assert first == second
        assert b"dc:date" not in first
        assert b"CreationDate" not in first
        assert mpl.__version__.encode() not in first
        assert (b"/FontFile2" in first) if format == "pdf" else (b"<text" not in first)
        assert len(first) < 300_000


def test_a_run_without_a_record_gets_what_it_has_and_a_line_for_the_rest(
    tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "bare"
    assert command_here("-w", tiny_workspace, "--out", run_dir, "--steps", "2", *TINY_SHAPE, "-q") == 0
    capsys.readouterr()
    assert command_here("plots", run_dir, "-w", tiny_workspace) == 0
    *left_out, last = capsys.readouterr().err.splitlines()
    assert last == f"{run_dir / 'plots'}: loss.png, distance.png"
    assert [line.split(": ")[1] for line in left_out] == [name for name in PLOTS if name not in ("loss", "distance")]
    assert f"left out: cloud: {run_dir} has no record of dead rows; train with --record dead" in left_out
    for given, says in ((("--only", "coherence"), f"coherence: {run_dir} is not measured; duckling-train measure"),
                        (("--movie", tmp_path / "m.gif"), f"{run_dir} has no record of dead rows")):  # fmt: skip
        assert command_here("plots", run_dir, "-w", tiny_workspace, *given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
    assert not (tmp_path / "m.gif").exists()
    prepare(run_dir, overwrite=True)
    assert not (run_dir / "plots").exists()


@pytest.mark.parametrize(("given", "says"), FAULTS.items(), ids=["name", "ending", "folder", "ffmpeg", "out"])
def test_what_cannot_be_done_is_refused_in_a_line_before_anything_is_drawn(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    given: tuple[str, str], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    Path("file").touch()
    assert command_here("plots", recorded, *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_is_written_through_a_link(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, target = tmp_path / "other", tmp_path / "target"
    shutil.copytree(recorded, other, ignore=shutil.ignore_patterns("plots"))
    target.mkdir()
    (other / "plots").symlink_to(target)
    assert command_here("plots", other, "--only", "loss") == 2
    assert f"{other / 'plots'}: a link to {target}, expected a folder" in capsys.readouterr().err
    assert not list(target.iterdir())


def test_the_movie_shows_every_step(
    recorded: Path, shown: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown.cloud is not None
    count = len(shown.cloud.steps)
    movie = tmp_path / "cloud.gif"
    assert command_here("plots", recorded, "--only", "loss", "--out", tmp_path, "--movie", movie) == 0
    assert capsys.readouterr().err.splitlines() == [f"{tmp_path}: loss.png", f"{movie}"]
    with Image.open(movie) as frames:
        assert frames.n_frames == count
        first = frames.convert("RGB").tobytes()
        frames.seek(count - 1)
        assert frames.convert("RGB").tobytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cloud.gif", "loss.png"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_writes_the_movie_as_mp4(recorded: Path, tmp_path: Path) -> None:
    movie = tmp_path / "cloud.mp4"
    assert command_here("plots", recorded, "--only", "loss", "--out", tmp_path, "--movie", movie, "-q") == 0
    assert movie.read_bytes()[4:8] == b"ftyp"


def test_what_is_shown_without_the_record_read_through_is_the_same_but_for_what_moved(
    recorded: Path, tiny_workspace: Path, shown: Shown
) -> None:
    still = gather(open_run(recorded, tiny_workspace), moved=False)
    assert (still.cloud, still.motion) == (None, None)
    assert still.distance is not None
    assert still.distance.tobytes() == (shown.distance.tobytes() if shown.distance is not None else b"")
    assert still.steps is not None
    assert still.steps.keys() == (shown.steps or {}).keys()
