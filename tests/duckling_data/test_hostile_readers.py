"""Stories and rows from anywhere: read or refused in one line, in bounded memory; nothing in them is run."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.corpus.readers import ReadOptions, count_stories, read_blocks, text
from duckling_data.rows.read import read_rows
from duckling_data.rows.write import RowWriter
from tests.support.data import SMALL, Cli
from tests.support.examples import hostile
from tests.support.readers import MIB, grown, refused, stories


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def compressed(path: Path, unit: bytes, times: int, head: bytes = b"", tail: bytes = b"") -> Path:
    """Write a gzip file of several members, which read as one."""
    path.write_bytes(gzip.compress(head) + gzip.compress(unit) * times + gzip.compress(tail))
    return path


def test_a_gigabyte_without_a_break_out_of_a_small_file_is_refused_early(tmp_path: Path) -> None:
    for name, head in (("zeros.txt.gz", b""), ("line.jsonl.gz", b'{"text": "')):
        [(said, memory)] = grown(compressed(tmp_path / name, b"a" * MIB, 1024, head))
        assert "more than 32 MiB without a" in said
        assert memory < 200 * MIB


def test_a_quarter_of_a_gigabyte_of_line_breaks_passes_in_little_memory(tmp_path: Path) -> None:
    [(said, memory)] = grown(compressed(tmp_path / "b.jsonl.gz", b"\n" * MIB, 256, tail=b'{"text": "end"}'))
    assert (said, memory < 200 * MIB) == ("1", True)


def test_the_longest_line_takes_less_than_half_a_gigabyte(tmp_path: Path) -> None:
    head = '{"text": "🐈'.encode()
    [(said, memory)] = grown(compressed(tmp_path / "l.jsonl.gz", b"a" * MIB, 31, head, b'"}'))
    assert (said, memory < 500 * MIB) == ("1", True)


@pytest.mark.parametrize("block_bytes", [7, 64, 1 << 12])
def test_the_limit_is_one_of_the_record_wherever_the_cuts_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(text, "STORY_LIMIT", 100)
    path = tmp_path / "s.txt"
    for place in range(3):
        pieces = ["a", "b", "c"]
        pieces[place] = "x" * 100
        path.write_text("<|endoftext|>".join(pieces))
        assert stories(path, block_bytes) == pieces
        pieces[place] += "x"
        path.write_text("<|endoftext|>".join(pieces))
        assert "without a '<|endoftext|>'" in refused(path, block_bytes)


def test_a_parquet_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = compressed(tmp_path / "b.parquet.gz", bytes(MIB), 200, b"PAR1")
    assert "too much for a Parquet file of its size" in refused(path)


def test_a_pipe_among_the_sources_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.jsonl")
    result = cli("pack", "-w", tmp_path / "w", "--source", tmp_path / "s.jsonl", *SMALL)
    assert (result.exit_code, "regular file" in result.stderr) == (2, True)


@hostile
@given(content=st.binary(max_size=300) | st.text(max_size=100).map(lambda t: json.dumps({"text": t}).encode()))
@pytest.mark.parametrize(
    "name",
    [
        "s.jsonl",
        "s.txt",
        "s.jsonl.gz",
        "s.txt.zst",
        "s.json",
        "s.csv",
        "s.tsv",
        "s.txt.xz",
        "s.arrow",
        "s.feather",
        "s.parquet",
        "s.parquet.gz",
    ],
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        stories(tmp_path / name)
    except InputError:
        refused(tmp_path / name)


def test_a_parquet_file_with_the_column_twice_or_a_thousand_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    assert "2 columns are named 'text'" in refused(path)
    pq.write_table(pa.table({f"column {n} {'x' * 99}": ["a"] for n in range(1000)}), path)
    line = refused(path)
    assert "and 992 more" in line
    assert len(line) < 1000


def test_a_parquet_column_is_read_whatever_other_columns_its_name_may_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    inner, other = {"text": [{"a": "wrong"}, {"a": "wrong"}]}, pa.array(["wrong", "wrong"])
    for name, columns in {
        "doc.text": {"doc": [{"text": "wrong"}, None], "doc.text": ["a", "b"]},
        "text": {"text.a": other, "text": ["a", "b"], "other": inner["text"]},
        "doc.text.a": {"doc.text.a": ["a", "b"], "doc": [inner, inner], "doc.text": inner["text"]},
    }.items():
        pq.write_table(pa.table(columns), path)
        read = [block.parse().to_pylist() for block in read_blocks(path, ReadOptions(name))]
        assert read == [["a", "b"]]
        assert count_stories(path, ReadOptions(name)) == 2


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A dataset of 40 rows of 8 tokens."""
    with RowWriter(tmp_path / "d", 8, "train") as writer:
        writer.write(np.arange(320, dtype=np.uint16).reshape(40, 8))
    writer.put_in_place()
    return tmp_path / "d"


