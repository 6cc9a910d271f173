"""The validation loss is the mean cross-entropy of every prediction, and evaluating changes nothing of a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import set_seed

from duckling_data.rows.read import Rows
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows
from duckling_train.model import build_model
from duckling_train.runs.hooks import ROWS_A_BATCH, evaluate
from tests.support.train import FP32, duckling_train, with_validation

UNK = 3


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    set_seed(1)
    return build_model(TrainConfig(n_embd=16, n_positions=32, vocab_size=64))


@pytest.fixture(scope="module")
def rows() -> PackedRows:
    return PackedRows(Rows([np.random.default_rng(5).integers(0, 60, (2 * ROWS_A_BATCH + 1, 32)).astype(np.uint16)]))


def by_hand(model: torch.nn.Module, row: np.ndarray) -> list[tuple[int, float]]:
    """Each prediction's target and loss in nats, in float64, one at a time."""
    with torch.no_grad():
        logits = model(torch.tensor(row.astype(np.int64))[None]).logits[0].double()
    return [
        (int(target), -float(torch.log_softmax(logits[place], 0)[int(target)])) for place, target in enumerate(row[1:])
    ]


@pytest.mark.parametrize("limit", [1, ROWS_A_BATCH, None])
def test_losses_are_means_over_every_prediction(model: torch.nn.Module, rows: PackedRows, limit: int | None) -> None:
    taken = rows.rows.chunks[0][:limit]
    losses = [prediction for row in taken for prediction in by_hand(model, row)]
    result = evaluate(model, rows, limit, UNK, autocast=False, done=(done := []).append)
    assert result["rows"] == len(taken) == sum(done)
    assert result["loss"] == pytest.approx(sum(loss for _, loss in losses) / len(losses), abs=1e-5)
    known = [loss for target, loss in losses if target != UNK]
    assert len(known) < len(losses)
    assert result["loss_known"] == pytest.approx(sum(known) / len(known), abs=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))


def test_no_known_target_gives_no_loss_and_no_warning(model: torch.nn.Module) -> None:
    rows = PackedRows(Rows([np.full((2, 32), UNK, dtype=np.uint16)]))
    assert evaluate(model, rows, None, UNK, autocast=False)["loss_known"] is None


def test_the_model_and_the_random_stream_are_left_as_they_were(model: torch.nn.Module, rows: PackedRows) -> None:
    model.train()
    before = torch.random.get_rng_state()
    evaluate(model, rows, None, UNK, autocast=True)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture(scope="module")
def validated(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_validation(workspace, tmp_path_factory.mktemp("validated"))


TINY = ("--steps", "6", "--width", "16", "--batch-size", "1", "--device", "cpu", *FP32)


def test_evaluating_changes_no_bit_of_a_run(validated: Path, tmp_path: Path) -> None:
    """Under autocast, which keeps what it has cast to bf16."""
    settings = ("-w", validated, *TINY, "--precision", "bf16-mixed")
    watched = duckling_train(tmp_path / "a", *settings, "--eval-steps", "2", "--eval-rows", "3")
    alone = duckling_train(tmp_path / "b", *settings, "--eval-rows", "0")
    assert (watched.status, alone.status) == (0, 0), watched.stderr + alone.stderr
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (watched.run_dir / name).read_bytes() == (alone.run_dir / name).read_bytes()
    lines = (watched.run_dir / "evaluation.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ['{"step": 2', '{"step": 4', '{"step": 6']
    assert watched.json("summary.json")["validation"]["rows"] == 3
    assert not (alone.run_dir / "evaluation.jsonl").exists()
    assert alone.json("summary.json")["validation"] is None


def test_the_end_is_evaluated_where_there_are_validation_rows(validated: Path, tmp_path: Path) -> None:
    ran = duckling_train(tmp_path / "a", "-w", validated, *TINY)
    assert ran.json("summary.json")["validation"]["step"] == 6


def test_asking_for_rows_that_are_not_there_is_refused(workspace: Path, tmp_path: Path) -> None:
    ran = duckling_train(tmp_path / "a", "-w", workspace, *TINY, "--eval-steps", "2")
    assert ran.status == 2
    assert "no tokenized_validation" in ran.stderr
    assert not ran.run_dir.exists()
