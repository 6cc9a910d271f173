"""A sweep is its runs: each gives what it gives alone, whatever runs beside it or interrupts it; then a table."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError
from duckling_data.base.locks import beside, held
from duckling_train.cli import main
from duckling_train.sweep import runner
from tests.support import HANG, forked
from tests.support.train import FP32, command, duckling_train, environment

TINY = ["--width", "16", "--batch-size", "1", "--steps", "4", "--logging-steps", "2", "--checkpoint-steps", "2",
        "--device", "cpu", "--threads", "1", *FP32]  # fmt: skip
GRID = ["--layers", "1,2", "--seeds", "1,2"]
MEASURED = ("steps_per_second", "tokens_per_second", "jobs")


def sweep(place: Path, workspace: Path, *arguments: str, real: bool = False) -> int:
    """Run `duckling-train sweep` in this process. Returns the exit status.

    The runs are processes of their own: `real` ones, or forked from one that has imported the trainer.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not real:
            patch.setattr(runner, "run_commands", forked.run_commands)
        with pytest.raises(SystemExit) as stop:
            main(["sweep", "-w", str(workspace), "--out", str(place), *TINY, *arguments])
    return int(stop.value.code or 0)


def table(place: Path) -> list[dict[str, str]]:
    """Return the rows of `table.csv` without what is measured."""
    rows = list(csv.DictReader(io.StringIO((place / "table.csv").read_text())))
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def inodes(place: Path) -> dict[str, int]:
    """Return what tells whether a run was written again."""
    return {path.parent.name: path.stat().st_ino for path in place.glob("runs/*/manifest.json")}


