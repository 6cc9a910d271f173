"""The laws of an open experiment: the seed's names, the seed's numbers, and nothing that a researcher must clean up."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import duckling_train
from duckling_data.base.errors import InputError
from duckling_train import Experiment, LossTracker, WRecorder, duckling_ii
from duckling_train.optimizers import OwnAdamW
from tests.support import seed_cells
from tests.support.train import environment

STEPS = 11
RECORD_EVERY = 4
RECORDER = "Record W snapshots during training"
DEAD_IDS = "Extract dead token embeddings"
SEED_NAMES = ("model", "W", "dataset", "collator", "tokenizer", "dead_token_ids", "device", "make_training_args")


def names_of(lab: Experiment) -> dict[str, Any]:
    """Return what the seed's examples use, as a notebook that opened `lab` would hold it."""
    from transformers import Trainer

    return {name: getattr(lab, name) for name in SEED_NAMES} | {"LossTracker": LossTracker, "Trainer": Trainer}


def run_basic_example(names: dict[str, Any], recorder: Any, workdir: Path) -> None:
    """Run the seed's basic training run for STEPS steps, with `recorder` among the callbacks."""
    code = seed_cells.example(seed_cells.BASIC_RUN)
    for old, new in (("NUM_STEPS = 10_000", f"NUM_STEPS = {STEPS}"), ("[tracker]", "[tracker, recorder]")):
        assert code.count(old) == 1
        code = code.replace(old, new)
    names["recorder"] = recorder
    with contextlib.chdir(workdir):
        exec(compile(code, "seed example: basic training run", "exec"), names)


@pytest.fixture(scope="module")
def seed_names(workspace: Path) -> dict[str, Any]:
    """The seed's cells in float32 and its basic run, on its own names, recorded by its own WRecorder."""
    names = seed_cells.run_all_cells(workspace, seed_cells.FP32)
    exec(seed_cells.example(RECORDER), names)
    run_basic_example(names, names["WRecorder"](RECORD_EVERY), workspace)
    return names


def open_on_cpu(workspace: Path, **settings: Any) -> Experiment:
    """Open the workspace as in a notebook, but on the CPU and in float32."""
    return duckling_ii(workspace, **{"device": "cpu", "precision": "fp32", **settings})


def test_the_seeds_examples_on_our_names_are_bitwise_the_seeds(
    seed_names: dict[str, Any], workspace: Path, tmp_path: Path
) -> None:
    lab = open_on_cpu(workspace)
    start = lab.W.detach().clone()
    names = names_of(lab)
    run_basic_example(names, WRecorder(RECORD_EVERY), tmp_path)
    assert names["tracker"].steps == seed_names["tracker"].steps == [1, 10]
    assert names["tracker"].losses == seed_names["tracker"].losses
    assert torch.equal(lab.W, seed_names["W"])
    assert not torch.equal(lab.W, start)
    ours, theirs = names["recorder"].snapshots, seed_names["recorder"].snapshots
    assert [step for step, _ in ours] == [step for step, _ in theirs] == [4, 8]
    for (_, our_copy), (_, their_copy) in zip(ours, theirs, strict=True):
        assert our_copy.dtype == their_copy.dtype == torch.float32
        assert torch.equal(our_copy, their_copy)
    assert not torch.equal(ours[0][1], ours[1][1])

    for either in (names, seed_names):
        exec(seed_cells.example(DEAD_IDS), either)
    assert names["W_dead"].shape == (2048, 128)
    assert sorted(names["dead_ids"]) == sorted(seed_names["dead_ids"])
    assert torch.equal(names["W_dead"], seed_names["W_dead"])


