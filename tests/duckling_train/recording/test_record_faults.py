"""A damaged record is refused by the name of what is damaged, and measured around only where that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from duckling_data.base.errors import CheckFailed, InputError
from duckling_train import open_run
from duckling_train.recording.record import Record
from duckling_train.runs.verify import verify_run
from tests.support import forked
from tests.support.train import TINY_SHAPE, Ran, duckling_train

RECORDED = ("--steps", "150", "--checkpoint-steps", "0", "--record", "dead",
            "--record-tensors", "W,grad,h_mean,p_dead")  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose record has two whole files of each tensor and a part of a third."""
    run = tmp_path_factory.mktemp("recorded") / "run"
    done = duckling_train(run, "-w", tiny_workspace, *TINY_SHAPE, *RECORDED)
    assert done.status == 0, done.stderr
    return run


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it without its manifest, which names the SHA-256 of each file: the record alone must tell."""
    run = tmp_path / "run"
    shutil.copytree(recorded, run)
    (run / "manifest.json").unlink()
    (run / "summary.json").unlink()
    return run


NAMES = ["W/residual/c.1.0.0.0", "W/c/c.1.0", "grad_out/residual/c.1.0.0.0", "h_mean/c.1.0", "p_dead/c.1.0",
         "steps/c.1", "rows/c.0", "dead/c.0"]  # fmt: skip


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def cut(path: Path, at: float) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def drop(path: Path, _at: float) -> None:
    path.unlink()


def read_all(record: Record) -> None:
    for name in record.tensors:
        record[name][:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [flip, cut, drop])
@pytest.mark.parametrize("at", [0.0, 0.5, 0.999])
def test_what_is_damaged_is_named(copy: Path, name: str, damage: Callable[[Path, float], None], at: float) -> None:
    path = copy / "record.zarr" / name
    damage(path, at)
    with pytest.raises(InputError, match=str(path)):
        read_all(open_run(copy).record)


def test_a_flipped_bit_of_a_residual_is_named_by_its_chunk_and_the_rest_reads(copy: Path, recorded: Path) -> None:
    """The second of four blocks in the file: the steps and rows that it holds, in the run's own numbers."""
    path = copy / "record.zarr" / "W" / "residual" / "c.1.0.0.0"
    flip(path, 0.37)
    record, whole = open_run(copy).record, open_run(recorded).record
    with pytest.raises(InputError, match=r"c\.1\.0\.0\.0: the chunk of steps 80 to 95, rows 448 to 511 is damaged"):
        record.W[90]
    assert record.W[79].tobytes() == whole.W[79].tobytes()
    assert record.W[96].tobytes() == whole.W[96].tobytes()
    assert [shard for shard, _ in record.faults()] == [1]
    with pytest.raises(Exception, match="checksum do not match"):
        zarr.open_group(copy / "record.zarr", mode="r")["W/residual"][80:96]


@pytest.mark.parametrize("name", NAMES[:6])
@pytest.mark.parametrize("damage", [flip, drop])
def test_a_damaged_file_is_left_out_where_that_is_asked_for(
    copy: Path, recorded: Path, name: str, damage: Callable[[Path, float], None]
) -> None:
    damage(copy / "record.zarr" / name, 0.3)
    record, whole = Record.open(copy / "record.zarr", around=True), open_run(recorded).record
    left = [*range(64), *range(128, 151)]
    assert record.steps.tolist() == left
    assert record.W[:].tobytes() == whole.W[:][left].tobytes()
    assert [first for first, _ in record.W.blocks()] == [0, 16, 32, 48, 64, 80]
    assert record.W.row(450).tobytes() == whole.W.row(450)[left].tobytes()


def test_a_file_of_steps_far_behind_the_others_takes_no_memory(copy: Path) -> None:
    shutil.copy(copy / "record.zarr" / "steps" / "c.1", copy / "record.zarr" / "steps" / "c.90000")
    with pytest.raises(InputError, match=r"steps/c\.2 is damaged \(steps are missing\)"):
        _ = open_run(copy).record
    (copy / "record.zarr" / "steps" / "c.90000").rename(copy / "record.zarr" / "steps" / "c.900000000000")
    assert len(open_run(copy).record.steps) == 151


def test_a_foreign_group_and_another_runs_record_are_refused(copy: Path, tiny_workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing: no record of Duckling \(zarr.json is missing\)"):
        Record.open(tmp_path / "nothing")
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(InputError, match="another zarr group"):
        Record.open(tmp_path / "foreign.zarr")
    done = duckling_train(tmp_path / "other", "-w", tiny_workspace, *TINY_SHAPE, *RECORDED, "--seed", "9")
    assert done.status == 0, done.stderr
    shutil.rmtree(copy / "record.zarr")
    shutil.copytree(tmp_path / "other" / "record.zarr", copy / "record.zarr")
    with pytest.raises(InputError, match="is another run's record"):
        _ = open_run(copy).record
    plain = duckling_train(tmp_path / "plain", "-w", tiny_workspace, *TINY_SHAPE, "--steps", "2")
    with pytest.raises(InputError, match="has no record: train with --record dead"):
        _ = open_run(plain.run_dir).record


@pytest.mark.parametrize(("name", "change"), [("format", 99), ("shard", 7), ("block", 3), ("rows", -1), ("width", "x")])
def test_attributes_that_no_record_has_are_refused(copy: Path, name: str, change: object) -> None:
    path = copy / "record.zarr" / "zarr.json"
    text, held = path.read_text(), zarr.open_group(copy / "record.zarr", mode="r").attrs["duckling_record"]
    assert isinstance(held, dict)
    old, new = (f'"{name}": {value!r}'.replace("'", '"') for value in (held[name], change))
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"zarr\.json"):
        Record.open(copy / "record.zarr")


