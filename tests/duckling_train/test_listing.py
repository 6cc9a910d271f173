"""`duckling-train list` shows every run of a workspace, in whatever state it is, and changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from duckling_data.base.locks import beside, held
from duckling_train.cli import main
from duckling_train.compare.listing import Listed, runs_of, table_of
from tests.support.train import STEPS, Ran


@pytest.fixture
def workspace_of_four(run: Ran, tmp_path: Path) -> Path:
    """A finished run, one that was killed behind a checkpoint, one that is damaged, and a sweep's finished one."""
    for name in ("runs/done", "runs/killed", "runs/damaged", "sweeps/grid/runs/point"):
        shutil.copytree(run.run_dir, tmp_path / name)
    (tmp_path / "runs/killed/manifest.json").unlink()
    (tmp_path / "runs/killed/checkpoints/step-00000010").mkdir(parents=True)
    (tmp_path / "runs/damaged/config.json").write_text("{}")
    (tmp_path / "runs/notes").mkdir()
    return tmp_path


def test_every_run_is_listed_with_its_state(workspace_of_four: Path, run: Ran) -> None:
    listed = {entry.run: entry for entry in runs_of(workspace_of_four)}
    point = str(workspace_of_four / "sweeps/grid/runs/point")
    assert {name: entry.state for name, entry in listed.items()} == {
        "damaged": "damaged", "done": "finished", "killed": "unfinished", point: "finished",
    }  # fmt: skip
    done = listed["done"]
    assert (done.step, done.steps, done.last_loss) == (STEPS, STEPS, run.metrics[-1]["loss"])
    assert done.bytes == sum(path.stat().st_size for path in run.run_dir.rglob("*") if path.is_file())
    assert listed["killed"].detail == "resumes at step 10"
    assert "config.json" in listed["damaged"].detail


def test_a_run_that_trains_is_listed_with_its_process(workspace_of_four: Path) -> None:
    killed = workspace_of_four / "runs/killed"
    with held(beside(killed), killed, waiting=None):
        (found,) = (entry for entry in runs_of(workspace_of_four) if entry.run == "killed")
    assert found.state == "training"
    assert found.detail.startswith("process ")


def test_the_command_prints_a_table_or_json_and_writes_nothing(
    workspace_of_four: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(workspace_of_four.rglob("*"))
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as stop:
            main(["list", "-w", str(workspace_of_four), *options])
        assert not stop.value.code
    shown = capsys.readouterr().out
    assert shown.startswith(table_of(runs_of(workspace_of_four)))
    assert [Listed(**entry) for entry in json.loads(shown[shown.index("\n[") :])] == runs_of(workspace_of_four)
    assert sorted(workspace_of_four.rglob("*")) == before


def test_no_workspace_is_refused_and_an_empty_one_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["list", "-w", str(tmp_path / "none")])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        main(["list", "-w", str(tmp_path)])
    assert not stop.value.code
    assert "holds no runs" in capsys.readouterr().err