@pytest.fixture(scope="module")
def swept(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four runs, one at a time."""
    place = tmp_path_factory.mktemp("sweeps") / "swept"
    assert sweep(place, workspace, *GRID, "--quiet") == 0
    return place


@pytest.fixture
def half(swept: Path, tmp_path: Path) -> Path:
    """The same with two of the four runs gone, one of them as a kill may leave it before it wrote anything whole."""
    place = tmp_path / "half"
    shutil.copytree(swept, place)
    for name in sorted(inodes(place))[1:3]:
        shutil.rmtree(place / "runs" / name)
    (place / "runs" / name).mkdir()
    (place / "runs" / name / "config.json.partial").touch()
    for name in ("table.csv", "table.md", "sweep.png"):
        (place / name).unlink()
    return place


def test_a_sweep_writes_a_run_a_point_and_one_table_and_plot(swept: Path) -> None:
    rows = table(swept)
    assert [(row["layers"], row["seed"]) for row in rows] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    for row in rows:
        run_dir = swept / "runs" / row["run"]
        metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        assert float(row["loss_1"]) == metrics[0]["loss"]
        assert (int(row["last_logged_step"]), float(row["last_loss"])) == (4, metrics[-1]["loss"])
        assert json.loads((run_dir / "config.json").read_text())["n_layer"] == int(row["layers"])
    assert [row["parameters"] for row in rows] == ["142576"] * 2 + ["145856"] * 2
    assert (swept / "sweep.png").read_bytes().startswith(b"\x89PNG")
    shown = (swept / "table.md").read_text()
    assert "| layers | seed | parameters | steps/s | tokens/s | 1 | 4 |" in shown
    assert "one run at a time (--jobs 1)" in shown
    assert "CPU threads a run: 1" in shown


def test_a_run_of_a_sweep_is_what_the_command_alone_gives(swept: Path, workspace: Path, tmp_path: Path) -> None:
    alone = duckling_train(tmp_path / "alone", "-w", workspace, *TINY, "--layers", "1", "--seed", "2")
    assert alone.status == 0, alone.stderr
    of_sweep = swept / "runs" / table(swept)[1]["run"]
    for name in ("config.json", "metrics.jsonl", "model/model.safetensors"):
        assert (of_sweep / name).read_bytes() == (alone.run_dir / name).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_goes_on_to_the_same_table_and_jobs_change_no_loss(
    swept: Path, half: Path, workspace: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inodes(half)
    arguments = ["-w", workspace, "--out", half, *TINY, *GRID, "--jobs", "2", "--quiet"]
    process = subprocess.Popen(
        command("sweep", *arguments), stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    deadline = time.monotonic() + HANG
    while len(list(half.glob("runs/*/config.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    if number == signal.SIGINT:
        process.send_signal(number)  # to the sweep alone: it stops its runs itself
        assert process.wait(HANG) == 130
    else:
        os.killpg(process.pid, number)
        process.wait(HANG)
    assert process.stderr is not None
    said = process.stderr.read()
    assert said.startswith("duckling-train: interrupted") if number == signal.SIGINT else said == ""
    assert not (half / "table.csv").exists()
    deadline = time.monotonic() + HANG
    while not _is_free(half) and time.monotonic() < deadline:  # a killed process holds its files for a moment
        time.sleep(0.02)
    assert _is_free(half), "a run was left at work"
    missing = 4 - len(inodes(half))
    begun = len(list(half.glob("runs/*/config.json"))) - len(inodes(half))  # how far each came is the machine's affair
    assert sweep(half, workspace, *GRID, "--jobs", "2", real=number == signal.SIGKILL) == 0
    assert table(half) == table(swept)
    assert {name: inode for name, inode in inodes(half).items() if name in before} == before
    said = capsys.readouterr().err
    assert f"{4 - missing} of 4 runs are finished already" in said
    assert said.count("4 steps ...") == missing
    assert said.count("resuming, up to 4 steps ...") == begun
    assert "up to 2 runs side by side (--jobs 2) (2 of 4 runs)" in (half / "table.md").read_text()


def _is_free(place: Path) -> bool:
    try:
        with held(beside(place), place, waiting=None):
            return True
    except InputError:
        return False


def test_a_run_that_fails_stops_no_other_and_is_in_the_table(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "failing"
    (place / "runs" / "old").mkdir(parents=True)
    (place / "sweep.json").write_text("damaged")
    assert sweep(place, workspace, "--layers", "1", "--learning-rate", "1e30,1e-4", "--quiet", "--overwrite") == 2
    said = capsys.readouterr().err
    assert said.startswith("duckling-train: 1 of 2 runs failed, see ")
    assert said.count("\n") == 1
    assert not (place / "runs" / "old").exists()  # --overwrite replaces what was there, even damaged
    bad, good = table(place)
    assert (bad["learning_rate"], bad["last_loss"]) == ("1e+30", "")
    assert bad["failed"].startswith("the loss is nan at step ")
    assert (good["failed"], good["last_logged_step"]) == ("", "4")
    assert "| 1e+30 | failed |" in (place / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layers", "1", "--seeds", "1,2"], "it has layers 2 (here 1)"),
        ([*GRID, "--learning-rate", "0.01"], "it has learning rate 0.0001 (here 0.01)"),
        ([*GRID, "--threads", "2"], "it has threads 1 (here 2)"),
    ],
)
def test_another_grid_in_the_same_place_is_refused_by_name(
    swept: Path, workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in swept.rglob("*")}
    assert sweep(swept, workspace, *arguments) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "--overwrite" in said
    assert said.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in swept.rglob("*")} == before


def test_other_data_are_refused(swept: Path, workspace: Path, tmp_path: Path, capsys: Any) -> None:
    place = tmp_path / "other"
    shutil.copytree(swept, place)
    record = json.loads((place / "sweep.json").read_text())
    record["inputs"]["dataset"]["payload_sha256"] = "0" * 64
    (place / "sweep.json").write_text(json.dumps(record))
    assert sweep(place, workspace, *GRID) == 2
    assert "was trained on other data than the workspace now holds" in capsys.readouterr().err


def test_a_dry_run_of_a_grown_grid_tells_what_is_finished_and_writes_nothing(
    swept: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (*swept.rglob("*"), *workspace.rglob("*"))}
    assert sweep(swept, workspace, "--layers", "2,1,3", "--seeds", "1,2", "--dry-run", "--jobs", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[2:]] == [
        f"{number}/6 layers {layers}, seed {seed}"
        for number, (layers, seed) in enumerate([(2, 1), (2, 2), (1, 1), (1, 2), (3, 1), (3, 2)], 1)
    ]
    assert sum("is finished" in line for line in lines) == 4
    assert sum("149,136 parameters, would train, runs/" in line for line in lines) == 2
    assert {path: path.stat().st_mtime_ns for path in (*swept.rglob("*"), *workspace.rglob("*"))} == before


def test_one_sweep_at_a_time_works_in_a_place(swept: Path, workspace: Path, capsys: Any) -> None:
    with held(beside(swept), swept, waiting=None):
        assert sweep(swept, workspace, *GRID) == 2
    said = capsys.readouterr().err
    assert f"{swept}: process {os.getpid()} on " in said
    assert "is at work there" in said


def test_a_directory_that_is_no_sweep_is_refused(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert sweep(tmp_path, workspace, *GRID, "--overwrite") == 2
    assert "exists and is not a sweep" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_finished_run_with_other_settings_is_not_taken_for_the_points(
    swept: Path, workspace: Path, tmp_path: Path, capsys: Any
) -> None:
    place = tmp_path / "foreign"
    shutil.copytree(swept, place)
    first, second = sorted(inodes(place))[:2]
    shutil.rmtree(place / "runs" / first)
    shutil.copytree(place / "runs" / second, place / "runs" / first)
    assert sweep(place, workspace, *GRID) == 2
    assert "the sweep's" in capsys.readouterr().err


def test_a_sweep_under_torchrun_is_refused(workspace: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sweep(tmp_path / "none", workspace, *GRID) == 2
    assert "without torchrun" in capsys.readouterr().err


def test_a_finished_run_that_was_changed_is_in_no_table(
    swept: Path, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(shutil.copytree(swept, tmp_path / "sweep"))
    (place / "table.csv").unlink()
    log = min(place.glob("runs/*/metrics.jsonl"))
    log.write_text(re.sub(r'"loss": \d', '"loss": 7', log.read_text(), count=1))
    assert sweep(place, workspace, *GRID) == 2
    assert f"duckling-train: {log} has SHA-256 " in capsys.readouterr().err
    assert not (place / "table.csv").exists()
