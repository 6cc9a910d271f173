"""torchrun: two processes train what one trains, and one of them writes and speaks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import HANG
from tests.support.train import TINY_SHAPE, Ran, command, duckling_train, environment

STEPS = 80
SETTINGS = (*TINY_SHAPE, "--steps", str(STEPS), "--logging-steps", "1", "--checkpoint-steps", "20")
"""A batch of 2 divides the 106 rows; the second epoch begins with step 54."""
FAST = ("--learning-rate", "0.003")
"""Settings under which much is learned in these steps."""


def torchrun(
    *arguments: str | Path, program: Sequence[str | Path] = ("-m", "duckling_train")
) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*map(str, (*launcher, *program, *arguments))],
        env={**environment(), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=HANG,
    )  # fmt: skip


PROGRAM = """
import atexit
class Kept:
    def __del__(self):
        print("the interpreter was finalized")
kept = Kept()
atexit.register(print, "functions of atexit were called")
from duckling_train.cli import main
main()
"""


@pytest.fixture(scope="module")
def shared(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    run_dir = tmp_path_factory.mktemp("shared") / "run"
    script = tmp_path_factory.mktemp("program") / "program.py"
    script.write_text(PROGRAM)
    arguments = ("-w", tiny_workspace, "--out", run_dir, *SETTINGS, *FAST, "--keep-checkpoints")
    done = torchrun(*arguments, program=(script,))
    assert done.returncode == 0, done.stderr
    return Ran(run_dir, done.returncode, done.stdout, done.stderr)


def assert_agree(shared: Ran, alone: Ran, steps: int = STEPS) -> None:
    assert alone.status == 0, alone.stderr
    assert len(shared.metrics) == len(alone.metrics) == steps
    for ours, theirs in zip(shared.metrics, alone.metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4), ours["step"]


def test_a_process_of_several_exits_without_finalizing_the_interpreter(shared: Ran) -> None:
    """There a thread of the process group can abort it: then torchrun reports a finished run as failed."""
    assert shared.stdout.count("functions of atexit were called") == 2
    assert "finalized" not in shared.stdout


def test_two_processes_agree_with_one_at_the_same_global_batch(
    shared: Ran, tiny_workspace: Path, tmp_path: Path
) -> None:
    assert_agree(shared, duckling_train(tmp_path / "alone", "-w", tiny_workspace, *SETTINGS, *FAST))
    assert shared.metrics[-1]["loss"] < shared.metrics[0]["loss"] - 0.5, "nothing was learned that could differ"


def test_they_agree_in_the_seeds_precision_at_the_seeds_learning_rate(tiny_workspace: Path, tmp_path: Path) -> None:
    settings = ("-w", tiny_workspace, *SETTINGS, "--precision", "bf16-mixed", "--steps", "12")
    done = torchrun("--out", tmp_path / "shared", *settings)
    assert done.returncode == 0, done.stderr
    assert_agree(
        Ran(tmp_path / "shared", done.returncode, done.stdout, done.stderr),
        duckling_train(tmp_path / "alone", *settings),
        steps=12,
    )


def test_one_process_writes_and_speaks(shared: Ran) -> None:
    assert shared.stdout.count("steps/s") == 1
    assert "Warning" not in shared.stderr
    assert shared.json("config.json")["processes"] == 2
    assert (shared.run_dir / "manifest.json").exists()


def test_a_shared_run_resumes_to_the_same_bits(shared: Ran, tiny_workspace: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(shared.run_dir, run_dir)
    (run_dir / "manifest.json").unlink()
    shutil.rmtree(run_dir / "checkpoints" / f"step-{STEPS:08d}")
    alone = subprocess.run(
        command("--resume", run_dir, "-w", tiny_workspace), env=environment(), capture_output=True, text=True
    )
    assert (alone.returncode, "was started with 2 processes, not 1" in alone.stderr) == (2, True)
    done = torchrun("--resume", run_dir, "-w", tiny_workspace)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.jsonl", "dynamics.jsonl", "model/model.safetensors"):
        assert (run_dir / name).read_bytes() == (shared.run_dir / name).read_bytes()


def test_a_batch_that_the_processes_do_not_divide_is_refused_once(tiny_workspace: Path, tmp_path: Path) -> None:
    done = torchrun("-w", tiny_workspace, "--out", tmp_path / "run", "--steps", "1", "--batch-size", "3")
    assert done.returncode != 0
    assert done.stderr.count("--batch-size is 3 and torchrun started 2 processes") == 1
    assert not (tmp_path / "run").exists()
