"""A checkpoint or model of somebody else, whole by its own hashes and not the run's, is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.records import describe, plain
from duckling_data.base.strict_json import digest_json
from duckling_train.engines.state import load_weights
from duckling_train.runs.checkpoint import RECORD_DIGEST
from duckling_train.runs.layout import write_manifest
from duckling_train.runs.open import open_model
from duckling_train.runs.resume import resume
from duckling_train.runs.verify import verify_run
from tests.support import forked
from tests.support.headers import HEADERS
from tests.support.train import TINY_SHAPE

CLI = "duckling_train.cli"
STEP = "checkpoints/step-00000010"
WEIGHT, MOMENT = "transformer.wte.weight", "exp_avg_sq/transformer.wte.weight"

Tensors = dict[str, torch.Tensor]
Edit = Callable[[Any], Any]


@pytest.fixture(scope="module")
def finished(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 20 steps that keeps the checkpoint of step 10."""
    run_dir = tmp_path_factory.mktemp("foreign") / "run"
    settings = (*TINY_SHAPE, "--steps", "20", "--checkpoint-steps", "10", "--keep-checkpoints")
    ran = forked.run(CLI, "--out", run_dir, "-w", tiny_workspace, *settings, output=run_dir.with_suffix(".output"))
    assert ran.wait() == 0, ran.stderr
    return run_dir


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """The run as a kill after step 10 leaves it."""
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in ("manifest.json", "summary.json", "loss.png", "samples.txt"):
        (run_dir / name).unlink()
    for name in ("model", "checkpoints/step-00000020"):
        shutil.rmtree(run_dir / name)
    return run_dir


def sign(place: Path, edit_record: Edit = lambda record: None) -> None:
    """Give a checkpoint the digests of what is in it now, and of its record."""
    record = json.loads((place / "checkpoint.json").read_text())
    del record[RECORD_DIGEST]
    edit_record(record)
    record["files"] = {name: plain(describe(place / name)) for name in record["files"]}
    (place / "checkpoint.json").write_text(json.dumps(record | {RECORD_DIGEST: digest_json(record)}))


def resumed(run_dir: Path, workspace: Path) -> tuple[int, str]:
    """The exit status of `--resume`, and the last thing it said."""
    ran = forked.run(CLI, "--resume", run_dir, "-w", workspace, output=run_dir.with_suffix(".resumed"))
    assert "Traceback" not in ran.stderr
    said = [line for line in ran.stderr.splitlines() if line.startswith("duckling-train: ")]
    assert len(said) <= 1
    return ran.wait(), said[0] if said else ""


def assert_refused(run_dir: Path, workspace: Path, *parts: str) -> None:
    with pytest.raises(InputError) as refused:
        resume(run_dir, workspace, {}, quiet=True)
    for part in (f"{run_dir / STEP}", *parts, "to resume from the"):
        assert part in str(refused.value)
    assert not (run_dir / "manifest.json").exists()


def test_a_checkpoint_that_is_signed_again_resumes_to_the_same_weights(
    stopped: Path, finished: Path, tiny_workspace: Path
) -> None:
    sign(stopped / STEP)
    assert resumed(stopped, tiny_workspace) == (0, "")
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (stopped / name).read_bytes() == (finished / name).read_bytes()


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Tensors], Tensors]:
    def edit(tensors: Tensors) -> Tensors:
        tensor = change(tensors.pop(name))
        return tensors if tensor is None else tensors | {name: tensor}

    return edit


