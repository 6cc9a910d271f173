"""What `duckling-train` says is what it does: resumed or not, under any environment, with a refusal in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import forked
from tests.support.train import TINY_SHAPE, Ran, environment, make_workspace, sentences, with_validation

CLI = "duckling_train.cli"
LEARNING = ("--width", "64", "--learning-rate", "3e-3", "--precision", "bf16-mixed")
"""With these a run of some steps learns enough for its samples to show the dtype of their arithmetic."""


@pytest.fixture(scope="module")
def validated(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_validation(tiny_workspace, tmp_path_factory.mktemp("validated"))


def ran(place: Path, *arguments: str | Path) -> Ran:
    done = forked.run(CLI, *arguments, output=place.with_suffix(".output"))
    return Ran(place, done.wait(), done.stdout, done.stderr)


def train(run_dir: Path, workspace: Path, *more: str) -> Ran:
    return ran(run_dir, "--out", run_dir, "-w", workspace, *TINY_SHAPE, *more)


def stopped_at(run: Path, copy: Path, step: int) -> Path:
    """Return a copy of a finished run (with --keep-checkpoints) as it was right after the checkpoint of `step`."""
    shutil.copytree(run, copy)
    for name in ("manifest.json", "summary.json", "samples.txt", "loss.png"):
        (copy / name).unlink()
    shutil.rmtree(copy / "model")
    for checkpoint in (copy / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    return copy


def assert_one_line(done: Ran, *words: str) -> None:
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_run_resumed_after_its_last_step_has_the_samples_of_one_that_was_not(
    tiny_workspace: Path, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", tiny_workspace, *LEARNING, "--steps", "60", "--untied", "--keep-checkpoints")
    assert whole.status == 0, whole.stderr
    again = stopped_at(whole.run_dir, tmp_path / "again", 60)
    resumed = ran(again, "--resume", again, "-w", tiny_workspace)
    assert resumed.status == 0, resumed.stderr
    assert (again / "model/model.safetensors").read_bytes() == (whole.run_dir / "model/model.safetensors").read_bytes()
    assert (again / "samples.txt").read_text() == (whole.run_dir / "samples.txt").read_text()


def test_samples_are_what_generate_greedy_says(tiny_workspace: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", tiny_workspace, *LEARNING, "--steps", "60", "--untied")
    prompt, said = (run.run_dir / "samples.txt").read_text().split("\n\n")[1].split("\n", 1)
    prompt = prompt.removeprefix("> ")
    tokens = str(60)
    done = ran(tmp_path / "said", "generate", run.run_dir, "--greedy", "--tokens", tokens, "--prompt", prompt)
    assert done.stdout.rstrip("\n") == said


@pytest.mark.parametrize(("name", "value"), [("ACCELERATE_MIXED_PRECISION", "bf16")])
def test_the_environment_does_not_change_a_runs_numbers(
    tiny_workspace: Path, tmp_path: Path, name: str, value: str
) -> None:
    """Either the variable is without effect, or the run is refused with its name."""
    settings = ("--steps", "30", "--precision", "fp32")
    plain = train(tmp_path / "plain", tiny_workspace, *settings)
    code = f"from {CLI} import main; main()"
    arguments = ["--out", str(tmp_path / "run"), "-w", str(tiny_workspace), *TINY_SHAPE, *settings]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment(), name: value}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        assert (tmp_path / "run/metrics.jsonl").read_bytes() == (plain.run_dir / "metrics.jsonl").read_bytes()
    else:
        assert_one_line(Ran(tmp_path, done.returncode, done.stdout, done.stderr), name)


def test_other_validation_rows_are_refused_by_resume(validated: Path, tmp_path: Path) -> None:
    settings = ("--steps", "12", "--checkpoint-steps", "4", "--keep-checkpoints")
    run = train(tmp_path / "run", validated, *settings)
    assert run.status == 0, run.stderr
    other = make_workspace(tmp_path / "other", sentences(12), live=448, dead=64, context=64)
    shutil.copytree(validated / "tokenized_dataset", tmp_path / "moved/tokenized_dataset")
    shutil.copy(validated / "token_mapping.json", tmp_path / "moved")
    shutil.copytree(other / "tokenized_dataset", tmp_path / "moved/tokenized_validation")
    stopped = stopped_at(run.run_dir, tmp_path / "stopped", 4)
    assert_one_line(ran(stopped, "--resume", stopped, "-w", tmp_path / "moved"), "another validation")
    shutil.rmtree(tmp_path / "moved/tokenized_validation")
    assert_one_line(ran(stopped, "--resume", stopped, "-w", tmp_path / "moved"), "another validation")


def test_dry_run_refuses_what_the_run_would(tiny_workspace: Path, tmp_path: Path) -> None:
    real = train(tmp_path / "run", tiny_workspace, "--steps", "4", "--eval-steps", "2")
    assert "no tokenized_validation" in real.stderr
    dry = train(tmp_path / "run", tiny_workspace, "--steps", "4", "--eval-steps", "2", "--dry-run")
    assert "would be refused" in dry.stdout


def test_a_name_beside_out_is_refused_not_ignored(tiny_workspace: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "run", tiny_workspace, "--steps", "2", "--name", "mine")
    assert_one_line(done, "--name", "--out")


def test_a_rank_without_torchrun_loses_no_run(tiny_workspace: Path, tmp_path: Path) -> None:
    """Job schedulers set RANK for every process; without WORLD_SIZE there is one, and it writes."""
    code = f"from {CLI} import main; main()"
    arguments = ["--out", str(tmp_path / "run"), "-w", str(tiny_workspace), *TINY_SHAPE, "--steps", "2"]
    variables = {name: value for name, value in environment().items() if name != "WORLD_SIZE"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**variables, "RANK": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0 or (tmp_path / "run/manifest.json").is_file()


def test_a_temperature_that_overflows_is_refused(tiny_workspace: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", tiny_workspace, "--steps", "2")
    assert_one_line(
        ran(tmp_path / "said", "generate", run.run_dir, "--tokens", "5", "--temperature", "1e-40"), "--temperature"
    )


def test_tensorboard_shows_a_step_once_after_a_resumption(tiny_workspace: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(
        tmp_path / "run", tiny_workspace, "--steps", "6", "--logging-steps", "1", "--checkpoint-steps", "3",
        "--keep-checkpoints", "--report-to", "tensorboard",
    )  # fmt: skip
    assert run.status == 0, run.stderr
    stopped = stopped_at(run.run_dir, tmp_path / "stopped", 3)
    assert ran(stopped, "--resume", stopped, "-w", tiny_workspace).status == 0
    events = EventAccumulator(str(stopped / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_sweeps_run_resumes_on_the_sweeps_workspace(tiny_workspace: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for name in ("token_mapping.json", "tokenized_dataset"):
        (workspace / name).symlink_to(tiny_workspace / name)
    runs = workspace / "sweeps/grid/runs"
    runs.mkdir(parents=True)
    done = train(runs / "whole", workspace, "--steps", "4", "--checkpoint-steps", "2", "--keep-checkpoints")
    assert done.status == 0, done.stderr
    stopped = stopped_at(runs / "whole", runs / "stopped", 2)
    resumed = ran(tmp_path / "resumed", "--resume", stopped)
    assert resumed.status == 0, resumed.stderr


def test_a_damaged_record_of_a_run_is_one_line(tiny_workspace: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", tiny_workspace, "--steps", "2")
    path = run.run_dir / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": "two"}))
    assert_one_line(ran(tmp_path / "said", "compare", run.run_dir, "--out", tmp_path / "plot.png"), "config.json")
