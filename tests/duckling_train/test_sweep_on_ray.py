"""A sweep on Ray gives the bytes of a local one, whatever is killed or interrupted meanwhile."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from duckling_data.base.locks import beside
from duckling_train.sweep import runner
from tests.support import HANG, forked
from tests.support.ray_cluster import Nodes, nodes
from tests.support.train import TINY_SHAPE, command_here

TINY = ["--batch-size", "1", "--logging-steps", "2", *TINY_SHAPE]
FAST = ["--engine", "fast", "--layers", "1,2", "--learning-rate", "1e30,1e-4", "--steps", "4"]
LONG = ["--layers", "1", "--learning-rate", "1e30,1e-4,2e-4", "--steps", "400", "--checkpoint-steps", "20"]
MEASURED = ("steps_per_second", "tokens_per_second", "jobs")
FILES = ("config.json", "metrics.jsonl", "dynamics.jsonl", "samples.txt", "model/model.safetensors")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(1) as running:
        yield running


def sweep(place: Path, workspace: Path, cluster: Nodes | None, *arguments: str) -> int:
    where = ["--executor", "ray", "--ray-address", cluster.address] if cluster else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_commands", forked.run_commands)  # of the local one
        return command_here("sweep", "-w", workspace, "--out", place, "--quiet", *where, *TINY, *arguments)


def made(place: Path) -> dict[str, bytes]:
    """What a sweep made, without what is measured."""
    rows = list(csv.DictReader(io.StringIO((place / "table.csv").read_text())))
    table = [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]
    runs = {str(path.relative_to(place)): path.read_bytes() for name in FILES for path in place.glob(f"runs/*/{name}")}
    return {**runs, "table": json.dumps(table).encode(), "sweep.json": (place / "sweep.json").read_bytes()}


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert reached()


def newest(run: Path) -> int:
    """The step of a run's newest checkpoint."""
    steps = [path.name.removeprefix("step-") for path in run.glob("checkpoints/step-????????")]
    return max(map(int, steps), default=0)


def test_runs_at_once_and_their_failures_are_those_of_a_local_sweep(
    cluster: Nodes, tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert sweep(tmp_path / "local", tiny_workspace, None, *FAST) == 2
    local = capsys.readouterr().err
    monkeypatch.chdir(tmp_path)  # a worker has another
    assert sweep(Path("ray"), Path(os.path.relpath(tiny_workspace)), cluster, *FAST) == 2
    assert capsys.readouterr().err == local.replace(str(tmp_path / "local"), str(tmp_path / "ray"))
    here, there = made(tmp_path / "local"), made(tmp_path / "ray")
    assert there == here
    assert len([name for name in here if name.endswith("model.safetensors")]) == 2


def test_a_sweep_whose_worker_is_killed_and_that_is_interrupted_ends_in_the_bytes_of_a_local_one(
    cluster: Nodes, tiny_workspace: Path, tmp_path: Path
) -> None:
    assert sweep(tmp_path / "local", tiny_workspace, None, *LONG) == 2
    place = tmp_path / "ray"
    arguments = ["sweep", "-w", tiny_workspace, "--out", place, "--executor", "ray", "--ray-address", cluster.address]
    running = forked.start("duckling_train.cli", *arguments, *TINY, *LONG, output=tmp_path / "said")
    first, second = (place / "runs" / path.stem for path in sorted_points(tmp_path / "local")[:2])
    wait_until(lambda: newest(first) >= 40)
    os.kill(int(beside(first).read_text().split()[0]), signal.SIGKILL)
    # Ray may put the run behind the others when it is run again: the one is made, then the other.
    wait_until(lambda: any((run / "manifest.json").exists() for run in (first, second)))
    finished, other = sorted((first, second), key=lambda run: not (run / "manifest.json").exists())
    before, inode = newest(other), (finished / "manifest.json").stat().st_ino
    wait_until(lambda: newest(other) >= before + 20)
    running.kill(signal.SIGINT)
    assert running.wait() == 130
    said = running.stderr.splitlines()
    assert said[-1].startswith("duckling-train: interrupted; ")
    assert [line for line in said if not re.match(r" ?\d/3 |Ray at .* tasks at once$|duckling-train: ", line)] == []
    logged = json.loads((other / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert newest(other) >= logged, "the run under way was ended after a step, with a checkpoint"
    assert sweep(place, tiny_workspace, cluster, *LONG) == 2
    assert (finished / "manifest.json").stat().st_ino == inode
    assert made(place) == made(tmp_path / "local")


def sorted_points(place: Path) -> list[Path]:
    """The settings of a sweep's runs, by learning rate from the lowest."""
    return sorted(place.glob("points/*.json"), key=lambda path: json.loads(path.read_text())["learning_rate"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--executor", "ray", "--jobs", "2"], "--jobs does not go with --executor ray"),
        (["--ray-address", "auto"], "--ray-address does not go with --executor local"),
        (["--executor", "ray", "--device", "cuda"], "--device cuda needs a GPU for each run; give --gpus-per-run 1"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert command_here("sweep", "-w", tiny_workspace, "--out", tmp_path / "none", *TINY, *FAST, *arguments) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


def test_what_the_cluster_does_not_have_is_refused_before_anything_is_written(
    cluster: Nodes, tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path / "none", tiny_workspace, cluster, *FAST, "--cpus-per-run", "2") == 2
    assert "a task needs a node with 2 CPUs and 0 GPUs" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
