"""A checkpoint whose hashes are right and whose content is not the run's is refused in one line, by `--resume` and
`verify`, and so is a model's file in `generate`: nothing of it is loaded."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.strict_json import digest_json
from duckling_data.workspace.manifest import describe_output
from duckling_train.runs.checkpoint import RECORD_DIGEST
from duckling_train.runs.generate import open_model
from duckling_train.runs.layout import write_manifest
from duckling_train.runs.verify import verify_run
from tests import forked
from tests.duckling_train.conftest import TINY_SHAPE

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
    record["files"] = {name: describe_output(place / name) for name in record["files"]}
    (place / "checkpoint.json").write_text(json.dumps(record | {RECORD_DIGEST: digest_json(record)}))


def resumed(run_dir: Path, workspace: Path) -> tuple[int, str]:
    """The exit status of `--resume`, and the last thing it said."""
    ran = forked.run(CLI, "--resume", run_dir, "-w", workspace, output=run_dir.with_suffix(".resumed"))
    assert "Traceback" not in ran.stderr
    said = [line for line in ran.stderr.splitlines() if line.startswith("duckling-train: ")]
    assert len(said) <= 1
    return ran.wait(), said[0] if said else ""


def assert_refused(run_dir: Path, workspace: Path, *parts: str, by_verify: bool = True) -> None:
    status, said = resumed(run_dir, workspace)
    assert status == 2, said
    if by_verify:
        with pytest.raises(CheckFailed) as found:
            list(verify_run(run_dir, run_dir))
        assert parts[-1] in str(found.value)
    for part in (f"{run_dir / STEP}", *parts, "remove step-00000010 to go on from the checkpoint before it"):
        assert part in said
    assert not (run_dir / "manifest.json").exists()


def test_a_checkpoint_that_is_signed_again_goes_on_to_the_same_weights(
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


SHAPE = "[512, 16]"
FLOATS = f"torch.float32 {SHAPE}"


@pytest.mark.parametrize(
    ("file", "edit", "says"),
    [
        ("weights", changed(WEIGHT, lambda t: t[:-1].clone()), f"is torch.float32 [511, 16], expected {FLOATS}"),
        ("weights", changed(WEIGHT, lambda t: t.T.contiguous()), f"{WEIGHT} is torch.float32 [16, 512], expected"),
        ("weights", changed(WEIGHT, lambda t: t.bfloat16()), f"{WEIGHT} is torch.bfloat16 {SHAPE}, expected"),
        ("weights", changed(WEIGHT, lambda t: t.int()), f"{WEIGHT} is I32 {SHAPE}, expected torch.float32 {SHAPE}"),
        ("weights", changed(WEIGHT, lambda t: None), f"{WEIGHT} is missing; expected torch.float32 {SHAPE}"),
        ("weights", added("more\n", 2), '"more\\n" was added: the model has no such tensor'),
        ("weights", lambda tensors: {}, "is missing; expected torch.float32"),
        ("optimizer", changed(MOMENT, lambda t: t[:-1].clone()), f"{MOMENT} is torch.float32 [511, 16], expected"),
        ("optimizer", changed(MOMENT, lambda t: t.bfloat16()), f"{MOMENT} is torch.bfloat16 {SHAPE}, expected"),
        ("optimizer", changed(MOMENT, lambda t: None), f"{MOMENT} is missing; expected torch.float32 {SHAPE}"),
        ("optimizer", changed(f"step/{WEIGHT}", lambda t: torch.zeros(3)), "[3], expected torch.float32 []"),
        ("optimizer", added(f"max_exp_avg_sq/{WEIGHT}", 512, 16), f"max_exp_avg_sq/{WEIGHT} was added"),
        ("optimizer", added("no slash", 1), "no slash was added"),
        ("optimizer", added("exp_avg/no.such.weight", 1), "exp_avg/no.such.weight was added"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_the_models_are_named(
    stopped: Path, tiny_workspace: Path, file: str, edit: Callable[[Tensors], Tensors], says: str
) -> None:
    path = stopped / STEP / f"{file}.safetensors"
    path.write_bytes(safetensors.torch.save(edit(safetensors.torch.load_file(path))))
    sign(stopped / STEP)
    assert_refused(stopped, tiny_workspace, path.name, says)


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


HEADERS = [
    b"",
    b"\x00" * 7,
    raw(b"{}", length=2**63),
    raw(b"{}", length=10**8 + 1),
    raw(b"[" * 100_000),
    raw(b'{"a":' * 100_000),
    raw(json.dumps({"a": entry(), "b": entry()}).encode(), bytes(8)),  # one place for two tensors
    raw(json.dumps({"a": entry(data_offsets=[8, 0])}).encode(), bytes(8)),
    raw(json.dumps({"a": entry()}).encode(), bytes(7)),
    raw(json.dumps({"a": entry()}).encode(), bytes(9)),
    raw(json.dumps({"a": entry(shape=[2**62, 2**62])}).encode(), bytes(8)),
    raw(json.dumps({"a": entry(dtype="\x1b[31mred")}).encode(), bytes(8)),
]


@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_a_hostile_header_is_one_line(
    stopped: Path, finished: Path, tiny_workspace: Path, tmp_path: Path, content: bytes
) -> None:
    (stopped / STEP / "optimizer.safetensors").write_bytes(content)
    sign(stopped / STEP)
    assert_refused(stopped, tiny_workspace, "optimizer.safetensors is no safetensors file that can be read (")

    whole = Path(shutil.copytree(finished, tmp_path / "finished"))
    (whole / "model/model.safetensors").write_bytes(content)
    write_manifest(whole, json.loads((whole / "config.json").read_text())["inputs"])
    assert_model_refused(whole, "")


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
        (("groups",), [], "has 0 groups of parameters, expected 2"),
        (("groups", 0), None, "group 0 holds None, expected an object with amsgrad"),
        (("groups", 0, "betas"), 7, "group 0 has betas 7, expected [0.9, 0.999]"),
        (("groups", 1, "lr"), "fast", "group 1 has lr 'fast'"),
        (("groups", 1, "lr"), -1, "group 1 has lr -1"),
        (("groups", 0, "params"), [1], "group 0 holds "),
        (("groups", 0, "fused"), True, "group 0 has fused True, expected None"),
        (("groups", 0, "amsgrad"), 0, "group 0 has amsgrad 0, expected False"),
        (("schedule",), {}, "schedule holds []"),
        (("schedule", "last_epoch"), "10", "schedule has last_epoch '10'"),
        (("schedule", "_step_count"), True, "schedule has _step_count True"),
        (("schedule", "_last_lr"), [None, None], "schedule has _last_lr [None, None]"),
        (("schedule", "base_lrs"), [1, 1], "schedule has base_lrs [1, 1], expected [0.0001, 0.0001]"),
        (("schedule", "lr_lambdas"), [{"func": 1}, {}], "schedule has lr_lambdas [{'func': 1}, {}], expected [{}, {}]"),
        (("last_logged",), 11, "has last_logged 11"),
        (("seconds",), -5.0, "seconds -5.0"),
    ],
)
def test_a_state_that_is_not_the_runs_is_named(
    stopped: Path, tiny_workspace: Path, keys: tuple[str | int, ...], value: Any, says: str
) -> None:
    sign(stopped / STEP, edited("state", *keys, value=value))
    # Groups and schedule are the optimizer's, which `verify` does not build.
    assert_refused(stopped, tiny_workspace, says, by_verify=keys[0] in ("last_logged", "seconds"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", "one"), ("max_steps", 40), ("max_steps", 20.0), ("save_steps", None), ("num_train_epochs", 0.5),
        ("total_flos", []), ("train_batch_size", "2"), ("log_history", {}), ("is_hyper_param_search", 0),
        ("best_model_checkpoint", "/elsewhere"), ("stateful_callbacks", {"TrainerControl": {}}),
        ("trial_params", {"a": 1}),
    ],
)  # fmt: skip
def test_counters_that_are_not_the_trainers_are_named(
    stopped: Path, tiny_workspace: Path, name: str, value: Any
) -> None:
    path = stopped / STEP / "trainer_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    sign(stopped / STEP)
    assert_refused(stopped, tiny_workspace, f"trainer_state.json has {name} {value!r}, expected ")


def test_counters_of_another_library_are_refused(stopped: Path, tiny_workspace: Path) -> None:
    path = stopped / STEP / "trainer_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unknown": 1}))
    sign(stopped / STEP)
    assert_refused(stopped, tiny_workspace, "expected an object with best_global_step, ")


def assert_model_refused(run_dir: Path, says: str) -> None:
    with pytest.raises(InputError) as refused:
        open_model(run_dir)
    with pytest.raises(CheckFailed) as found:
        list(verify_run(run_dir, run_dir))
    for error in (refused, found):
        assert f"{run_dir / 'model'}" in str(error.value)
        assert says in str(error.value)
        assert len(str(error.value).splitlines()) == 1
        assert str(error.value).isprintable()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[:-1].clone(), f"{WEIGHT} is torch.float32 [511, 16], expected torch.float32 [512, 16]"),
        (lambda t: t.int(), f"{WEIGHT} is I32 [512, 16], expected "),
        (lambda t: None, f"{WEIGHT} is missing; expected "),
    ],
)
def test_a_models_file_with_other_tensors_is_never_opened(
    finished: Path, tmp_path: Path, signed: bool, change: Callable[[torch.Tensor], Any], says: str
) -> None:
    """Not where the manifest says that it is right, and not where there is no manifest yet."""
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run_dir / "model/model.safetensors"
    path.write_bytes(safetensors.torch.save(changed(WEIGHT, change)(safetensors.torch.load_file(path))))
    if signed:
        write_manifest(run_dir, json.loads((run_dir / "config.json").read_text())["inputs"])
        assert_model_refused(run_dir, says)
    else:
        (run_dir / "manifest.json").unlink()
        with pytest.raises(InputError, match=r"model\.safetensors: .*expected"):
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
