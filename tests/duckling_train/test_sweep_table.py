"""The grid of a sweep, its table and its plot: from settings and records alone, in one order, under exact names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.records import plain
from duckling_data.base.strict_json import write_json
from duckling_train.runs.read import RunRecord
from duckling_train.sweep.grid import Point, grid_name, make_grid
from duckling_train.sweep.layout import Outcome, read_sweep, record_of, refusal
from duckling_train.sweep.runner import Sweep, failure
from duckling_train.sweep.table import Row, csv_table, heading, markdown_table, shown_steps, styles, sweep_plot


def test_points_have_one_order_whatever_the_order_of_the_flags() -> None:
    one = make_grid({"seed": (43, 42), "batch_size": (1, 16), "n_layer": (2, 4)})
    other = make_grid({"n_layer": (2, 4), "batch_size": (1, 16), "seed": (43, 42)})
    assert one == other
    assert [tuple(point.swept.values()) for point in one.points[:3]] == [(2, 1, 43), (2, 1, 42), (2, 16, 43)]
    assert one.points[-1].label == "layers 4, batch size 16, seed 42"


def test_a_points_name_depends_on_its_settings_alone() -> None:
    alone = make_grid({"n_layer": (4,), "threads": (1,)}).points
    grown = make_grid({"n_layer": (2, 4), "threads": (1, 2), "eval_steps": (0, 5), "seed": (42, 43)}).points
    assert alone[0].name in [point.name for point in grown]
    assert len({point.name for point in grown}) == 16
    assert grid_name(make_grid({"n_layer": (2, 4, 8), "batch_size": (16,), "tied": (True, False)})) == (
        "layers-2_4_8-tied-tied_untied-batch-size-16-steps-10000-seed-42"
    )


def test_values_that_hardly_differ_have_their_own_directories() -> None:
    grid = make_grid({"learning_rate": (2e-4, 2.0000001e-4), "data_seed": (1234567, 1234568)})
    assert len({point.name for point in grid.points}) == 4


def test_shown_steps_are_the_originals() -> None:
    assert shown_steps(2000) == [1, 50, 100, 200, 500, 1000, 2000]
    assert shown_steps(199) == [1, 50, 100]
    assert shown_steps(4) == [1]
    assert shown_steps(10_000)[-2:] == [5000, 10_000]


def made(point: Point, **summary: Any) -> Row:
    record = RunRecord(
        name=point.name,
        settings={},
        inputs={},
        steps=(1, 50, 60),
        losses=(9.0, 8.5, 8.25),
        evaluations=({"step": 60, "loss": 8.125, "rows": 128},),
        summary={"parameters": 1510912, "steps_per_second": 75.5, "tokens_per_second": 77312.0, "threads": 2,
                 "device_name": "a CPU", **summary},
        finished=True,
        dynamics=[{"step": 60, "centroid_norm": 0.0123456, "radius_mean": 0.226, "coherence": -0.5, "dead_mass": None}],
    )  # fmt: skip
    return Row(point, record, Outcome(1))


def test_tables_are_these() -> None:
    grid = make_grid({"n_layer": (2, 4), "steps": (60,)})
    rows = [made(grid.points[0]), Row(grid.points[1], None, Outcome(1, "the loss is nan at step 2", 2))]
    assert csv_table(rows).decode().splitlines() == [
        "run,layers,parameters,steps_per_second,tokens_per_second,jobs,loss_1,loss_50,last_logged_step,last_loss,"
        "validation_loss,centroid_norm,radius_mean,coherence,dead_mass,failed",
        "steps-60-seed-42,2,1510912,75.5,77312.0,1,9.0,8.5,60,8.25,8.125,0.0123456,0.226,-0.5,,",
        "steps-60-seed-42-layers-4,4,,,,1,,,,,,,,,,the loss is nan at step 2",
    ]
    assert markdown_table(grid, rows).splitlines() == [
        "2 runs: layers 2, 4; all with steps 60, seed 42; else Duckling II's settings.",
        "",
        "| layers | parameters | steps/s | tokens/s | 1 | 50 | 60 | validation "
        "| centroid | radius | coherence | dead mass |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 2 | 1,510,912 | 75.5 | 77,312 | 9.0000 | 8.5000 | 8.2500 | 8.1250 | 0.01235 | 0.226 | -0.5 |  |",
        "| 4 | failed |  |  |  |  |  |  |  |  |  |  |",
        "",
        "Failed:",
        "",
        "- layers 4: the loss is nan at step 2",
        "",
        "Numbered columns: the training loss logged at that step, the mean since the last log, in nats a token.",
        "Validation: the mean loss of the first 128 validation rows.",
        "Steps/s: measured with one run at a time (--jobs 1); a run side by side with others is slower than one alone.",
        "Device: a CPU, CPU threads a run: 2; threads shape the bits of a CPU run.",
    ]


def test_a_sweep_over_seeds_has_means_and_deviations() -> None:
    grid = make_grid({"n_layer": (2, 4), "seed": (1, 2), "steps": (60,)})
    rows = [made(point) for point in grid.points]
    rows[1] = Row(rows[1].point, replace(rows[1].run, losses=(9.0, 8.5, 8.75)), Outcome(1))
    rows[2] = Row(rows[2].point, None, Outcome(1, "the loss is nan at step 2", 2))
    lines = markdown_table(grid, rows).splitlines()
    start = lines.index("Mean ± standard deviation over the seeds:")
    assert lines[start + 2 : start + 6] == [
        "| settings | runs | last loss | validation |",
        "| --- | --- | --- | --- |",
        "| layers 2 | 2 | 8.5000 ± 0.3536 | 8.1250 ± 0.0000 |",
        "| layers 4 | 1 | 8.2500 | 8.1250 |",
    ]


@pytest.mark.parametrize(("layers", "batches"), [(1, 1), (3, 3), (7, 4), (4, 7), (2, 9), (20, 1), (28, 1)])
def test_up_to_28_combinations_look_different_and_seeds_alike(layers: int, batches: int) -> None:
    lists = {"n_layer": tuple(range(1, layers + 1)), "batch_size": tuple(range(1, batches + 1)), "seed": (1, 2)}
    chosen = styles(make_grid(lists))
    assert len(chosen) == layers * batches
    assert len(set(chosen.values())) == layers * batches


def test_equal_runs_give_an_equal_plot_and_a_failed_one_is_left_out() -> None:
    grid = make_grid({"n_layer": (2, 4), "seed": (1, 2)})
    rows = [made(point) for point in grid.points[:3]] + [Row(grid.points[3], None, Outcome(1, "the loss is nan", 2))]
    assert sweep_plot(grid, rows, "title " * 50) == sweep_plot(grid, rows, "title " * 50)
    assert sweep_plot(grid, rows[:2], "title") != sweep_plot(grid, rows, "title")


def test_a_grid_is_told_in_one_line() -> None:
    assert heading(make_grid({})) == "1 run with steps 10000, seed 42; else Duckling II's settings."
    assert (
        heading(make_grid({"steps": (1, 2), "seed": (3, 4)}))
        == "4 runs: steps 1, 2 × seed 3, 4; else Duckling II's settings."
    )
    assert heading(make_grid({"tied": (False,), "seed": (3, 4), "n_embd": (64,)})) == (
        "2 runs: seed 3, 4; all with steps 10000, width 64, untied; else Duckling II's settings."
    )


def test_a_record_with_a_long_unknown_setting_is_refused_in_a_short_line(tmp_path: Path) -> None:
    record = plain(record_of(make_grid({"n_layer": (2, 4)}), {}))
    record["swept"]["y" * 5000] = [1]
    write_json(tmp_path / "sweep.json", record)
    with pytest.raises(InputError, match="unknown setting 'yyy") as refused:
        read_sweep(tmp_path)
    assert len(str(refused.value)) < 500


def test_a_failed_sweep_ends_with_the_status_of_its_failures() -> None:
    grid = make_grid({"n_layer": (2, 4, 8)})
    place = Path("p")
    planned = Sweep(grid, place, place, 1, {})
    whole = [made(point) for point in grid.points]
    diverged = Row(grid.points[1], None, Outcome(1, "the loss is nan", 2))
    assert failure(planned, whole) is None
    assert type(failure(planned, [whole[0], diverged, whole[2]])) is InputError
    assert (
        type(failure(planned, [Row(grid.points[0], None, Outcome(1, "no space left", 3)), diverged, whole[2]]))
        is OutsideError
    )
    assert (
        type(failure(planned, [Row(grid.points[0], None, Outcome(1, "ended by signal 9", -9)), *whole[1:]]))
        is OutsideError
    )


def test_a_grid_is_the_same_sweep_when_its_record_is_read_again(tmp_path: Path) -> None:
    """Every kind of value: a pair, a truth, a number, none."""
    grid = make_grid(
        {"n_layer": (1, 2), "betas": ((0.9, 0.99), (0.8, 0.9)), "eval_rows": (None, 5), "tied": (True, False)}
    )
    wanted = record_of(grid, {"dataset": {"rows": 3}})
    write_json(tmp_path / "sweep.json", plain(wanted))
    assert read_sweep(tmp_path) == wanted
    assert refusal(tmp_path, wanted, record_of(grid, wanted.inputs)) is None
    smaller = record_of(make_grid({"n_layer": (1,)}), wanted.inputs)
    assert "betas 0.8:0.9 (here 0.9:0.999)" in str(refusal(tmp_path, wanted, smaller))
