"""The laws of runs in a notebook: a lab follows its workspace, writes a run of what it trained, and opens one."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from duckling_data.base.errors import InputError, OutsideError
from duckling_train import Experiment, LossTracker, WRecorder, duckling_ii, open_run
from duckling_train.config import naming_flags
from duckling_train.runs.layout import make_folder
from duckling_train.runs.verify import verify_run
from tests.support.train import make_workspace, sentences, with_validation


@pytest.fixture
def tiny(tiny_workspace: Path, tmp_path: Path) -> Path:
    """The tiny workspace, in a folder in which runs may be written."""
    return with_validation(tiny_workspace, tmp_path / "w")


def open_tiny(workspace: Path, **settings: Any) -> Experiment:
    return duckling_ii(workspace, **{"device": "cpu", "precision": "fp32", "n_embd": 16, "threads": 1, **settings})


def test_training_leaves_no_empty_folder_and_keeps_one_with_something_in_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "notebooks"
    here.mkdir()
    monkeypatch.chdir(here)
    lab = open_tiny(tiny)
    lab.train(1)
    assert list(here.iterdir()) == []
    (here / "experiment").mkdir()
    lab.train(1)
    assert [path.name for path in here.iterdir()] == ["experiment"], "the user's own"
    lab.train(1, output_dir="saved", save_strategy="steps", save_steps=1)
    assert (here / "saved" / "checkpoint-1").is_dir()


def test_a_lab_takes_the_workspaces_own_context_and_vocabulary(tiny: Path) -> None:
    lab = open_tiny(tiny)
    assert (lab.config.n_positions, lab.config.vocab_size, len(lab.dead_token_ids)) == (64, 512, 64)
    with pytest.raises(InputError, match=r"rows of 64 tokens, expected 32: leave n_positions out"):
        open_tiny(tiny, n_positions=32)
    with pytest.raises(InputError, match=r"total_vocab 512, the model 8192 rows: leave vocab_size out"):
        open_tiny(tiny, vocab_size=8192)


def test_train_writes_a_run_and_the_run_opens_as_a_lab(tiny: Path) -> None:
    plain, lab = open_tiny(tiny, dropout=0.1), open_tiny(tiny, dropout=0.1)
    expected = plain.train(4, logging_steps=2)
    recorder, w = WRecorder(2), lab.W
    tracker = lab.train(4, [recorder], run="first", logging_steps=2)
    assert (tracker.steps, tracker.losses) == (expected.steps, expected.losses)
    assert torch.equal(lab.W, plain.W)
    assert lab.W is w
    assert [step for step, _ in recorder.snapshots] == [2, 4]
    assert list(verify_run(tiny / "runs" / "first", tiny))

    run = open_run("first", tiny)
    assert (run.losses, run.settings["steps"], run.settings["dropout"]) == (tracker.losses, 4, 0.1)
    again = run.lab()
    assert torch.equal(again.W, lab.W)
    assert again.config == dataclasses.replace(lab.config, steps=4, logging_steps=2, engine="reference")
    assert again.train(2, logging_steps=1).losses == lab.train(2, logging_steps=1).losses, (
        "both go on from the same weights in the same way"
    )


def test_a_model_that_was_changed_is_trained_as_it_is(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fast engine would not follow the change: auto takes the Trainer and says so, `fast` is refused."""
    plain, changed, fast = (open_tiny(tiny, engine=engine) for engine in ("reference", "auto", "fast"))
    for lab in (plain, changed, fast):
        lab.model.transformer.h[0].mlp.act = torch.nn.ReLU()
    assert changed.train(3, logging_steps=1).losses == plain.train(3, logging_steps=1).losses
    assert "engine reference: the fast engine does not compute this model here" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"does not compute this model here: .*engine='reference'"):
        fast.train(3)
    for parameter in changed.model.parameters():
        parameter.requires_grad_(requires_grad=False)
    changed.W.requires_grad_(requires_grad=True)
    before = changed.model.transformer.wpe.weight.clone()
    changed.train(2)
    assert torch.equal(changed.model.transformer.wpe.weight, before), "what is frozen stays"


def test_each_run_of_a_process_has_its_own_tensorboard_files(tiny: Path) -> None:
    for name in ("one", "two"):
        open_tiny(tiny, report_to="tensorboard").train(2, run=name)
        assert len(list((tiny / "runs" / name / "tensorboard").iterdir())) == 1


def test_a_run_is_refused_where_its_directory_would_not_say_what_was_trained(tiny: Path) -> None:
    lab = open_tiny(tiny)
    for given, complaint in (
        ({"weight_dekay": 0.0}, "weight_dekay is no field of TrainConfig"),
        ({"callbacks": [LossTracker()]}, "callback LossTracker could change"),
        ({"seed": 7}, "model is not the untrained one of these settings"),
        ({"run": "a/b"}, "run is 'a/b'; it must be one file name"),
    ):
        with pytest.raises(InputError, match=complaint):
            lab.train(1, **{"run": "first", **given})
    rows = lab.dataset
    lab.dataset = rows.select(range(3))
    with pytest.raises(InputError, match="dataset is not the workspace's"):
        lab.train(1, run="first")
    lab.dataset = rows
    lab.W.data[0] += 1
    with pytest.raises(InputError, match="model is not the untrained one"):
        lab.train(1, run="first")
    assert not (tiny / "runs").exists()
    open_tiny(tiny).train(1, run="first")
    with pytest.raises(InputError, match=r"already holds a run: give another run, or overwrite=True$"):
        open_tiny(tiny).train(1, run="first")
    open_tiny(tiny).train(2, run="first", overwrite=True)
    assert open_run("first", tiny).settings["steps"] == 2


def test_a_lab_of_a_run_on_other_data_is_refused(tiny: Path, tmp_path: Path) -> None:
    open_tiny(tiny).train(1, run="first")
    other = make_workspace(tmp_path / "other", sentences(31), live=448, dead=64, context=64)
    shutil.copytree(tiny / "runs", other / "runs")
    with pytest.raises(InputError, match=f"was trained on another dataset than {other} holds"):
        open_run("first", other).lab()


def test_a_call_is_advised_of_no_flag_and_a_command_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tiny(tiny).train(1, run="first")
    (tiny / "runs" / "first" / "manifest.json").write_text('{"files": 3}')
    with pytest.raises(InputError, match="train the run again with duckling-train --overwrite"):
        open_run("first", tiny)

    def full(*_given: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OutsideError, match="free some or choose another workspace"):
        make_folder(tiny / "new", tiny / "new")
    with pytest.raises(OutsideError, match="free some or choose another --out"), naming_flags():
        make_folder(tiny / "new", tiny / "new")


@pytest.mark.parametrize("extras", [{"record": "dead"}, {"checkpoint_steps": 5}, {"eval_steps": 2}], ids=str)
def test_a_setting_of_a_run_is_refused_where_no_run_is_written(tiny: Path, extras: dict[str, Any]) -> None:
    """It would be ignored."""
    lab = open_tiny(tiny)
    with pytest.raises(InputError, match=f"{next(iter(extras))} is a setting of a run: give run= the run's name"):
        lab.train(2, **extras)
    lab.train(2, run="recorded", **extras)