def added(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("file", "edit", "says"),
    [
        ("weights", changed(WEIGHT, lambda t: t[:-1].clone()), "[511, 16], expected torch.float32 [512, 16]"),
        ("weights", changed(WEIGHT, lambda t: t.bfloat16()), "torch.bfloat16 [512, 16], expected torch.float32"),
        ("weights", changed(WEIGHT, lambda t: None), f"{WEIGHT} is absent, expected torch.float32"),
        ("weights", added("more\n", 2), "is torch.float32 [2], expected absent"),
        ("optimizer", changed(MOMENT, lambda t: None), f"{MOMENT} is absent, expected torch.float32"),
        ("optimizer", changed(f"step/{WEIGHT}", lambda t: torch.zeros(3)), "[3], expected torch.float32 []"),
        ("optimizer", added("no slash", 1), "no slash is torch.float32 [1], expected absent"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_the_models_are_named(
    stopped: Path, tiny_workspace: Path, file: str, edit: Callable[[Tensors], Tensors], says: str
) -> None:
    path = stopped / STEP / f"{file}.safetensors"
    path.write_bytes(safetensors.torch.save(edit(safetensors.torch.load_file(path))))
    sign(stopped / STEP)
    assert_refused(stopped, tiny_workspace, path.name, says)


@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_a_hostile_header_is_one_line(finished: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a safetensors file that can be read") as refused:
        load_weights(torch.nn.Linear(2, 2), tmp_path)
    assert len(str(refused.value).splitlines()) == 1
    whole = Path(shutil.copytree(finished, tmp_path / "finished"))
    (whole / "model/model.safetensors").write_bytes(content)
    write_manifest(whole, json.loads((whole / "config.json").read_text())["inputs"])
    assert_model_refused(whole, "")


def test_a_hostile_header_ends_the_command_in_one_line(stopped: Path, tiny_workspace: Path) -> None:
    (stopped / STEP / "optimizer.safetensors").write_bytes(HEADERS[4])
    sign(stopped / STEP)
    status, said = resumed(stopped, tiny_workspace)
    assert status == 2
    assert f"{stopped / STEP}/optimizer.safetensors: not a safetensors file that can be read (" in said


def edited(*keys: str | int, value: Any) -> Edit:
    """Return an edit that sets the entry at `keys`."""

    def edit(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("last_logged",), -1, "Expected `int` >= 0"),
        (("running_loss",), None, "Expected `float`, got `null`"),
    ],
)
def test_a_state_that_is_not_the_engines_is_one_line(
    stopped: Path, tiny_workspace: Path, keys: tuple[str | int, ...], value: Any, says: str
) -> None:
    sign(stopped / STEP, edited("state", *keys, value=value))
    assert_refused(stopped, tiny_workspace, says)


def assert_model_refused(run_dir: Path, says: str) -> None:
    with pytest.raises(InputError) as refused:
        open_model(run_dir)
    with pytest.raises(CheckFailed) as found:
        list(verify_run(run_dir, run_dir))
    assert says in str(refused.value)
    for error in (refused, found):
        assert f"{run_dir / 'model'}" in str(error.value)
        assert len(str(error.value).splitlines()) == 1
        assert str(error.value).isprintable()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[:-1].clone(), ""),
        (lambda t: None, "its weights are not those of its config.json: "),
    ],
)
def test_a_model_with_other_tensors_than_its_settings_is_not_opened(
    finished: Path, tmp_path: Path, signed: bool, change: Callable[[torch.Tensor], Any], says: str
) -> None:
    """Not where a manifest lists it, and not where there is no manifest yet."""
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run_dir / "model/model.safetensors"
    path.write_bytes(safetensors.torch.save(changed(WEIGHT, change)(safetensors.torch.load_file(path))))
    if signed:
        write_manifest(run_dir, json.loads((run_dir / "config.json").read_text())["inputs"])
        assert_model_refused(run_dir, says)
    else:
        (run_dir / "manifest.json").unlink()
        with pytest.raises(InputError, match="cannot be opened"):
            open_model(run_dir)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_inner": 10**15},
        {"activation_function": "none"},
        {"dtype": "no"},
        {"n_head": 5},
        {"n_layer": 3},
        {"n_embd": 8},
    ],
)
def test_a_models_settings_that_do_not_fit_its_weights_are_one_line(
    finished: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    (run_dir / "manifest.json").unlink()
    path = run_dir / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(InputError) as refused:
        open_model(run_dir)
    assert str(refused.value).startswith(f"{run_dir / 'model'}")
    assert len(str(refused.value).splitlines()) == 1
