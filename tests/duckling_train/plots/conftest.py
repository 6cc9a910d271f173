"""A run that plots are drawn of: all of W and all tensors recorded, and measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from duckling_train import open_run
from duckling_train.report.gather import Shown, gather
from tests.support.train import TINY_SHAPE, command_here

STEPS = 12


@pytest.fixture(scope="session")
def recorded(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("plotted") / "all"
    record = ("--record", "all", "--record-tensors", "W,grad,exp_avg_sq,h_mean,p_dead")
    given = ("--steps", str(STEPS), "--logging-steps", "1", "--learning-rate", "1e-3", *record, *TINY_SHAPE, "-q")
    assert command_here("-w", tiny_workspace, "--out", run_dir, *given) == 0
    assert command_here("measure", run_dir, "-w", tiny_workspace, "-q") == 0
    return run_dir


@pytest.fixture(scope="session")
def shown(recorded: Path, tiny_workspace: Path) -> Shown:
    return gather(open_run(recorded, tiny_workspace))
