"""A small workspace made the obvious way, and one run on it that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.train import FP32, STEPS, Ran, from_the_shell, make_workspace, sentences


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A run sets the number of CPU threads that it was given; the tests after have theirs again."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("workspace"), sentences(300))


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of short rows and a small vocabulary."""
    return make_workspace(tmp_path_factory.mktemp("tiny"), sentences(30), live=448, dead=64, context=64)


@pytest.fixture(scope="session")
def run(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One short CPU run through the command line."""
    run_dir = tmp_path_factory.mktemp("runs") / "short"
    return from_the_shell(run_dir, "-w", workspace, "--steps", str(STEPS), "--device", "cpu", *FP32)
