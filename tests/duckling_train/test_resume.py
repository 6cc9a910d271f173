"""A run that was killed and resumed ends in the bits of one that never was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from duckling_data.base.errors import InputError
from duckling_train.runs.resume import resume as continue_run
from tests.support import forked
from tests.support.train import TINY_SHAPE, Ran, make_workspace, sentences

STEPS = 40
EPOCH = 15
CLI = "duckling_train.cli"
SETTINGS = (*TINY_SHAPE, "--steps", str(STEPS), "--logging-steps", "3", "--checkpoint-steps", "4", "--keep-checkpoints")
"""Checkpoints fall between logs; the last log is before the last step."""


@pytest.fixture(scope="module")
def arguments(tiny_workspace: Path) -> list[str]:
    """Settings under which a run goes past its second epoch, each of 15 batches, the last one short."""
    import datasets

    rows = len(datasets.load_from_disk(str(tiny_workspace / "tokenized_dataset")))
    batch = -(-rows // EPOCH)
    assert rows % batch
    return ["-w", str(tiny_workspace), "--batch-size", str(batch), *SETTINGS]


def train(run_dir: Path, arguments: list[str], *more: str) -> Ran:
    done = forked.run(CLI, "--out", run_dir, *arguments, *more, output=run_dir.with_suffix(".output"))
    return Ran(run_dir, done.wait(), done.stdout, done.stderr)


def resume(run_dir: Path, workspace: str, *more: str) -> Ran:
    done = forked.run(CLI, "--resume", run_dir, "-w", workspace, *more, output=run_dir.with_suffix(".resumed"))
    return Ran(run_dir, done.wait(), done.stdout, done.stderr)


@pytest.fixture(scope="module")
def undisturbed(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    run = train(tmp_path_factory.mktemp("undisturbed") / "run", arguments)
    assert run.status == 0, run.stderr
    return run


def assert_same_run(run_dir: Path, expected: Path, steps: int = STEPS) -> None:
    """Losses, weights, optimizer state, samples and plot: the same bytes."""
    logs = ("metrics.jsonl", "dynamics.jsonl")
    for name in (*logs, "config.json", "samples.txt", "loss.png", "model/model.safetensors"):
        assert (run_dir / name).read_bytes() == (expected / name).read_bytes(), name
    last = f"checkpoints/step-{steps:08d}"
    for name in ("weights.safetensors", "optimizer.safetensors"):
        ours, theirs = (safetensors.torch.load_file(place / last / name) for place in (run_dir, expected))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def killed(run_dir: Path, arguments: list[str], when: str, *more: str) -> None:
    """Start a run and kill it as soon as its directory holds `when` (a glob)."""
    running = forked.start(CLI, "--out", run_dir, *arguments, *more, output=run_dir.with_suffix(".killed"))
    running.kill_when(lambda: any(run_dir.glob(when)))


@pytest.mark.parametrize(
    "when",
    [
        "config.json",
        "metrics.jsonl",
        "checkpoints/step-00000004*/*",  # half-written, most of the time
        "checkpoints/step-00000020",  # in the second epoch
        "checkpoints/step-00000040",  # all trained, nothing saved
        "model*",  # half-written, most of the time
        "summary.json",
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    arguments: list[str], undisturbed: Ran, tmp_path: Path, when: str
) -> None:
    killed(tmp_path / "run", arguments, when)
    resumed = resume(tmp_path / "run", arguments[1])
    assert resumed.status == 0, resumed.stderr
    assert_same_run(tmp_path / "run", undisturbed.run_dir)
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.fixture
def stopped(undisturbed: Ran, tmp_path: Path) -> Path:
    """The undisturbed run as it was at step 20."""
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed.run_dir, run_dir)
    for name in ("manifest.json", "summary.json", "samples.txt", "loss.png"):
        (run_dir / name).unlink()
    shutil.rmtree(run_dir / "model")
    for step in range(24, STEPS + 1, 4):
        shutil.rmtree(run_dir / "checkpoints" / f"step-{step:08d}")
    return run_dir


def test_the_logs_are_set_back_to_the_checkpoint(arguments: list[str], undisturbed: Ran, stopped: Path) -> None:
    with (stopped / "metrics.jsonl").open("a") as log:
        log.write('{"step": 41, "loss": 1.0}\n{"torn')
    assert resume(stopped, arguments[1]).status == 0
    assert_same_run(stopped, undisturbed.run_dir)


def refused(done: Ran, *expected: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.status == 2, done.stderr
    assert len(lines) <= 2
    assert "Traceback" not in done.stderr
    for words in expected:
        assert words in done.stderr


def test_other_settings_than_the_runs_are_refused(arguments: list[str], stopped: Path) -> None:
    before = sorted(stopped.rglob("*"))
    refused(resume(stopped, arguments[1], "--learning-rate", "0.5"), "--learning-rate is 0.5", "0.0001")
    assert sorted(stopped.rglob("*")) == before


def test_a_checkpoint_of_another_configuration_is_refused(arguments: list[str], stopped: Path) -> None:
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps({**config, "learning_rate": 0.5}))
    refused(resume(stopped, arguments[1]), "step-00000020 is from a run with other config_sha256")


def test_another_dataset_is_refused(arguments: list[str], stopped: Path, tmp_path: Path) -> None:
    other = make_workspace(tmp_path / "other", sentences(31), live=448, dead=64, context=64)
    refused(resume(stopped, str(other)), "another dataset")


def test_a_damaged_checkpoint_is_named_and_refused(arguments: list[str], stopped: Path) -> None:
    newest = stopped / "checkpoints" / "step-00000020"
    for name in ("optimizer.safetensors", "metrics.jsonl", "checkpoint.json", "weights.safetensors"):
        good = (newest / name).read_bytes()
        damaged = bytearray(good)
        damaged[len(damaged) // 2] ^= 1
        (newest / name).write_bytes(damaged)
        with pytest.raises(InputError, match="step-00000020"):
            continue_run(stopped, Path(arguments[1]), {}, quiet=True)
        (newest / name).write_bytes(good if name != "weights.safetensors" else damaged)
    refused(resume(stopped, arguments[1]), "step-00000020", "weights.safetensors")
    shutil.rmtree(newest)
    assert resume(stopped, arguments[1]).status == 0, "the one before it is whole"


def test_a_running_loss_that_was_changed_is_refused(arguments: list[str], stopped: Path) -> None:
    """It is in no file of its own whose hash would tell."""
    path = stopped / "checkpoints" / "step-00000020" / "checkpoint.json"
    record = json.loads(path.read_text())
    record["state"]["running_loss"] += 0.001
    path.write_text(json.dumps(record))
    refused(resume(stopped, arguments[1]), "step-00000020", "checkpoint.json is damaged")


def test_a_finished_run_has_nothing_to_resume(arguments: list[str], undisturbed: Ran) -> None:
    before = (undisturbed.run_dir / "summary.json").stat().st_mtime_ns
    assert resume(undisturbed.run_dir, arguments[1]).status == 0
    assert (undisturbed.run_dir / "summary.json").stat().st_mtime_ns == before


def test_no_run_no_resumption(arguments: list[str], tmp_path: Path) -> None:
    refused(resume(tmp_path / "nothing", arguments[1]), "nothing")


def test_a_finished_run_keeps_no_checkpoints_unless_asked(run: Ran, undisturbed: Ran) -> None:
    assert not (run.run_dir / "checkpoints").exists()
    names = [path.name for path in sorted((undisturbed.run_dir / "checkpoints").iterdir())]
    assert names == [f"step-{step:08d}" for step in range(4, STEPS + 1, 4)]


@pytest.mark.parametrize(
    "settings",
    [
        *(("--precision", name) for name in ("bf16-mixed", "bf16-pure", "bf16-weights", "bf16-stochastic")),
        ("--dropout", "0.1", "--optimizer", "coupled-adam"),
        ("--optimizer", "sgd", "--precision", "bf16-stochastic"),
    ],
    ids=" ".join,
)
def test_whatever_keeps_or_draws_something_resumes_to_the_same_bits(
    arguments: list[str], tmp_path: Path, settings: tuple[str, ...]
) -> None:
    settings = (*settings, "--steps", "12")
    whole = train(tmp_path / "whole", arguments, *settings)
    assert whole.status == 0, whole.stderr
    killed(tmp_path / "run", arguments, "checkpoints/step-00000008", *settings)
    assert resume(tmp_path / "run", arguments[1]).status == 0
    assert_same_run(tmp_path / "run", whole.run_dir, steps=12)
