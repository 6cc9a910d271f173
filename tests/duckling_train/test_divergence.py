"""A loss that is no number stops the run: its step is named, the last good checkpoint stays, nothing false is left."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import safetensors.torch

from duckling_train.runs.checkpoint import checkpoints_of
from tests.support import forked
from tests.support.train import TINY_SHAPE, Ran, with_validation

CLI = "duckling_train.cli"


def train(run_dir: Path, workspace: Path, *settings: str) -> Ran:
    done = forked.run(CLI, "--out", run_dir, "-w", workspace, *TINY_SHAPE, *settings, output=run_dir.with_suffix(".o"))
    return Ran(run_dir, done.wait(), done.stdout, done.stderr)


def diverging(run_dir: Path, workspace: Path, *more: str) -> Ran:
    """A learning rate that rises to 1e36: some finite steps first, then overflow."""
    settings = ("--steps", "60", "--learning-rate", "1e36", "--warmup-steps", "60", "--clip", "0")
    return train(run_dir, workspace, *settings, *more)


def assert_refused(done: Ran, *words: str) -> None:
    assert (done.status, "Traceback" in done.stderr) == (2, False), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.fixture(scope="module")
def every_step(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run with every step logged and checkpointed: it shows which step is the first bad one."""
    run_dir = tmp_path_factory.mktemp("diverged") / "run"
    return diverging(run_dir, tiny_workspace, "--logging-steps", "1", "--checkpoint-steps", "1", "--keep-checkpoints")


def test_the_run_stops_with_the_step_and_one_line(every_step: Ran) -> None:
    assert every_step.status == 2
    last = every_step.metrics[-1]["step"]
    assert f"at step {last + 1}: " in every_step.stderr or f"at step {last}: " in every_step.stderr
    assert "Traceback" not in every_step.stderr
    assert len([line for line in every_step.stderr.splitlines() if line.startswith("duckling-train: ")]) == 1
    assert not (every_step.run_dir / "manifest.json").exists()


def test_no_log_and_no_checkpoint_holds_a_number_that_is_none(every_step: Ran) -> None:
    text = (every_step.run_dir / "metrics.jsonl").read_text()
    losses = [json.loads(line, parse_constant=pytest.fail)["loss"] for line in text.splitlines()]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    for _step, path in checkpoints_of(every_step.run_dir):
        weights = safetensors.torch.load_file(path / "weights.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_the_step_is_named_whatever_the_logging(every_step: Ran, tiny_workspace: Path, tmp_path: Path) -> None:
    seldom = diverging(tmp_path / "run", tiny_workspace, "--logging-steps", "25", "--checkpoint-steps", "0")
    assert seldom.status == 2
    last = every_step.metrics[-1]["step"]
    assert f"the loss is nan at step {last + 1}: " in seldom.stderr
    assert "no checkpoint was written" in seldom.stderr


def test_the_last_good_checkpoint_is_kept_and_named(every_step: Ran) -> None:
    last, _path = checkpoints_of(every_step.run_dir)[-1]
    assert f"the checkpoint of step {last} is kept" in every_step.stderr


@pytest.mark.parametrize(("precision", "rate"), [("fp32", "1e2"), ("fp32", "1e4"), ("bf16-mixed", "1e4")])
def test_a_gradient_norm_that_is_no_number_is_a_divergence(
    tiny_workspace: Path, tmp_path: Path, rate: str, precision: str
) -> None:
    """The loss is still finite there."""
    engine = "reference" if rate == "1e2" else "auto"
    done = train(
        tmp_path / "run", tiny_workspace, "--steps", "4", "--logging-steps", "1", "--clip", "0",
        "--learning-rate", rate, "--precision", precision, "--engine", engine,
    )  # fmt: skip
    assert_refused(done, "at step", "--learning-rate")


@pytest.mark.parametrize("more", [("--eval-steps", "1"), ()])
def test_a_validation_loss_that_is_no_number_is_a_divergence(
    tiny_workspace: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    validated = with_validation(tiny_workspace, tmp_path / "validated")
    done = train(tmp_path / "run", validated, "--steps", "1", "--learning-rate", "1e20", *more)
    assert_refused(done, "step 1", "--learning-rate")