SHARD = "data-00000-of-00001.arrow"


@pytest.mark.parametrize(
    "names",
    [
        ["/etc/passwd"],
        ["../outside.arrow"],
        [".."],
        [""],
        [7],
        [None],
        [SHARD, SHARD],
        ["sub/" + SHARD],
        ["a\0b"],
    ],
)
def test_no_shard_is_outside_the_dataset(rows: Path, names: list[Any]) -> None:
    (rows.parent / "outside.arrow").write_bytes((rows / SHARD).read_bytes())
    state = json.loads((rows / "state.json").read_bytes())
    (rows / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": name} for name in names]}))
    with pytest.raises(InputError) as error:
        read_rows(rows)
    assert "\n" not in str(error.value)


def test_a_shard_that_is_a_link_out_of_the_dataset_is_refused(rows: Path) -> None:
    (rows / SHARD).rename(rows.parent / "elsewhere")
    (rows / SHARD).symlink_to(rows.parent / "elsewhere")
    with pytest.raises(InputError, match="leads out of"):
        read_rows(rows)


def test_a_shard_that_is_a_pipe_is_refused(rows: Path) -> None:
    (rows / SHARD).unlink()
    os.mkfifo(rows / SHARD)
    with pytest.raises(InputError, match="regular file"):
        read_rows(rows)


def write_shard(path: Path, array: pa.Array, compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    table = pa.table({"input_ids": array})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as stream:
        stream.write_table(table)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_compressed_shard_is_refused_before_it_is_unpacked(rows: Path, codec: str) -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8 * MIB, np.uint16)), 8)
    write_shard(rows / SHARD, zeros, codec)
    before = pa.total_allocated_bytes()
    with pytest.raises(InputError, match="it is compressed"):
        read_rows(rows)
    assert pa.total_allocated_bytes() == before
    write_shard(rows / SHARD, zeros)
    assert sum(map(len, read_rows(rows))) == MIB


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1, None]], pa.list_(pa.uint16(), 2)),
        pa.array([[1, 2], None], pa.list_(pa.uint16(), 2)),
        pa.array([[1, 2]], pa.list_(pa.int32(), 2)),
        pa.array([[1, 2]], pa.list_(pa.uint16())),
        pa.array([[], []], pa.list_(pa.uint16(), 0)),
        pa.array(["a"]),
    ],
)
def test_a_shard_of_another_layout_is_refused(rows: Path, array: pa.Array) -> None:
    write_shard(rows / SHARD, array)
    with pytest.raises(InputError, match=SHARD):
        read_rows(rows)


def test_nothing_in_a_dataset_is_run(rows: Path, tmp_path: Path) -> None:
    sign = tmp_path / "it ran"
    payload = pickle.dumps(Bomb(sign))
    for name in ("dataset_info.json.pkl", "data.pkl", "pytorch_model.bin", "state.json.pkl"):
        (rows / name).write_bytes(payload)
    (rows / "d.py").write_text(f"import pathlib; pathlib.Path({str(sign)!r}).touch()")
    (rows / "dataset_info.json").write_text('{"features": {"input_ids": {"_type": "exec"}}}')
    assert sum(map(len, read_rows(rows))) == 40
    (rows / SHARD).write_bytes(payload)
    with pytest.raises(InputError, match=SHARD):
        read_rows(rows)
    assert not sign.exists()
    pickle.loads(payload)
    assert sign.exists()  # so it would have been seen
