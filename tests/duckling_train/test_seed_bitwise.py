"""The law of the reference engine: on a CPU it is the seed's own cells, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file

from duckling_train.config import TrainConfig
from duckling_train.data import open_workspace
from duckling_train.engines.reference import CausalLMCollator, make_training_args
from tests import seed_cells
from tests.duckling_train.conftest import STEPS, Ran, make_workspace

REAL_STORIES = Path(__file__).parents[3] / "shared" / "data" / "tinystories" / "train-head-v1.jsonl"


@pytest.fixture(scope="session")
def seed_run(workspace: Path) -> tuple[dict[str, Any], list[float], list[int], dict[str, torch.Tensor]]:
    namespace = seed_cells.run_all_cells(workspace)
    return namespace, *seed_cells.train(namespace, workspace, STEPS)


def test_cli_losses_and_weights_are_bitwise_those_of_the_seeds_cells(run: Ran, seed_run: Any) -> None:
    _, losses, steps, weights = seed_run
    assert run.status == 0, run.stderr
    assert steps == [1, 10, 20, 30]
    assert [line["step"] for line in run.metrics] == steps
    assert [line["loss"] for line in run.metrics] == losses
    saved = load_file(run.run_dir / "model" / "model.safetensors")
    assert set(weights) - set(saved) == {"lm_head.weight"}
    assert torch.equal(weights.pop("lm_head.weight"), saved["transformer.wte.weight"])
    for name, tensor in weights.items():
        assert torch.equal(tensor, saved[name]), name


def test_the_seeds_training_moved_the_weights(seed_run: Any, workspace: Path) -> None:
    """Guards the comparison above: equal because both trained, not because neither did."""
    _, losses, _, weights = seed_run
    fresh = seed_cells.run_all_cells(workspace)["model"].state_dict()
    assert losses[-1] < losses[0] - 0.3
    assert not torch.equal(weights["transformer.h.0.attn.c_attn.weight"], fresh["transformer.h.0.attn.c_attn.weight"])


def test_collator_gives_the_seeds_batches(workspace: Path) -> None:
    rows = open_workspace(workspace, TrainConfig()).rows
    namespace = seed_cells.run_data_cells(workspace)
    dataset = load_from_disk(str(workspace / "tokenized_dataset"))
    picked = [0, 5, len(rows) - 1]
    ours = CausalLMCollator()([rows[index] for index in picked])
    theirs = namespace["collator"]([dataset[index] for index in picked])
    assert list(ours) == list(theirs)
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype == torch.int64
        assert torch.equal(ours[name], theirs[name])
    assert ours["labels"].data_ptr() != ours["input_ids"].data_ptr()


def test_training_arguments_are_the_seeds(seed_run: Any, tmp_path: Path) -> None:
    """Every field, but the progress bar and what names a place."""
    theirs = seed_run[0]["make_training_args"](77, str(tmp_path), 7).to_dict()
    ours = make_training_args(77, str(tmp_path), 7).to_dict()
    assert {name for name in theirs if theirs[name] != ours[name]} <= {"disable_tqdm"}
    assert ours["output_dir"] == str(tmp_path)


def test_make_training_args_has_the_seeds_defaults_and_takes_extras() -> None:
    args = make_training_args(5, seed=7)
    assert (args.output_dir, args.logging_steps, args.max_steps, args.seed) == ("experiment", 10, 5, 7)


@pytest.mark.skipif(not REAL_STORIES.exists(), reason=f"no real stories at {REAL_STORIES}")
def test_real_stories_give_the_known_losses(tmp_path: Path) -> None:
    """5,000 real stories, counted in file order: 2,007 rows, and the first 40 of a 200-step run's losses."""
    from transformers import set_seed
    from transformers.trainer_callback import TrainerCallback

    from duckling_train.callbacks import LossTracker
    from duckling_train.engines import reference
    from duckling_train.model import build_model

    class StopAt40(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step >= 40

    stories = [json.loads(line)["text"] for line in REAL_STORIES.read_text(encoding="utf-8").splitlines()]
    config = TrainConfig(steps=200, device="cpu")
    data = open_workspace(make_workspace(tmp_path, stories), config)
    assert len(data.rows) == 2007
    set_seed(config.seed)
    model = build_model(config)
    tracker = LossTracker()
    reference.train(model, data.rows, config, tmp_path / "run", [tracker, StopAt40()])
    logged = dict(zip(tracker.steps, tracker.losses, strict=True))
    expected = {1: 9.0071, 10: 8.8561, 20: 8.6128, 30: 8.4391, 40: 8.3035}
    assert {step: round(logged[step], 4) for step in expected} == expected


def test_seed_text_parses_into_its_seven_cells() -> None:
    cells = seed_cells.code_cells()
    assert len(cells) == 7
    assert cells[0].startswith("# === DUCKLING II REFERENCE PARAMETERS ===\n")
    assert cells[-1] == "# Your experiment code here\npass\n"
    assert "```" not in "".join(cells)


def test_seeds_tokenizer_and_ours_agree(workspace: Path) -> None:
    from duckling_data.tokenizer import DucklingTokenizer

    namespace = seed_cells.run_data_cells(workspace)
    ours = DucklingTokenizer(workspace / "token_mapping.json")
    text = "Babble saw 17 red kites. Zebra?"
    ids = namespace["tokenizer"].encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == namespace["tokenizer"].decode(ids)
    assert np.asarray(ids).max() < namespace["LIVE_TOKENS"]
