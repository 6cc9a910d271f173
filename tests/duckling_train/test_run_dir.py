"""The run directory: what a finished run holds, and what is never overwritten."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from duckling_data.base.errors import InputError
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_train.config import TrainConfig
from duckling_train.engines.fast.compiled import usable
from duckling_train.plot import loss_plot, running_mean
from duckling_train.runs import layout as places
from duckling_train.runs.fit import tokens_seen
from duckling_train.runs.generate import NEW_TOKENS, PROMPTS
from tests.support.train import STEPS, Ran


def test_run_holds_the_designs_files_and_nothing_else(run: Ran) -> None:
    assert {path.name for path in run.run_dir.iterdir()} == {
        "config.json", "metrics.jsonl", "dynamics.jsonl", "summary.json", "loss.png", "model", "samples.txt",
        "manifest.json",
    }  # fmt: skip


def test_manifest_lists_every_file_with_its_hash_and_names_the_data(run: Ran, workspace: Path) -> None:
    manifest = run.json("manifest.json")
    found = {path.relative_to(run.run_dir).as_posix() for path in run.run_dir.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == found - {"manifest.json"}
    for name, record in manifest["files"].items():
        content = (run.run_dir / name).read_bytes()
        assert record == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    from datasets import load_from_disk

    rows = load_from_disk(str(workspace / "tokenized_dataset"))["input_ids"]
    payload = hashlib.sha256(b"".join(np.array(row, dtype="<u2").tobytes() for row in rows)).hexdigest()
    assert manifest["dataset"] == {"payload_sha256": payload, "rows": len(rows), "context": 512}
    mapping = hashlib.sha256((workspace / "token_mapping.json").read_bytes()).hexdigest()
    assert manifest["mapping"] == {"sha256": mapping}


def test_no_path_or_clock_enters_the_deterministic_files(run: Ran, workspace: Path) -> None:
    logs = ("metrics.jsonl", "dynamics.jsonl")
    for name in ("config.json", "manifest.json", *logs, "model/config.json", "model/generation_config.json"):
        text = (run.run_dir / name).read_text()
        assert str(workspace) not in text
        assert str(run.run_dir) not in text
        assert "seconds" not in text


def test_config_states_the_whole_recipe_and_the_data(run: Ran) -> None:
    assert run.json("config.json") == {
        "engine": "fast", "arithmetic": "float32", "compile": "yes" if usable("float32") else "no",
        "optimizer": "adamw", "adam_epsilon": 1e-8, "activation": "gelu", "dropout": 0.0,
        "steps": STEPS, "batch_size": 2, "learning_rate": 1e-4, "schedule": "linear", "warmup_steps": 0,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "betas": [0.9, 0.999], "precision": "fp32", "seed": 42,
        "data_seed": None, "n_layer": 2, "n_embd": 128, "n_head": 2, "tied": True, "n_positions": 512,
        "vocab_size": 8192, "logging_steps": 10, "eval_steps": 0, "eval_rows": 128, "checkpoint_steps": 1000,
        "keep_checkpoints": False, "report_to": "none", "device": "cpu", "threads": torch.get_num_threads(),
        "processes": 1, "n_inner": 512,
        "inputs": {name: run.json("manifest.json")[name] for name in ("dataset", "mapping")},
    }  # fmt: skip


def test_metrics_lines_and_summary_agree(run: Ran) -> None:
    summary = run.json("summary.json")
    assert [list(line) for line in run.metrics] == [["step", "loss", "learning_rate", "grad_norm"]] * 4
    assert [line["step"] for line in run.metrics] == [1, 10, 20, 30]
    assert summary["first_loss"] == run.metrics[0]["loss"]
    assert summary["last_loss"] == run.metrics[-1]["loss"] < summary["first_loss"]
    assert summary["parameters"] == 1_510_912
    assert summary["tokens"] == STEPS * 2 * 512
    assert summary["steps_per_second"] == pytest.approx(STEPS / summary["seconds"], rel=0.01)
    assert set(summary["versions"]) == {
        "python",
        "duckling",
        "torch",
        "transformers",
        "accelerate",
        "datasets",
        "numpy",
    }


def test_model_opens_with_its_tokenizer_and_says_the_samples(run: Ran, capfd: pytest.CaptureFixture[str]) -> None:
    """`from_pretrained` and `generate`, as a user would: without a warning, and greedily what samples.txt holds."""
    model = AutoModelForCausalLM.from_pretrained(run.run_dir / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_510_912
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    tokenizer = DucklingTokenizer.from_pretrained(run.run_dir / "model")
    blocks = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        for _ in range(NEW_TOKENS):  # greedy decoding spelt out
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        blocks.append(f"> {prompt}\n{tokenizer.decode(ids)}\n\n")
    told, samples = (run.run_dir / "samples.txt").read_text().split("\n\n", 1)
    assert "too few for sentences" in told
    assert samples == "".join(blocks)
    capfd.readouterr()
    model.generate(torch.tensor([tokenizer.encode("The dog")]), max_new_tokens=2, do_sample=False)
    assert "warn" not in capfd.readouterr().err.lower()


def test_equal_losses_give_an_equal_plot_and_others_another() -> None:
    steps, losses = [1, 10, 20], [9.0, 8.5, 8.0]
    plot = loss_plot(steps, losses, "title", 8192)
    assert plot.startswith(b"\x89PNG")
    assert plot == loss_plot(steps, losses, "title", 8192)
    assert plot != loss_plot(steps, [9.0, 8.5, 7.0], "title", 8192)


@pytest.mark.parametrize("last", [float("nan"), float("inf")])
def test_a_run_that_blew_up_is_plotted(last: float) -> None:
    assert loss_plot([1, 10, 20], [9.0, 8.5, last], "title", 8192).startswith(b"\x89PNG")


def test_running_mean_is_over_the_last_tenth_so_far() -> None:
    values = [float(value) for value in range(1, 31)]
    expected = [*values[:19], 19.5, 20.5, 21.5, 22.5, 23.5, 24.5, 25.5, 26.5, 27.5, 28.5, 29.0]
    assert running_mean(values).tolist() == expected


@pytest.mark.parametrize(("steps", "rows", "expected"), [(1, 5, 2), (3, 5, 5), (4, 5, 7), (6, 5, 10), (2, 1, 2)])
def test_tokens_seen_counts_an_epochs_short_last_batch(steps: int, rows: int, expected: int) -> None:
    assert tokens_seen(TrainConfig(steps=steps, batch_size=2), rows) == expected * 512


def test_overwrite_removes_a_runs_own_files_only(tmp_path: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("x")
    with pytest.raises(InputError, match="an unfinished run"):
        places.prepare(tmp_path, overwrite=False)
    places.prepare(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_no_run_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a run"):
        places.prepare(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_empty_directory_is_taken_and_a_file_is_not(tmp_path: Path) -> None:
    places.prepare(tmp_path, overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a directory"):
        places.prepare(tmp_path / "file", overwrite=True)
    with pytest.raises(InputError, match="cannot make the run directory"):
        places.prepare(tmp_path / "file" / "below", overwrite=True)


def test_manifest_ignores_files_that_are_not_the_runs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    places.write_manifest(tmp_path, {})
    assert list(json.loads((tmp_path / "manifest.json").read_text())["files"]) == ["config.json"]


def test_the_model_and_the_logs_are_on_the_disk_before_anything_names_them(
    run: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of `model/` and the folder are flushed before the rename, its place after, the logs before the
    manifest: what a power cut takes is never listed."""
    happened: list[tuple[str, int]] = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(handle: int) -> None:
        fsync(handle)
        happened.append(("flushed", os.fstat(handle).st_ino))

    def noting_rename(source: str, *rest: Any, **more: Any) -> None:
        happened.append(("renamed", Path(source).stat().st_ino))
        rename(source, *rest, **more)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    model = AutoModelForCausalLM.from_pretrained(run.run_dir / "model")
    places.save_model(tmp_path, model, DucklingTokenizer.from_pretrained(run.run_dir / "model"))
    folder = tmp_path / "model"
    renamed = happened.index(("renamed", folder.stat().st_ino))
    before, after = happened[:renamed], happened[renamed:]
    assert {("flushed", path.stat().st_ino) for path in (folder, *folder.iterdir())} <= set(before)
    assert ("flushed", tmp_path.stat().st_ino) in after
    places.write_manifest(tmp_path, {})
    order = [inode for what, inode in happened[len(before) + len(after) - 1 :] if what == "flushed"]
    assert order.index((tmp_path / "metrics.jsonl").stat().st_ino) < order.index(
        (tmp_path / "manifest.json").stat().st_ino
    )


def test_what_a_killed_process_left_of_a_model_is_in_none(run: Ran, tmp_path: Path) -> None:
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "pytorch_model.bin").write_bytes(b"half")
    model = AutoModelForCausalLM.from_pretrained(run.run_dir / "model")
    places.save_model(tmp_path, model, DucklingTokenizer.from_pretrained(run.run_dir / "model"))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        path.name for path in (run.run_dir / "model").iterdir()
    }
