"""With `--mask-across-stories` a token attends to its own story alone: in training, in evaluation, and when resumed."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer, set_seed

from duckling_data.base.errors import InputError
from duckling_data.rows.cut import story_positions
from duckling_data.rows.read import Column, Rows, open_rows
from duckling_data.rows.write import RowWriter
from duckling_train import CausalLMCollator, duckling_ii
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows, open_workspace
from duckling_train.engines.reference.engine import make_training_args
from duckling_train.model import build_model, story_mask
from duckling_train.runs.hooks import evaluate
from duckling_train.runs.resume import resume
from duckling_train.runs.verify import verify_run
from tests.support.data import build
from tests.support.train import TINY_SHAPE, Ran, duckling_train

MASK = "--mask-across-stories"
SHAPE = TrainConfig(n_embd=16, n_positions=24, vocab_size=64, precision="fp32")
LENGTHS = [[30, 1, 9, 2, 30], [1, 1, 70], [24, 24, 24]]
"""Of stories: the rows, of 24 tokens each, begin and end inside them and at their borders."""


@pytest.fixture(scope="module")
def rows() -> Rows:
    positions = np.concatenate([story_positions(np.array(lengths))[:72] for lengths in LENGTHS]).reshape(-1, 24)
    ids = np.random.default_rng(5).integers(0, 60, positions.shape).astype(np.uint16)
    return Rows([ids[:4], ids[4:]], Column([positions[:4], positions[4:]]))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    set_seed(1)
    model = build_model(SHAPE)
    with torch.no_grad():  # beyond its initial weights, whose attention is nearly even
        for parameter in model.parameters():
            parameter.mul_(8)
    return model


def logits_alone(model: torch.nn.Module, row: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """Each story's part of a row given to the model alone, at the places that it has in the row."""
    begins = [0, *(at for at in range(1, len(row)) if positions[at] == 0), len(row)]
    parts = [
        model(torch.tensor(row[begin:end].astype(np.int64))[None], position_ids=torch.arange(begin, end)[None]).logits
        for begin, end in itertools.pairwise(begins)
    ]
    return torch.cat(parts, dim=1)[0]


