"""Nothing is written, truncated or removed through a link inside a run or a sweep, or in a workspace before them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.progress import Reporter
from duckling_train.config import TrainConfig
from duckling_train.runs.checkpoint import Checkpoints
from duckling_train.runs.hooks import append_line
from duckling_train.runs.verify import verify_run
from duckling_train.sweep import layout, runner
from duckling_train.sweep.grid import make_grid
from tests.support import forked
from tests.support.links import link_every_file, links_in, move_behind_link, tree
from tests.support.train import TINY_SHAPE

SETTINGS = (*TINY_SHAPE, "--steps", "4", "--logging-steps", "2", "--checkpoint-steps", "2", "--quiet")


def command(*arguments: str | Path) -> tuple[int, str]:
    """Run `duckling-train` in a forked process. Returns the exit status and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        ran = forked.run("duckling_train.cli", *arguments, output=Path(folder) / "said")
        return ran.wait(), ran.stderr


@pytest.fixture(scope="module")
def trained_once(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finished run `one` whose checkpoints are kept."""
    workspace = tmp_path_factory.mktemp("links") / "w"
    shutil.copytree(tiny_workspace, workspace)
    assert command("-w", workspace, "--name", "one", "--keep-checkpoints", *SETTINGS) == (0, "")
    return workspace


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_once, tmp_path / "w"))


@pytest.fixture
def half(trained: Path) -> Path:
    """The same, the run stopped after its first checkpoint."""
    run = trained / "runs" / "one"
    for name in ("manifest.json", "summary.json", "loss.png", "samples.txt"):
        (run / name).unlink()
    for name in ("model", "checkpoints/step-00000004"):
        shutil.rmtree(run / name)
    return trained


def test_every_file_of_a_run_that_is_a_link_is_replaced_and_not_written_through(half: Path, tmp_path: Path) -> None:
    run = half / "runs" / "one"
    link_every_file(run, tmp_path / "elsewhere", keep=("checkpoints",))
    for path in (run / "checkpoints").rglob("*.partial"):  # a checkpoint with more in it is refused
        path.unlink()
    before = tree(tmp_path / "elsewhere")
    (tmp_path / "my-workspace").symlink_to(half)  # those themselves may be reached through a link
    (tmp_path / "my-run").symlink_to(run)
    assert command("--resume", tmp_path / "my-run", "-w", tmp_path / "my-workspace", "--quiet") == (0, "")
    assert tree(tmp_path / "elsewhere") == before
    assert set(links_in(run)) <= {"config.json", "config.json.partial"}  # written at a run's start alone
    assert (run / "manifest.json").is_file()


def test_a_run_of_links_is_overwritten_in_its_own_place(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "one"
    link_every_file(run, tmp_path / "elsewhere")
    for name in ("model", "checkpoints", "tensorboard"):
        move_behind_link(run / name, tmp_path / "folders" / name)
    before = tree(tmp_path)
    assert command("-w", trained, "--name", "one", "--overwrite", *SETTINGS) == (0, "")
    after = tree(tmp_path)
    assert {name: seen for name, seen in after.items() if not name.startswith("w/")} == {
        name: seen for name, seen in before.items() if not name.startswith("w/")
    }
    assert links_in(run) == []


@pytest.mark.parametrize("name", ["runs", "runs/one", "runs/one/checkpoints", "runs/one/tensorboard", "runs/.one.lock"])
def test_a_link_in_the_way_of_a_run_is_refused_by_name(name: str, half: Path, tmp_path: Path) -> None:
    link = move_behind_link(half / name, tmp_path / "elsewhere" / "place")
    before = tree(tmp_path / "elsewhere")
    refused = f"duckling-train: {link}: a link to {tmp_path / 'elsewhere' / 'place'}, expected "
    status, said = command("--resume", "one", "-w", half, "--quiet")
    assert (status, said[: len(refused)]) == (2, refused)
    if name in ("runs", "runs/one", "runs/.one.lock"):
        status, said = command("-w", half, "--name", "one", "--overwrite", *SETTINGS)
        assert (status, said[: len(refused)]) == (2, refused)
    if name.endswith("checkpoints"):
        with pytest.raises(CheckFailed, match=f"{link}: a link"):
            list(verify_run(half / "runs" / "one", half))
    assert tree(tmp_path / "elsewhere") == before


def test_a_log_that_became_a_link_gets_no_line(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("the user's")
    (tmp_path / "metrics.jsonl").symlink_to("mine")
    with pytest.raises(InputError, match=r"metrics\.jsonl: a link to mine, expected a file"):
        append_line(tmp_path / "metrics.jsonl", {"step": 1})
    assert (tmp_path / "mine").read_text() == "the user's"


def test_checkpoints_are_neither_written_nor_removed_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    link = move_behind_link(tmp_path / "run" / "checkpoints", tmp_path / "elsewhere")
    for step in (1, 2, 3):
        (tmp_path / "elsewhere" / f"step-{step:08d}.partial").mkdir()
    before = tree(tmp_path / "elsewhere")
    kept, pruned = (Checkpoints(tmp_path / "run", TrainConfig(keep_checkpoints=keep), {}) for keep in (True, False))
    acts: list[Callable[[], object]] = [lambda: pruned.write(4, {}, {}), kept.finish, kept.newest]
    for act in acts:
        with pytest.raises(InputError, match=f"{link}: a link"):
            act()
    assert tree(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("name", ["points", "runs", "runs/POINT"])
def test_a_link_in_the_way_of_a_sweep_is_refused_by_name(name: str, tiny_workspace: Path, tmp_path: Path) -> None:
    lists = {"n_positions": (64,), "vocab_size": (512,), "threads": (1,), "steps": (1,)}
    place = (tiny_workspace, tmp_path / "s", None)
    sweep = runner.plan(lists, *place, 1, preset="duckling-ii", file=None, overwrite=False)
    link = sweep.folder / name.replace("POINT", sweep.grid.points[0].name)
    link.parent.mkdir(parents=True)
    move_behind_link(link, tmp_path / "elsewhere" / "place")
    (tmp_path / "elsewhere" / "place" / "config.json").write_text("{}")  # as a run that could be resumed
    before = tree(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"^{link}: a link to {tmp_path / 'elsewhere' / 'place'}, expected a folder"):
        runner.run(sweep, Reporter(quiet=True), overwrite=False)
    assert tree(tmp_path / "elsewhere") == before


def test_a_sweep_of_links_is_overwritten_in_its_own_place(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "s", tmp_path / "elsewhere"
    grid = make_grid({"seed": (1, 2)}, preset="duckling-ii", file=None)
    record = layout.record_of(grid, {})
    folder.mkdir()
    for name in layout.CONTENTS:
        move_behind_link(folder / name, elsewhere / name)
        move_behind_link(folder / f"{name}.partial", elsewhere / f"{name}-2")
    (elsewhere / "points" / f"{grid.points[0].name}.json").write_text("the user's")
    before = tree(elsewhere)
    layout.prepare(folder, grid, record, overwrite=True)
    assert tree(elsewhere) == before
    assert links_in(folder) == []
    assert len(list((folder / "points").iterdir())) == 2
