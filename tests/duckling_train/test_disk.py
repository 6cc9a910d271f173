"""A disk that takes no more ends the run in one line with status 3; what was saved before stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from duckling_train.runs.checkpoint import checkpoints_of
from tests.support import forked
from tests.support.train import TINY_SHAPE, Ran

LIMIT = 60_000
"""Bytes a file may grow to: less than the weights (62,000 bytes in float32), more than a log."""


def limited(output: Path, *arguments: str | Path) -> forked.Running:
    """Run the command where the operating system lets no file grow beyond LIMIT."""
    return forked.run("duckling_train.cli", *arguments, output=output, file_limit=LIMIT)


def assert_one_line_naming(done: forked.Running, name: str) -> None:
    assert done.wait() == 3, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("duckling-train: ")]
    assert len(said) == 1
    assert name in said[0]
    assert "cannot be written" in said[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "name"), [(("--checkpoint-steps", "2"), "step-00000002"), (("--checkpoint-steps", "0"), "model")]
)
def test_a_disk_that_is_full_while_saving_is_named(
    tiny_workspace: Path, tmp_path: Path, settings: tuple[str, str], name: str
) -> None:
    done = limited(
        tmp_path / "said", "-w", tiny_workspace, "--out", tmp_path / "run", *TINY_SHAPE, "--steps", "4", *settings
    )
    assert_one_line_naming(done, name)
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert not list((tmp_path / "run").rglob("step-*.partial"))


def test_the_checkpoints_before_stay_and_resume(tiny_workspace: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = ("-w", tiny_workspace, *TINY_SHAPE, "--steps", "40", "--checkpoint-steps", "2")
    running = forked.start("duckling_train.cli", "--out", run_dir, *arguments, output=tmp_path / "killed")
    running.kill_when(lambda: bool(checkpoints_of(run_dir)))
    before = [(path, sorted(path.iterdir())) for _step, path in checkpoints_of(run_dir)]
    assert_one_line_naming(limited(tmp_path / "said", "--resume", run_dir, "-w", tiny_workspace), "checkpoints")
    assert [(path, sorted(path.iterdir())) for _step, path in checkpoints_of(run_dir)] == before
    done = forked.run("duckling_train.cli", "--resume", run_dir, "-w", tiny_workspace, output=tmp_path / "resumed")
    resumed = Ran(run_dir, done.wait(), done.stdout, done.stderr)
    assert resumed.status == 0, resumed.stderr