@torch.no_grad()
def test_the_logits_of_a_story_in_a_row_are_those_of_the_story_alone(model: torch.nn.Module, rows: Rows) -> None:
    packed = PackedRows(rows, positions=True)
    batch = CausalLMCollator(mask_across_stories=True)([packed[index] for index in range(len(packed))])
    assert rows.positions is not None
    alone = torch.stack([logits_alone(model, *pair) for pair in zip(rows, rows.positions, strict=True)])
    masked = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(masked, alone, atol=1e-4, rtol=1e-4)
    assert (model(batch["input_ids"]).logits - alone).abs().max() > 0.1, "without the mask they are others"
    result = evaluate(model, packed, None, 0, autocast=False)  # type: ignore[arg-type]  # a GPT2LMHeadModel
    loss = torch.nn.functional.cross_entropy(alone[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert result["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_the_mask_is_causal_and_by_story() -> None:
    mask = story_mask(np.array([[7, 8, 0, 0, 1]], np.uint32))
    assert mask.dtype == torch.bool
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with positions, and a validation split."""
    workspace = tmp_path_factory.mktemp("stories") / "w"
    build(workspace, "demo:150", sample="all", live=448, dead=64, ctx=64, positions=True)
    return workspace


SETTINGS = (*TINY_SHAPE, "--steps", "12", "--logging-steps", "1", "--checkpoint-steps", "4", "--keep-checkpoints")


@pytest.fixture(scope="module")
def masked(stories: Path) -> Ran:
    run = duckling_train(stories / "runs" / "masked", "-w", stories, *SETTINGS, MASK, "--eval-steps", "6")
    assert run.status == 0, run.stderr
    return run


def test_a_run_says_that_it_masks_and_the_default_does_not(stories: Path, masked: Ran, tmp_path: Path) -> None:
    plain = duckling_train(tmp_path / "plain", "-w", stories, *SETTINGS)
    assert plain.metrics[0]["loss"] != masked.metrics[0]["loss"]
    here, there = masked.json("config.json"), plain.json("config.json")
    assert "mask_across_stories" not in there
    assert there["inputs"]["dataset"].keys() == {"payload_sha256", "rows", "context"}
    assert here["mask_across_stories"] is True
    assert here["inputs"]["dataset"]["payload_sha256"] == there["inputs"]["dataset"]["payload_sha256"]
    for split, name in (("dataset", "train"), ("validation", "validation")):
        recorded = json.loads((stories / "manifest.json").read_text())["stages"]["pack"]["figures"]["splits"][name]
        assert here["inputs"][split]["positions_sha256"] == recorded["positions_sha256"]
    assert TrainConfig(mask_across_stories=True).run_name() == "steps-10000-seed-42-mask-across-stories"
    assert any("data         ok" in line for line in verify_run(masked.run_dir, stories))


def test_a_masked_run_resumes_to_the_same_bits(stories: Path, masked: Ran, tmp_path: Path) -> None:
    stopped = Path(shutil.copytree(masked.run_dir, tmp_path / "stopped"))
    later = [stopped / "checkpoints" / f"step-{step:08d}" for step in (8, 12)]
    for path in (stopped / "model", *later):
        shutil.rmtree(path)
    for name in ("manifest.json", "summary.json", "samples.txt"):
        (stopped / name).unlink()
    resume(stopped, stories, {}, quiet=True)
    logs = ("metrics.jsonl", "evaluation.jsonl")
    for name in (*logs, "model/model.safetensors", "checkpoints/step-00000012/optimizer.safetensors"):
        assert (stopped / name).read_bytes() == (masked.run_dir / name).read_bytes(), name


def test_other_positions_than_the_runs_are_refused_by_resume(stories: Path, masked: Ran, tmp_path: Path) -> None:
    """Two files alone, without a manifest: the rows are the run's, the stories' borders are not."""
    workspace = with_positions(stories, tmp_path / "w", lambda positions: np.zeros_like(positions))
    shutil.copytree(stories / "tokenized_validation", workspace / "tokenized_validation")
    stopped = Path(shutil.copytree(masked.run_dir, tmp_path / "stopped"))
    (stopped / "manifest.json").unlink()
    with pytest.raises(InputError, match="was started on another dataset"):
        resume(stopped, workspace, {}, quiet=True)


def with_positions(stories: Path, workspace: Path, change: Callable[[np.ndarray], np.ndarray] | None) -> Path:
    """Make a workspace of the same two files, its positions changed, or left out. Returns `workspace`."""
    workspace.mkdir()
    shutil.copy(stories / "token_mapping.json", workspace)
    rows = open_rows(stories / "tokenized_dataset")
    assert rows.positions is not None
    with RowWriter(workspace / "tokenized_dataset", 64, "train", positions=change is not None) as writer:
        writer.write(rows[:], change(rows.positions[:]) if change else None)
    writer.put_in_place()
    return workspace


def test_rows_without_positions_are_refused_in_one_line(stories: Path, tmp_path: Path) -> None:
    workspace = with_positions(stories, tmp_path / "w", None)
    done = duckling_train(tmp_path / "run", "-w", workspace, *SETTINGS, MASK)
    assert done.status == 2
    assert done.stderr.strip().endswith(
        "tokenized_dataset holds no positions, which --mask-across-stories needs: run duckling-data pack --positions"
    )
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


CONFIG = {"n_positions": 64, "vocab_size": 512, "n_embd": 16, "device": "cpu", "precision": "fp32", "threads": 1}


def test_positions_that_are_none_are_refused(stories: Path, tmp_path: Path) -> None:
    workspace = with_positions(stories, tmp_path / "w", lambda positions: positions + (positions == 3))
    with pytest.raises(InputError, match="nor are 0, which mask_across_stories=True needs: run duckling-data pack"):
        open_workspace(workspace, TrainConfig(**CONFIG, mask_across_stories=True))
    assert "position" not in open_workspace(workspace, TrainConfig(**CONFIG)).rows[0], "unless they are not used"


def test_positions_other_than_were_packed_are_refused(stories: Path, tmp_path: Path) -> None:
    workspace = with_positions(stories, tmp_path / "w", lambda positions: np.zeros_like(positions))
    shutil.copy(stories / "manifest.json", workspace)
    with pytest.raises(InputError, match="other positions than were packed"):
        open_workspace(workspace, TrainConfig(**CONFIG, mask_across_stories=True))


def test_a_lab_masks_as_the_command_does(stories: Path, masked: Ran, tmp_path: Path) -> None:
    lab = duckling_ii(stories, **CONFIG, mask_across_stories=True)
    assert lab.dataset[0].keys() == {"input_ids", "position"}
    losses = lab.train(12, logging_steps=1).losses
    assert losses == [line["loss"] for line in masked.metrics]
    args = make_training_args(1, str(tmp_path / "out"), bf16=False, use_cpu=True)  # the Trainer's default drops columns
    own = Trainer(model=lab.model, args=args, train_dataset=lab.dataset, data_collator=lab.collator)
    with pytest.raises(InputError, match="remove_unused_columns=False"):
        own.train()
