"""Runs that reports are made of: one with all recorded and measured, one with nothing recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duckling_data.stages.counts import TokenCounts, write_counts
from duckling_data.tokens.mapping import read_mapping
from tests.support.train import TINY_SHAPE, status_of

TENSORS = "W,grad,exp_avg_sq,h_mean,p_dead"


@pytest.fixture(scope="session")
def recorded(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 steps with a record of all of W and all tensors, measured; its workspace has counts."""
    workspace = tmp_path_factory.mktemp("reported")
    for name in ("token_mapping.json", "tokenized_dataset"):
        (workspace / name).symlink_to(tiny_workspace / name)
    live = read_mapping(workspace / "token_mapping.json")["live_token_ids"]
    counted = live[:-8]
    write_counts(workspace / "token_counts.parquet", TokenCounts(
        np.array(counted), np.arange(len(counted), 0, -1), np.arange(len(counted))))  # fmt: skip
    given = ("--steps", "24", "--logging-steps", "4", "--learning-rate", "1e-3", *TINY_SHAPE, "-q")
    assert status_of("-w", workspace, "--name", "all", "--record", "all", "--record-tensors", TENSORS, *given) == 0
    assert status_of("measure", workspace / "runs" / "all", "-q") == 0
    return workspace / "runs" / "all"


@pytest.fixture(scope="session")
def bare(recorded: Path) -> Path:
    """A run in the same workspace without a record, and with another learning rate."""
    workspace = recorded.parent.parent
    given = ("--steps", "12", "--logging-steps", "4", "--learning-rate", "5e-4", *TINY_SHAPE, "-q")
    assert status_of("-w", workspace, "--name", "bare", *given) == 0
    return workspace / "runs" / "bare"
