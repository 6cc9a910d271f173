"""A run that a signal stops keeps what it has done, and says so; a finished one may go on: always in the same bytes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from duckling_train.runs.verify import verify_run
from tests.support import HANG, forked
from tests.support.train import TINY_SHAPE, with_validation

CLI = "duckling_train.cli"
LONG = 250
NOTICE = "once more ends it at once"


@pytest.fixture(scope="module")
def workspace(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_validation(tiny_workspace, tmp_path_factory.mktemp("both") / "workspace")


def train(run_dir: Path, workspace: Path, *more: str | Path) -> forked.Running:
    settings = ("-w", workspace, *TINY_SHAPE, "--eval-rows", "4", "--quiet")
    ran = forked.run(CLI, "--out", run_dir, *settings, *more, output=run_dir.with_suffix(".output"))
    assert ran.wait() == 0, ran.stderr
    return ran


def resume(run_dir: Path, workspace: Path, *more: str | Path) -> tuple[int, str]:
    ran = forked.run(CLI, "--resume", run_dir, "-w", workspace, *more, output=run_dir.with_suffix(".resumed"))
    assert "Traceback" not in ran.stderr
    return ran.wait(), ran.stderr


def stop(run_dir: Path, workspace: Path, number: signal.Signals, *more: str) -> str:
    """Start a run of LONG steps, signal it when it has logged, and return what it says at its end."""
    settings = ("-w", workspace, *TINY_SHAPE, "--quiet", "--steps", str(LONG), "--logging-steps", "1", *more)
    running = forked.start(CLI, "--out", run_dir, *settings, output=run_dir.with_suffix(".stopped"))
    log, deadline = run_dir / "metrics.jsonl", time.monotonic() + HANG
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    running.kill(number)
    assert running.wait() == 128 + number, running.stderr
    lines = [line for line in running.stderr.splitlines() if NOTICE not in line]
    assert len(lines) == 1, running.stderr
    assert not (run_dir / "manifest.json").exists()
    return lines[0]


def files(run_dir: Path) -> dict[str, bytes]:
    """The files of a finished run, without the clock's."""
    names = json.loads((run_dir / "manifest.json").read_text())["files"].keys() - {"summary.json"}
    return {name: (run_dir / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def undisturbed(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("stopping") / "run"
    train(run_dir, workspace, "--steps", str(LONG), "--logging-steps", "1", "--eval-rows", "128")
    return run_dir


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped by SIGTERM")])
def test_a_signal_before_the_first_checkpoint_loses_no_step(
    undisturbed: Path, workspace: Path, tmp_path: Path, number: signal.Signals, word: str
) -> None:
    run_dir = tmp_path / "a run"
    said = stop(run_dir, workspace, number)
    kept = r"the checkpoint of step (\d+) is kept: duckling-train --resume '(.*)' goes on from it"
    found = re.fullmatch(f"duckling-train: {word}; {kept}", said)
    assert found, said
    assert Path(found[2]) == run_dir
    step = int(found[1])
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == step, "every step that was made is kept"
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == [f"step-{step:08d}"]
    assert list(verify_run(run_dir, workspace))
    status, said = resume(run_dir, workspace)
    assert (status, f"{run_dir}: resumed from the checkpoint of step {step}\n" in said) == (0, True), said
    assert files(run_dir) == files(undisturbed)


def test_without_checkpoints_it_says_that_none_is_kept(workspace: Path, tmp_path: Path) -> None:
    said = stop(tmp_path / "run", workspace, signal.SIGINT, "--checkpoint-steps", "0")
    none = (
        f"no checkpoint is kept (--checkpoint-steps is 0): duckling-train --resume {tmp_path / 'run'} starts at step 1"
    )
    assert said == f"duckling-train: interrupted; {none}"
    assert not (tmp_path / "run" / "checkpoints").exists()


GOES_ON = ("--schedule", "constant", "--warmup-steps", "3", "--logging-steps", "3", "--eval-steps", "4")


@pytest.mark.parametrize("kept", [(), ("--keep-checkpoints", "--checkpoint-steps", "4")], ids=["last", "all"])
def test_a_finished_run_goes_on_and_ends_as_one_that_was_longer(
    workspace: Path, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    longer, run_dir = tmp_path / "longer", tmp_path / "run"
    train(longer, workspace, *GOES_ON, *kept, "--steps", "20")
    train(run_dir, workspace, *GOES_ON, *kept, "--steps", "9")
    for steps in ("9", "14", "14", "20"):
        status, said = resume(run_dir, workspace, "--steps", steps, "--quiet")
        assert (status, said) == (0, "")
        assert list(verify_run(run_dir, workspace))
    assert files(run_dir) == files(longer)
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 20


@pytest.fixture
def finished(workspace: Path, tmp_path: Path) -> Path:
    """A run of 9 steps that may go on."""
    train(tmp_path / "run", workspace, *GOES_ON, "--steps", "9")
    return tmp_path / "run"


def test_a_run_that_goes_on_may_be_interrupted_anywhere(finished: Path, workspace: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    train(longer, workspace, *GOES_ON, "--steps", "14")
    begun = Path(shutil.copytree(finished, tmp_path / "begun"))
    (begun / "manifest.json").unlink()  # as if it was killed right after the first thing that going on removes
    assert resume(begun, workspace, "--steps", "14", "--quiet") == (0, "")
    written = Path(shutil.copytree(finished, tmp_path / "written"))
    (written / "manifest.json").unlink()
    shutil.copy(longer / "config.json", written / "config.json")  # and right before its first step
    assert resume(written, workspace, "--quiet") == (0, "")
    back = Path(shutil.copytree(finished, tmp_path / "back"))
    (back / "manifest.json").unlink()
    assert resume(back, workspace, "--quiet") == (0, "")
    assert files(back) == files(finished)
    assert files(begun) == files(written) == files(longer)


def test_what_cannot_go_on_says_why(finished: Path, workspace: Path, tmp_path: Path) -> None:
    before = files(finished)
    for more, expected in (
        (("--steps", "8"), "--steps is 8, but RUN was started with 9, and a run gets no shorter"),
        (("--seed", "1", "--steps", "20"), "--seed is 1, but RUN was started with 42, and a run keeps its settings"),
    ):
        status, said = resume(finished, workspace, *more)
        assert (status, expected.replace("RUN", str(finished)) in said) == (2, True), said
    shutil.rmtree(finished / "checkpoints")
    status, said = resume(finished, workspace, "--steps", "20")
    assert (status, f"{finished} has no checkpoint of its last step, 9" in said) == (2, True), said
    assert files(finished) == before
    (finished / "manifest.json").unlink()
    status, said = resume(finished, workspace, "--steps", "20")
    assert (status, f"{finished} is not finished: --resume it without --steps first" in said) == (2, True), said
    falling = tmp_path / "falling"
    train(falling, workspace, "--steps", "3")
    status, said = resume(falling, workspace, "--steps", "20")
    assert (status, said.count("\n")) == (2, 1)
    assert "the linear schedule stretches the learning rate over them, from the first step on" in said
    assert not (falling / "checkpoints").exists()


def test_where_a_run_reports_to_may_change_when_it_resumes(workspace: Path, tmp_path: Path) -> None:
    plain, run_dir = tmp_path / "plain", tmp_path / "run"
    train(plain, workspace, "--steps", "12", "--logging-steps", "3", "--engine", "reference")
    train(run_dir, workspace, "--steps", "12", "--logging-steps", "3", "--checkpoint-steps", "8", "--keep-checkpoints",
          "--report-to", "tensorboard")  # fmt: skip
    for name in ("manifest.json", "checkpoints/step-00000012/checkpoint.json"):
        (run_dir / name).unlink()
    shutil.rmtree(run_dir / "checkpoints" / "step-00000012")
    assert resume(run_dir, workspace, "--report-to", "none", "--quiet") == (0, "")
    assert json.loads((run_dir / "config.json").read_text())["report_to"] == "none"
    same = ("metrics.jsonl", "evaluation.jsonl", "model/model.safetensors", "samples.txt")
    assert [(run_dir / name).read_bytes() for name in same] == [(plain / name).read_bytes() for name in same]
    assert list(verify_run(run_dir, workspace))
