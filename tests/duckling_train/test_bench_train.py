"""The script that times training: its figures are of what ran, its tables and its plot are made of them."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from duckling_train.config import TrainConfig
from duckling_train.engines.fast.step import Step
from tests.support.machine import gemm_gflops, peak_mb, processor
from tests.support.recorded_graph import RecordedGraphs
from tests.support.timed_training import BACKWARD, PARTS, REST, Clock, Task, measure, measure_engine, rows_for

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_train.py"
SIZES: dict[str, Any] = {"n_positions": 16, "n_embd": 8, "vocab_size": 64, "device": "cpu", "threads": 1}
TINY = Task("fast", SIZES | {"precision": "fp32"}, steps=12, warm=2, block=2)
MACHINE = {
    "processor": "P", "threads": 1, "torch": "2", "capability": "AVX2", "native_bf16": False,
    "peak_gflops": {"float32": 100.0, "bfloat16": 10.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    before = list(sys.path)
    namespace = runpy.run_path(str(SCRIPT))
    sys.path[:] = before
    return namespace


def test_it_says_how_it_is_used(bench: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench["main"](["--help"])
    assert end.value.code == 0
    assert "6 · B · T · (12 L D² + V D + 2 L T D)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [["--steps", "9"], ["--with-seed"], ["--with-seed", "--workspace", "w", "--batch-size", "3"], ["--device", "mps"]],
)
def test_what_it_cannot_measure_is_refused(
    bench: dict[str, Any], capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        bench["parsed"](wrong)
    assert end.value.code == 2
    assert wrong[0] in capsys.readouterr().err.splitlines()[-1]


def test_a_step_of_duckling_ii_is_ten_billion_operations(bench: dict[str, Any]) -> None:
    assert bench["flop"](TrainConfig()) == 6 * 1024 * (12 * 2 * 128**2 + 8192 * 128 + 2 * 2 * 512 * 128)
    config, share = TrainConfig(), bench["share"]
    assert share(MACHINE, config, 1.0) == pytest.approx(0.1047, abs=1e-3)  # bf16 is slower here than float32
    native = MACHINE | {"peak_gflops": {"float32": 100.0, "bfloat16": 400.0}}
    assert share(native, config, 1.0) == pytest.approx(0.0262, abs=1e-3)
    assert share(native, dataclasses.replace(config, precision="fp32"), 1.0) == share(MACHINE, config, 1.0)


def test_each_engine_is_measured_for_as_many_steps_as_asked_and_told_of_a_whole_run(bench: dict[str, Any]) -> None:
    tasks = {
        "fast": TINY, "reference": dataclasses.replace(TINY, kind="reference"),
        "many": dataclasses.replace(TINY, jobs=3),
    }  # fmt: skip
    measured = {name: measure(task) for name, task in tasks.items()}
    for figures in measured.values():
        assert figures["cpu_ms"] > 0
        assert figures["peak_mb"] > 50
        assert min(figures["steps_per_second"], figures["ms"], figures["startup_seconds"]) > 0
    config = TrainConfig(**TINY.settings)
    lines = bench["speed_lines"](MACHINE, config, tasks, [measured])
    assert all(line.count("|") == bench["SPEED_HEAD"][1].count("|") for line in (*lines, bench["SPEED_HEAD"][0]))
    rate = {name: figures["steps_per_second"] for name, figures in measured.items()}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[1] for row in cells] == ["fast", "reference", "fast, 3 at once"]
    assert cells[0][3:5] == [f"{rate['fast'] / rate['reference']:.2f}", "1.00"]
    assert cells[2][2:5:2] == [f"{3 * rate['many']:.2f}", f"{3 * rate['many'] / rate['fast']:.2f}"]


def test_a_clock_ends_with_the_steps_or_with_the_time() -> None:
    clock = Clock(dataclasses.replace(TINY, steps=9))
    assert next(step for step in range(1, 99) if clock.passed(step)) == 8
    assert [step for step, *_ in clock.marks] == [2, 4, 6, 8]
    clock = Clock(dataclasses.replace(TINY, seconds=0.0))
    assert next(step for step in range(1, 99) if clock.passed(step)) == 4


def test_a_speed_is_the_median_blocks_and_cpu_time_the_mean_steps() -> None:
    clock = Clock(TINY)
    clock.marks = [(2, 10.0, 1.0), (4, 11.0, 1.5), (6, 11.5, 1.75), (8, 15.5, 2.2)]
    figures = clock.figures()
    assert figures["steps_per_second"] == 2.0
    assert figures["ms"] == pytest.approx(5.5e3 / 6)
    assert figures["cpu_ms"] == pytest.approx(200)


def test_the_parts_of_a_step_sum_to_it_and_leave_no_wrapper_behind(bench: dict[str, Any]) -> None:
    before = dict(vars(Step))
    figures = measure(dataclasses.replace(TINY, parts=True))
    assert dict(vars(Step)) == before
    parts = figures["parts_ms"]
    assert set(parts) == {*PARTS, BACKWARD, REST}
    assert sum(parts.values()) == pytest.approx(figures["ms"])
    assert min(parts.values()) > 0
    lines = bench["parts_table"]({"fp32": parts})
    assert len(lines) == 2 + len(parts)


def test_on_a_gpu_the_replays_are_told_and_parts_are_timed_without(bench: dict[str, Any]) -> None:
    """With a model of a graph on the CPU."""
    tiny = dataclasses.replace(TINY, settings=TINY.settings | {"compile": "no"})
    figures = measure_engine(tiny, graphs := RecordedGraphs())
    assert figures["replays"] == graphs.replays == 10
    parts = measure_engine(dataclasses.replace(tiny, parts=True), graphs)["parts_ms"]
    assert graphs.replays == 10
    assert min(parts.values()) > 0
    assert "without a graph, each part waited for" in bench["parts_table"]({"fp32": parts}, "cuda")[0]
    options = bench["parsed"](["--device", "cuda", "--many", "64"])
    settings = {"device": "cuda", "precision": "fp32"}
    tasks = bench["contenders"](options, settings)
    assert {task.warm + task.block < task.steps for task in tasks.values()} == {True}
    lines = bench["speed_lines"](MACHINE, TrainConfig(**settings), tasks, [dict.fromkeys(tasks, figures)])
    assert [line.endswith("float32, 10 replays |") for line in lines] == [True, False, True]


def test_a_task_runs_in_a_process_of_its_own(bench: dict[str, Any]) -> None:
    figures = bench["run"](bench["Task"](**dataclasses.asdict(TINY)))
    assert figures["chosen"].removesuffix(", compiled") == "float32"
    assert 0 < figures["startup_seconds"] < 1000


def test_rows_are_the_workspaces_where_they_fit(tiny_workspace: Path) -> None:
    fits = TrainConfig(n_positions=64, vocab_size=512)
    assert len(rows_for(fits, str(tiny_workspace))) != len(rows_for(fits, None))
    other = rows_for(TrainConfig(n_positions=128, vocab_size=512, batch_size=64), str(tiny_workspace))
    assert (len(other), other.rows.ctx) == (512, 128)
    assert other.rows.max_id() < 384


def test_the_growth_is_drawn_for_every_size(bench: dict[str, Any]) -> None:
    found = {
        name: {varied: {value: scale * value for value in values} for varied, values in bench["GROWTH"].items()}
        for name, scale in (("fp32", 1.0), ("bf16-mixed", 2.0))
    }
    picture = bench["growth_plot"](found, "a processor")
    assert picture.startswith(b"\x89PNG")
    assert picture == bench["growth_plot"](found, "a processor")
    assert all(
        TrainConfig(**({} if varied == bench["MODELS"] else {varied: value}))
        for varied, values in bench["GROWTH"].items()
        for value in values
    )


def test_the_machine_is_named_and_measured(bench: dict[str, Any]) -> None:
    assert processor()
    assert peak_mb() > 50
    assert gemm_gflops(torch.float32, "cpu", 64, repeats=2) > 0
    assert "no native bf16; a large square product, GFLOP/s: float32 100, bfloat16 10" in bench["machine_line"](MACHINE)
