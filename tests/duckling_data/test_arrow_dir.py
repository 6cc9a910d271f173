"""The dataset directory: its bytes depend on the rows alone, and datasets opens it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Features, Sequence, Value, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duckling_data.base.errors import InputError, OutsideError
from duckling_data.rows import layout
from duckling_data.rows.read import read_rows
from duckling_data.rows.write import RowWriter
from tests.support.data import snapshot

CTX = 8


@pytest.fixture(scope="module", autouse=True)
def _small_shards() -> Any:
    """Four rows a batch, twelve a shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "ROWS_PER_BATCH", 4)
        patch.setattr(layout, "ROWS_PER_SHARD", 12)
        yield


def make_rows(count: int, ctx: int = CTX) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 1 << 16, (count, ctx), np.uint16)


def write(place: Path, *chunks: np.ndarray, ctx: int = CTX) -> RowWriter:
    with RowWriter(place, ctx, "train") as writer:
        for chunk in chunks:
            writer.write(chunk)
    writer.put_in_place()
    return writer


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 60), data=st.data())
def test_the_bytes_do_not_depend_on_how_the_rows_are_handed_over(
    tmp_path: Path, count: int, data: st.DataObject
) -> None:
    rows = make_rows(count)
    borders = sorted(data.draw(st.lists(st.integers(0, count), max_size=10)))
    one, other = write(tmp_path / "one", rows), write(tmp_path / "other", *np.split(rows, borders))
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "other")
    assert one.outputs == other.outputs
    assert one.payload_sha256 == other.payload_sha256 == digest(rows)


def digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.astype("<u2").tobytes()).hexdigest()


def test_rows_in_another_byte_order_or_layout_give_the_same_bytes(tmp_path: Path) -> None:
    rows = make_rows(30)
    write(tmp_path / "plain", rows)
    write(tmp_path / "big", rows.astype(">u2"))
    write(tmp_path / "fortran", np.asfortranarray(rows))
    assert snapshot(tmp_path / "plain") == snapshot(tmp_path / "big") == snapshot(tmp_path / "fortran")


@pytest.mark.parametrize(("count", "shards"), [(1, 1), (11, 1), (12, 1), (13, 2), (24, 2), (40, 4)])
def test_a_full_shard_is_followed_by_the_next_and_all_are_numbered(tmp_path: Path, count: int, shards: int) -> None:
    write(tmp_path / "d", make_rows(count))
    names = [f"data-{shard:05d}-of-{shards:05d}.arrow" for shard in range(shards)]
    assert sorted(snapshot(tmp_path / "d")) == [*names, "dataset_info.json", "state.json"]
    sizes = [min(12, count - first) for first in range(0, count, 12)]
    batches = [min(4, size - first) for size in sizes for first in range(0, size, 4)]
    assert [len(batch) for batch in read_rows(tmp_path / "d")] == batches


@pytest.mark.parametrize("ctx", [1, 512])
@pytest.mark.parametrize("count", [1, 40])
def test_datasets_opens_it_and_finds_the_rows(tmp_path: Path, count: int, ctx: int) -> None:
    rows = make_rows(count, ctx)
    write(tmp_path / "d", rows, ctx=ctx)
    dataset = load_from_disk(str(tmp_path / "d"))
    assert len(dataset) == count
    assert dataset.column_names == ["input_ids"]
    assert dataset.features == Features({"input_ids": Sequence(Value("uint16"), length=ctx)})
    assert dataset.split == "train"
    assert dataset[count - 1]["input_ids"] == rows[-1].tolist()
    np.testing.assert_array_equal(np.array(dataset["input_ids"]), rows)
    np.testing.assert_array_equal(np.concatenate(read_rows(tmp_path / "d")), rows)


def test_what_the_writer_says_of_its_files_is_what_lies_on_disk(tmp_path: Path) -> None:
    writer = write(tmp_path / "d", make_rows(30))
    on_disk = {path.name: path.stat().st_size for path in (tmp_path / "d").iterdir()}
    assert {name: said.sha256 for name, said in writer.outputs.items()} == snapshot(tmp_path / "d")
    assert {name: said.bytes for name, said in writer.outputs.items()} == on_disk


@pytest.mark.parametrize("before", [0, 3, 30])
def test_an_error_leaves_the_old_directory_and_no_half_of_a_new_one(tmp_path: Path, before: int) -> None:
    write(tmp_path / "d", make_rows(5))
    old = snapshot(tmp_path)
    with pytest.raises(KeyboardInterrupt), RowWriter(tmp_path / "d", CTX, "train") as writer:  # noqa: PT012
        writer.write(make_rows(before))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert snapshot(tmp_path) == old


def test_a_disk_that_refuses_the_last_file_leaves_the_old_directory(tmp_path: Path) -> None:
    write(tmp_path / "d", make_rows(5))
    old = snapshot(tmp_path)
    refused = pytest.raises(OutsideError, match="cannot be written")
    with refused, RowWriter(tmp_path / "d", CTX, "train") as writer:
        writer.write(make_rows(30))
        (tmp_path / "d.partial" / "state.json").mkdir()  # no file can be renamed to its place
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert snapshot(tmp_path) == old


def test_a_finished_directory_replaces_the_old_one_whole_and_only_when_told(tmp_path: Path) -> None:
    write(tmp_path / "d", make_rows(40))
    old = snapshot(tmp_path / "d")
    with RowWriter(tmp_path / "d", CTX, "train") as writer:
        writer.write(make_rows(7))
    assert snapshot(tmp_path / "d") == old
    writer.put_in_place()
    np.testing.assert_array_equal(np.concatenate(read_rows(tmp_path / "d")), make_rows(7))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert len(list((tmp_path / "d").iterdir())) == 3  # the four old shards are gone


def test_what_a_crash_left_behind_does_not_get_in_the_way(tmp_path: Path) -> None:
    write(tmp_path / "d", make_rows(9))
    for leftover in ("d.partial", "d.old.partial"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "data-00000-of-00009.arrow").write_bytes(b"half")
    write(tmp_path / "d", make_rows(5))
    write(tmp_path / "clean", make_rows(5))
    assert snapshot(tmp_path / "d") == snapshot(tmp_path / "clean")
    write(tmp_path / "d", make_rows(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "d"]


@pytest.mark.parametrize("keep", [0, 10, 300, -1, -20, -200])
def test_a_truncated_shard_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "d", make_rows(20))
    shard = tmp_path / "d" / "data-00001-of-00002.arrow"
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(InputError, match=shard.name):
        read_rows(tmp_path / "d")


def test_a_missing_shard_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "d", make_rows(20))
    (tmp_path / "d" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match="data-00001-of-00002"):
        read_rows(tmp_path / "d")