@pytest.mark.parametrize("name", ["W/residual/c.0.0.0.0", "steps/c.2"])
def test_verify_names_it_with_and_without_a_manifest(
    copy: Path, recorded: Path, tiny_workspace: Path, tmp_path: Path, name: str
) -> None:
    finished = tmp_path / "finished"
    shutil.copytree(recorded, finished)
    assert any(
        "record       ok: 151 steps of 64 rows (W, grad_in" in line for line in verify_run(finished, tiny_workspace)
    )
    flip(finished / "record.zarr" / name, 0.5)
    with pytest.raises(CheckFailed, match=name):
        list(verify_run(finished, tiny_workspace))


FULL = 40_000
"""Bytes that a file may grow to: less than a file of the record, more than each other file of the run."""


@pytest.mark.parametrize("then", ["stop", "continue"])
def test_a_record_that_cannot_be_written_stops_the_run_or_is_said(
    tiny_workspace: Path, tmp_path: Path, then: str
) -> None:
    """Here the system lets no file grow beyond so many bytes; the weights are in bf16, and so below that."""
    run = tmp_path / "run"
    arguments = ("-w", tiny_workspace, *TINY_SHAPE, "--precision", "bf16-pure", "--steps", "70", "--record", "all",
                 "--checkpoint-steps", "0", "--on-record-error", then)  # fmt: skip
    done = forked.run("duckling_train.cli", "--out", run, *arguments, output=tmp_path / "said", file_limit=FULL)
    said = Ran(run, done.wait(), done.stdout, done.stderr)
    lines = [line for line in said.stderr.splitlines() if "c.0.0.0.0" in line]
    assert len(lines) == 1
    assert "cannot be written" in lines[0]
    assert "Traceback" not in said.stderr
    if then == "stop":
        assert said.status == 3
        assert not (run / "manifest.json").exists()
    else:
        assert said.status == 0, said.stderr
        assert lines[0].endswith("The training goes on without its record.")
        verified = list(verify_run(run, tiny_workspace))
        assert any("record       ok: 0 steps (of 71: the others could not be written)" in line for line in verified)
        assert len(said.metrics) == 8


def test_a_record_that_cannot_fit_is_refused_before_the_training(
    tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=2_000_000))
    from duckling_data.base.errors import OutsideError
    from duckling_train.config import TrainConfig
    from duckling_train.runs.train import train

    config = TrainConfig(n_positions=64, vocab_size=512, n_embd=16, device="cpu", threads=1, steps=1000, record="all")
    with pytest.raises(OutsideError, match=r"the run's model and checkpoints, and its record, 2\.0 MB free"):
        train(config, tiny_workspace, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_live_and_dead_rows_are_told_apart(tiny_workspace: Path, tmp_path: Path) -> None:
    done = duckling_train(tmp_path / "run", "-w", tiny_workspace, *TINY_SHAPE, "--steps", "2", "--record", "440:460")
    assert done.status == 0, done.stderr
    record = open_run(tmp_path / "run").record
    assert record.rows[~record.dead].tolist() == list(range(440, 448))
    assert np.array_equal(record.rows[record.dead], np.arange(448, 460))


def test_a_run_whose_record_is_lost_resumes_without_it_only_where_that_is_asked_for(
    tiny_workspace: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("-w", tiny_workspace, *TINY_SHAPE, "--steps", "40", "--checkpoint-steps", "10", "--record", "dead")
    running = forked.start("duckling_train.cli", "--out", run, *arguments, output=tmp_path / "killed")
    running.kill_when((run / "checkpoints" / "step-00000020").exists)
    (run / "record.zarr" / "steps" / "c.0").unlink()
    resume = ("--resume", run, "-w", tiny_workspace)
    refused = forked.run("duckling_train.cli", *resume, output=tmp_path / "refused")
    assert refused.wait() == 2
    assert "holds 0 of the " in refused.stderr
    assert "or --resume it with --on-record-error continue" in refused.stderr
    done = forked.run("duckling_train.cli", *resume, "--on-record-error", "continue", output=tmp_path / "resumed")
    assert done.wait() == 0, done.stderr
    assert "The training goes on without its record." in done.stderr
    assert any("record       ok: 0 steps (of 41" in line for line in verify_run(run, tiny_workspace))