def test_train_is_bitwise_the_seeds_run_recorded_or_not(
    seed_names: dict[str, Any], workspace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lab = open_on_cpu(workspace)
    tracker = lab.train(STEPS, output_dir=str(tmp_path))
    assert (tracker.steps, tracker.losses) == (seed_names["tracker"].steps, seed_names["tracker"].losses)
    for name, tensor in lab.model.state_dict().items():
        assert torch.equal(tensor, seed_names["model"].state_dict()[name]), name
    said, complaints = capfd.readouterr()
    assert complaints == ""
    lines = said.splitlines()
    assert [line[:13] for line in lines] == ["step  1 of 11", "step 10 of 11"]
    assert f"loss {tracker.losses[-1]:.4f}" in lines[-1]


def test_dataset_rows_are_the_seeds(seed_names: dict[str, Any], workspace: Path) -> None:
    ours, theirs = open_on_cpu(workspace).dataset, seed_names["dataset"]
    assert len(ours) == len(theirs)
    row = ours[0]["input_ids"]
    assert row.dtype == np.int64
    assert row.tolist() == theirs[0]["input_ids"]
    part = ours.select(range(3))
    assert len(part) == 3
    assert part[2]["input_ids"].tolist() == theirs[2]["input_ids"]


def test_tokenizer_takes_a_row_of_the_dataset(seed_names: dict[str, Any], workspace: Path) -> None:
    lab = open_on_cpu(workspace)
    row = lab.dataset[1]["input_ids"]
    assert lab.tokenizer.decode(row) == seed_names["tokenizer"].decode(row.tolist())
    assert lab.token_mapping == seed_names["token_mapping"]


def test_a_trainer_of_ones_own_says_nothing_on_standard_error(workspace: Path, tmp_path: Path) -> None:
    """In a fresh process, as warnings are shown once; the Trainer's own bar, which it writes there, is switched off."""
    script = """if True:
        import sys
        from duckling_train import LossTracker, duckling_ii
        from transformers import Trainer
        lab = duckling_ii(sys.argv[1], device="cpu", precision="fp32")
        args = lab.make_training_args(2, disable_tqdm=True)
        Trainer(model=lab.model, args=args, train_dataset=lab.dataset, data_collator=lab.collator,
                callbacks=[LossTracker()]).train()
    """
    done = subprocess.run(
        [sys.executable, "-c", script, str(workspace)],
        capture_output=True, text=True, env=environment(), cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("'loss'") == 1
    assert list(tmp_path.rglob("*")) == [], "the Trainer's own empty output_dir is left behind"


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    script = "import duckling_train, sys; dir(duckling_train); print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in duckling_train.__all__:
        assert name in dir(duckling_train)
        assert getattr(duckling_train, name).__name__.rpartition(".")[2] == name  # a module has its package before it
    with pytest.raises(AttributeError, match="no attribute 'duckling_iii'"):
        duckling_train.duckling_iii  # noqa: B018


def test_settings_reach_the_training_arguments_and_extras_go_before_them(workspace: Path) -> None:
    lab = open_on_cpu(
        workspace,
        learning_rate=2e-3,
        schedule="constant",
        betas=(0.8, 0.9),
        data_seed=5,
        batch_size=3,
    )
    args = lab.make_training_args(7)
    assert (args.max_steps, args.output_dir, args.logging_steps) == (7, "experiment", 10)
    assert (args.learning_rate, args.lr_scheduler_type, args.adam_beta1, args.adam_beta2) == (
        2e-3,
        "constant",
        0.8,
        0.9,
    )
    assert (args.seed, args.data_seed, args.bf16, args.per_device_train_batch_size) == (42, 5, False, 3)
    assert (args.use_cpu, args.device.type, args.save_strategy, args.report_to) == (True, "cpu", "no", [])
    args = lab.make_training_args(7, "there", 3, learning_rate=1e-5, seed=1)
    assert (args.output_dir, args.logging_steps, args.learning_rate, args.seed) == ("there", 3, 1e-5, 1)
    assert lab.optimizer(args) is None
    assert duckling_ii(workspace, device="cpu").make_training_args(7).bf16, "the seed's precision is the default"


def test_a_seed_draws_its_own_weights_every_time(workspace: Path) -> None:
    first, again, other = (open_on_cpu(workspace, seed=seed).W for seed in (42, 42, 43))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_w_is_the_current_models(workspace: Path) -> None:
    lab, other = open_on_cpu(workspace), open_on_cpu(workspace, seed=43)
    assert lab.W is lab.model.transformer.wte.weight
    lab.model = other.model
    assert lab.W is other.model.transformer.wte.weight


def test_a_precision_brings_its_optimizer_and_its_dtype(workspace: Path, tmp_path: Path) -> None:
    lab = open_on_cpu(workspace, precision="bf16-weights")
    args = lab.make_training_args(1, learning_rate=1e-2)
    kind, keywords = lab.optimizer(args) or (None, {})
    assert kind is OwnAdamW
    assert (keywords["lr"], keywords["betas"]) == (1e-2, (0.9, 0.999))
    recorder = WRecorder(1)
    lab.train(1, [recorder], output_dir=str(tmp_path), learning_rate=1e-2)
    ((step, snapshot),) = recorder.snapshots
    assert (step, snapshot.dtype) == (1, torch.bfloat16)
    assert torch.equal(snapshot, lab.W)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"learning_rat": 1e-3}, "learning_rat is an unknown setting; known are engine, optimizer, batch_size, "),
        ({"steps": 10}, "steps is no setting of an open experiment: give the number to train or make_training_args"),
        ({"eval_steps": 10}, "eval_steps is no setting of an open experiment: it is duckling-train's"),
        ({"n_positions": 256}, "rows of 512 tokens, expected 256"),
        ({"device": "tpu"}, "'tpu'"),
    ],
)
def test_bad_settings_are_refused_by_name(workspace: Path, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        duckling_ii(workspace, **settings)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_workspace_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run duckling-data pack"):
        duckling_ii(tmp_path)


def test_a_recorder_that_would_record_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="record_every is 0; it must be at least 1"):
        WRecorder(record_every=0)


def test_the_dataset_is_the_one_that_the_seed_loads(workspace: Path) -> None:
    """Types and values, by row, by slice and shuffled; only it lies in no folder."""
    from datasets import load_from_disk

    ours = open_on_cpu(workspace).dataset
    seeds = load_from_disk(str(workspace / "tokenized_dataset")).with_format("numpy")
    assert (len(ours), ours.features, ours.format) == (len(seeds), seeds.features, seeds.format)
    for pair in ((ours, seeds), (ours.shuffle(seed=7), seeds.shuffle(seed=7))):
        for index in (0, len(ours) - 1, slice(3, 9)):
            found, expected = (dataset[index]["input_ids"] for dataset in pair)
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
    assert ours.cache_files == []


def test_nothing_beside_the_rows_is_opened(workspace: Path, tmp_path: Path) -> None:
    """A pickle, a record of other features, a cache that says what a step of the notebook makes: none is looked at."""
    copy = Path(shutil.copytree(workspace, tmp_path / "w", ignore=shutil.ignore_patterns("gpt2", "experiment")))
    folder = copy / "tokenized_dataset"
    whole = open_on_cpu(copy).dataset
    for name in ("dataset_info.json", "cache.pkl", "cache-0000000000000000.arrow", "tokenized_dataset.py"):
        (folder / name).write_bytes(b"\x80\x04cnt\nsystem\n")
    assert np.array_equal(open_on_cpu(copy).dataset[5]["input_ids"], whole[5]["input_ids"])
    before = {path.name for path in folder.iterdir()}
    open_on_cpu(copy).dataset.map(lambda row: {"first": row["input_ids"][0]})
    assert {path.name for path in folder.iterdir()} == before, "a step of the notebook left a cache in the workspace"
