"""The recorder on real training: it records what a hook sees, changes no bit, and goes on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from duckling_data.base.errors import InputError
from duckling_train import Recorder, WRecorder, duckling_ii, open_run
from duckling_train.config import TrainConfig
from duckling_train.engines.base import GRADIENT, GRADIENT_PARTS, HIDDEN, PROBABILITIES, Hook, StepView
from duckling_train.recording.codec import bf16_bits
from duckling_train.recording.record import Record
from duckling_train.runs.train import train
from tests.support import forked
from tests.support.train import TINY_SHAPE, Ran, duckling_train

ENGINES = ["fast", "reference"]
DEAD = range(448, 512)
TINY: dict[str, Any] = {
    "n_positions": 64, "vocab_size": 512, "n_embd": 16, "device": "cpu", "threads": 1, "precision": "fp32", "steps": 20,
}  # fmt: skip
ALL = "W,grad,exp_avg,exp_avg_sq,h_mean,p_dead"


class Kept(Hook):
    """Keeps copies of all that a recorder may record."""

    needs = frozenset({GRADIENT, GRADIENT_PARTS, HIDDEN, PROBABILITIES})

    def __init__(self) -> None:
        self.steps: dict[str, list[torch.Tensor]] = {}

    def keep(self, **tensors: Any) -> None:
        for name, tensor in tensors.items():
            self.steps.setdefault(name, []).append(tensor.detach().clone())

    def begin(self, view: StepView) -> None:
        self.keep(W=view.W)

    def step(self, view: StepView) -> None:
        assert view.gradient_parts is not None
        assert view.moments is not None
        assert view.hidden is not None
        assert view.probabilities is not None
        self.keep(W=view.W, grad_in=view.gradient_parts[0], grad_out=view.gradient_parts[1])
        self.keep(exp_avg=view.moments[0], exp_avg_sq=view.moments[1], p_dead=view.probabilities)
        self.keep(h_mean=view.hidden[:, :-1].float().mean((0, 1)))


def as_bits(tensor: Any) -> bytes:
    return bytes(torch.as_tensor(tensor).float().numpy().tobytes())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["fp32", "bf16-pure"])
def test_law_18_what_is_read_back_is_bit_for_bit_what_a_hook_saw(
    tiny_workspace: Path, tmp_path: Path, engine: str, precision: str
) -> None:
    kept, run = Kept(), tmp_path / "run"
    config = TrainConfig(**{**TINY, "precision": precision}, engine=engine, record="dead", record_tensors=ALL)
    train(config, tiny_workspace, run, hooks=[kept], quiet=True)
    record = open_run(run).record
    assert record.steps.tolist() == list(range(21))
    assert record.rows.tolist() == list(DEAD)
    assert record.dead.all()
    assert record.dtype == ("bfloat16" if precision == "bf16-pure" else "float32")
    assert set(record.tensors) == {"W", "grad_in", "grad_out", "exp_avg", "exp_avg_sq", "h_mean", "p_dead"}
    for name, tensors in kept.steps.items():
        first = 0 if name == "W" else 1
        if first:
            assert not record[name][0].any(), "there is none at step 0"
        rows = [tensor if name == "h_mean" else tensor[list(DEAD)] for tensor in tensors]
        assert record[name][first:].tobytes() == b"".join(map(as_bits, rows)), name
    assert not record["grad_in"][:].any(), "law 1"


def trained(workspace: Path, run_dir: Path, *more: str) -> Ran:
    done = duckling_train(
        run_dir, "-w", workspace, *TINY_SHAPE, "--steps", "60", "--checkpoint-steps", "8", "--keep-checkpoints", *more
    )
    assert done.status == 0, done.stderr
    return done


def files(run_dir: Path, folder: str = "record.zarr") -> dict[str, bytes]:
    found = sorted(path for path in (run_dir / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in found}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_law_18_recording_changes_no_loss_and_no_weight(
    tiny_workspace: Path, tmp_path: Path, engine: str, precision: str
) -> None:
    settings = ("--engine", engine, "--precision", precision, "--checkpoint-steps", "30")
    plain = trained(tiny_workspace, tmp_path / "plain", *settings)
    recorded = trained(tiny_workspace, tmp_path / "recorded", *settings, "--record", "all", "--record-tensors", ALL)
    for name in ("metrics.jsonl", "model/model.safetensors", "checkpoints/step-00000060/optimizer.safetensors"):
        assert (plain.run_dir / name).read_bytes() == (recorded.run_dir / name).read_bytes(), name
    w = load_file(recorded.run_dir / "model" / "model.safetensors")["transformer.wte.weight"]
    assert open_run(recorded.run_dir).record.W[-1].tobytes() == w.tobytes()
    assert "record of 512 rows (W, grad_in, grad_out, exp_avg, exp_avg_sq, h_mean, p_dead): " in recorded.stderr
    assert "MB in all" in recorded.stderr
    assert "free" in recorded.stderr


@pytest.fixture(scope="module")
def whole(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return trained(tiny_workspace, tmp_path_factory.mktemp("whole") / "run", "--record", "440:460,7,500", *MORE)


MORE = ("--record-every", "2", "--record-tensors", "W,grad,h_mean")


@pytest.mark.parametrize("when", ["config.json", "record.zarr/W", "checkpoints/step-00000008", "record.zarr/steps/c.0",
                                  "checkpoints/step-00000048", "checkpoints/step-00000060", "model*"])  # fmt: skip
def test_a_killed_run_resumes_to_the_same_record(tiny_workspace: Path, whole: Ran, tmp_path: Path, when: str) -> None:
    run = tmp_path / "run"
    arguments = ("-w", tiny_workspace, *TINY_SHAPE, "--steps", "60", "--checkpoint-steps", "8", "--keep-checkpoints")
    running = forked.start(
        "duckling_train.cli", "--out", run, *arguments, "--record", "440:460,7,500", *MORE, output=tmp_path / "killed"
    )
    running.kill_when(lambda: any(run.glob(when)))
    done = forked.run("duckling_train.cli", "--resume", run, "-w", tiny_workspace, output=tmp_path / "resumed")
    assert done.wait() == 0, done.stderr
    assert files(run) == files(whole.run_dir)
    verified = duckling_verify(run, tiny_workspace)
    assert verified.status == 0, verified.stderr
    assert "record       ok: 31 steps of 22 rows (W, grad_in, grad_out, h_mean)" in verified.stdout


def duckling_verify(run: Path, workspace: Path) -> Ran:
    done = forked.run("duckling_train.cli", "verify", run, "-w", workspace, output=run.parent / "verified")
    return Ran(run, done.wait(), done.stdout, done.stderr)


def test_each_of_many_seeds_has_the_record_that_it_would_have_alone(tiny_workspace: Path, tmp_path: Path) -> None:
    many = trained(tiny_workspace, tmp_path / "many", "--seeds", "3:5", "--record", "dead")
    alone = trained(tiny_workspace, tmp_path / "alone", "--seed", "4", "--record", "dead")
    ours, theirs = (open_run(place).record for place in (many.run_dir / "seed-4", alone.run_dir))
    assert ours.steps.tolist() == theirs.steps.tolist() == list(range(61))
    assert np.abs(ours.W[:] - theirs.W[:]).max() < 1e-5
    assert ours.W[0].tobytes() == theirs.W[0].tobytes()
    assert "each of 2 runs" in many.stderr


def test_a_bf16_record_of_a_float32_run_is_the_rounded_one(tiny_workspace: Path, tmp_path: Path) -> None:
    kept, run = Kept(), tmp_path / "run"
    config = TrainConfig(**TINY, record="all", record_dtype="bf16", record_tensors="W,exp_avg_sq")
    train(config, tiny_workspace, run, hooks=[kept], quiet=True)
    record = open_run(run).record
    assert record.dtype == "bfloat16"
    for name in ("W", "exp_avg_sq"):
        expected = [bf16_bits(tensor.numpy()) for tensor in kept.steps[name]]
        assert record[name].bf16[-len(expected) :].tobytes() == np.stack(expected).tobytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_object_records_in_the_lab_and_in_a_trainer(tiny_workspace: Path, tmp_path: Path, engine: str) -> None:
    lab = duckling_ii(tiny_workspace, **{name: TINY[name] for name in TINY if name != "steps"}, engine=engine)
    recorder, snapshots = Recorder(tmp_path / "w.zarr", lab.dead_token_ids, "all", every=2), WRecorder(record_every=2)
    before = lab.W.detach().clone()
    lab.train(7, callbacks=[recorder, snapshots])
    record = Record.open(tmp_path / "w.zarr")
    assert record.steps.tolist() == [0, 2, 4, 6]
    assert record.rows[record.dead].tolist() == list(DEAD)
    expected = [before, *(w for _, w in snapshots.snapshots)]
    assert record.W[:].tobytes() == b"".join(map(as_bits, expected))
    with pytest.raises(InputError, match=r"w.zarr is there already: give the record another path"):
        lab.train(2, callbacks=[recorder])


def test_a_run_that_diverges_keeps_its_record_up_to_there(tiny_workspace: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = duckling_train(
        run, "-w", tiny_workspace, *TINY_SHAPE, "--steps", "60", "--learning-rate", "1e30", "--record", "dead"
    )
    assert done.status == 2
    assert "try a lower --learning-rate" in done.stderr
    record = Record.open(run / "record.zarr")
    assert len(record.steps)
    assert np.isfinite(record.W[:]).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("--record", "600"), "--record has 600; the ids end at 511"),
        (("--record", "5:5"), "--record has 5:5, which is empty"),
        (("--record", "some"), "--record is 'some'; expected ids and ranges"),
        (("--record-every", "2"), "--record-every is 2; it must be left out, or --record dead given"),
        (("--record", "dead", "--record-tensors", "grad"), "--record-tensors is grad; it must be W and any of grad"),
        (("--record", "dead", "--record-tensors", "W,x"), "--record-tensors is W,x"),
        (("--record", "dead", "--record-tensors", "W,exp_avg", "--optimizer", "sgd"), "without moments"),
        (("--record", "dead", "--record-every", "0"), "--record-every is 0"),
    ],
    ids=" ".join,
)
def test_a_record_that_cannot_be_is_refused(
    tiny_workspace: Path, tmp_path: Path, settings: tuple[str, ...], expected: str
) -> None:
    done = duckling_train(tmp_path / "run", "-w", tiny_workspace, *TINY_SHAPE, "--steps", "4", *settings)
    assert done.status == 2
    assert expected in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_settings_are_in_the_config_only_where_they_are_given(whole: Ran, run: Ran) -> None:
    assert not [name for name in run.json("config.json") if "record" in name]
    held = {name: value for name, value in whole.json("config.json").items() if "record" in name}
    assert held["record"] == "440:460,7,500"
    assert held["record_every"] == 2
    listed = json.loads((whole.run_dir / "manifest.json").read_text())["files"]
    assert {name for name in listed if name.startswith("record.zarr/")} == files(whole.run_dir).keys()
