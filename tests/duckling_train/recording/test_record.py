"""A record on disk: what is read is what was written, by Duckling and by stock zarr, also while it still grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from duckling_data.base.errors import InputError
from duckling_train.recording.codec import BLOCK, LEVEL, LINE, ORDER, bf16_bits, widened
from duckling_train.recording.layout import FORMAT, Layout, shard_steps
from duckling_train.recording.record import Record
from duckling_train.recording.writer import Writer

STEPS, ROWS, WIDTH, EVERY = 2 * 48 + 21, 37, 40, 3
"""Two whole files, a whole block and a part of one; the rows fill no whole number of chunks."""
LAYOUT = Layout(
    FORMAT, "a run", EVERY, ROWS, WIDTH, "float32",
    {"W": LINE, "grad_in": LEVEL, "grad_out": LEVEL, "exp_avg": LINE, "exp_avg_sq": ORDER}, ["h_mean", "p_dead"],
    BLOCK, 48,
)  # fmt: skip
IDS = np.array([*range(3, 20), 40, *range(100, 119)], np.int64)
DEAD = IDS >= 100


@pytest.fixture(scope="module")
def series() -> dict[str, Any]:
    """Rows that drift together, one of each tensor; gradients and bf16 without a course."""
    rng = np.random.default_rng(5)
    drift = np.cumsum(np.cumsum(rng.normal(0, 1e-4, (STEPS, 1, WIDTH)), axis=0), axis=0)
    w = rng.normal(0, 0.02, (1, ROWS, WIDTH)) + drift + np.cumsum(rng.normal(0, 1e-6, (STEPS, ROWS, WIDTH)), axis=0)
    made = {"W": w, "exp_avg": w * 3, "grad_in": rng.normal(0, 1e-3, w.shape), "grad_out": drift + w * 1e-3}
    made |= {"h_mean": drift[:, 0], "p_dead": rng.random((STEPS, ROWS))}
    return {name: values.astype(np.float32) for name, values in made.items()} | {
        "exp_avg_sq": bf16_bits((w * w).astype(np.float32))
    }


def write(path: Path, series: dict[str, Any], stop: int = STEPS) -> Writer:
    writer = Writer(path, LAYOUT)
    writer.create(IDS, DEAD)
    for step in range(stop):
        writer.add(step * EVERY, {name: values[step] for name, values in series.items()})
    writer.close()
    return writer


@pytest.fixture(scope="module")
def path(series: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("record") / "record.zarr"
    write(place, series)
    return place


def as_read(values: Any) -> Any:
    return widened(values) if values.dtype == np.uint16 else values


def equal(found: Any, expected: Any) -> bool:
    """Whether two arrays have the same dtype, shape and bits."""
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def test_every_tensor_reads_back_bit_for_bit(path: Path, series: dict[str, Any]) -> None:
    record = Record.open(path)
    assert record.steps.tolist() == [EVERY * step for step in range(STEPS)]
    assert record.rows.tolist() == IDS.tolist()
    assert record.dead.tolist() == DEAD.tolist()
    assert set(record.tensors) == set(series)
    for name, values in series.items():
        assert equal(record[name][:], as_read(values)), name
        for step in (0, 1, BLOCK - 1, BLOCK, 47, 48, STEPS - 1, -1):
            assert equal(record[name][step], as_read(values)[step]), (name, step)
        assert equal(record[name][40:60], as_read(values)[40:60])
        assert equal(record[name][5:100:7], as_read(values)[5:100:7])
        assert record[name][10:10].shape == (0, *values.shape[1:])
        with pytest.raises(IndexError):
            record[name][STEPS]


@pytest.mark.parametrize("number", [0, 16, 17, 36])
def test_a_row_reads_back_by_its_id(path: Path, series: dict[str, Any], number: int) -> None:
    record = Record.open(path)
    for name in ("W", "grad_in", "exp_avg_sq", "p_dead"):
        assert equal(record[name].row(int(IDS[number])), as_read(series[name])[:, number])
    for name, row in (("W", 20), ("W", 119), ("h_mean", 3)):
        with pytest.raises(InputError, match=f"row {row} of {name} is not in"):
            record[name].row(row)


def test_blocks_are_consecutive_and_hold_every_step(path: Path, series: dict[str, Any]) -> None:
    for name in series:
        blocks = list(Record.open(path)[name].blocks(7, 90))
        assert [first for first, _ in blocks] == [7, *range(16, 90, 16)]
        assert equal(np.concatenate([values for _, values in blocks]), as_read(series[name])[7:90])
    assert list(Record.open(path).W.blocks(5, 5)) == []


def test_the_bf16_view_is_the_rounded_or_the_recorded_one(path: Path, series: dict[str, Any]) -> None:
    record = Record.open(path)
    assert equal(record.W.bf16[3], bf16_bits(series["W"][3]))
    assert equal(record["exp_avg_sq"].bf16[:], series["exp_avg_sq"])
    assert equal(record.W.bf16.row(40), bf16_bits(series["W"][:, 17]))


def test_stock_zarr_reads_it_by_the_recipe_in_its_attributes(path: Path, series: dict[str, Any]) -> None:
    group = zarr.open_group(path, mode="r")
    names: dict[str, Any] = {}
    exec(group.attrs["recipe"], names)
    assert group["steps"][:].tolist() == [EVERY * step for step in range(STEPS)]
    assert group["rows"][:].tolist() == IDS.tolist()
    assert group["dead"][:].tolist() == DEAD.tolist()
    for name in ("h_mean", "p_dead"):
        assert equal(group[name][:], series[name])
    for name, coding in LAYOUT.codings.items():
        assert group[name].attrs["coding"] == coding
        for block in range(-(-STEPS // BLOCK)):
            found = names["block"](group[name], block, coding)
            assert equal(found, series[name][block * BLOCK : (block + 1) * BLOCK]), (name, block)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("killed", [1, 15, 16, 48, 49, 70, 96, STEPS])
@pytest.mark.parametrize("back", [0, 1, 20])
def test_an_interrupted_record_ends_in_the_bytes_of_one_that_was_not(
    path: Path, series: dict[str, Any], tmp_path: Path, killed: int, back: int
) -> None:
    """It goes on behind a step that it holds, the last or one before."""
    place, kept = tmp_path / "record.zarr", max(1, killed - back)
    write(place, series, killed)
    writer = Writer(place, LAYOUT)
    writer.go_on((kept - 1) * EVERY + 1)  # a run goes on from any step, recorded or not
    assert len(Record.open(place).steps) == kept
    assert equal(Record.open(place).W[:], series["W"][:kept])
    assert zarr.open_group(place, mode="r")["steps"].shape == (kept,)
    for step in range(kept, STEPS):
        writer.add(step * EVERY, {name: values[step] for name, values in series.items()})
    writer.close()
    assert files(place) == files(path)


def test_flushing_at_any_time_changes_no_byte(path: Path, series: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "record.zarr"
    writer = Writer(place, LAYOUT)
    writer.create(IDS, DEAD)
    for step in range(STEPS):
        writer.add(step * EVERY, {name: values[step] for name, values in series.items()})
        if step % 13 == 0:
            writer.flush()
            writer.flush()
    writer.close()
    assert files(place) == files(path)


def test_a_record_is_read_while_it_grows(series: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "record.zarr"
    writer = write(place, series, 20)
    before = Record.open(place)
    for step in range(20, 60):
        writer.add(step * EVERY, {name: values[step] for name, values in series.items()})
    assert len(before.steps) == 20
    assert equal(before.W[:], series["W"][:20])
    assert len(Record.open(place).steps) == 48, "what is not written yet is not there"
    assert equal(Record.open(place).W[:], series["W"][:48])


def test_going_on_is_refused_where_steps_are_missing_or_the_run_is_another(
    series: dict[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / "record.zarr"
    write(place, series, 20)
    with pytest.raises(InputError, match="holds 20 of the 21 steps up to step 60"):
        Writer(place, LAYOUT).go_on(60)
    other = Layout(FORMAT, "another run", *[getattr(LAYOUT, name) for name in Layout.__struct_fields__[2:]])
    with pytest.raises(InputError, match="is another run's record"):
        Writer(place, other).go_on(30)
    assert len(Record.open(place).steps) == 20


def test_a_record_of_one_step_and_one_row(tmp_path: Path) -> None:
    layout = Layout(FORMAT, "", 1, 1, 3, "float32", {"W": LINE}, [], BLOCK, 64)
    writer = Writer(tmp_path / "one.zarr", layout)
    writer.create(np.array([7], np.int64), np.array([True]))
    w = np.array([[0.0, -0.0, 2.0**-149]], np.float32)
    writer.add(0, {"W": w})
    assert Record.open(tmp_path / "one.zarr").steps.tolist() == []
    writer.flush()
    assert equal(Record.open(tmp_path / "one.zarr").W.row(7), w)


def test_files_hold_at_most_64_mb_of_steps_and_at_least_a_block() -> None:
    assert [shard_steps(size) for size in (1000, 2**20, 3 << 20, 4 << 20, 1 << 30)] == [64, 64, 16, 16, 16]
