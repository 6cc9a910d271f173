"""Arrow files and `save_to_disk` folders of stories: read row by row, or refused, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from duckling_data.corpus.demo import demo_stories
from tests.support.data import SMALL, Cli, read_json, verified
from tests.support.readers import MIB, grown, refused, stories

TEXTS = [*demo_stories(0, 300).to_pylist(), None, "", "é 🐈", "long " * 999, None]
KINDS = {
    "string": pa.array(TEXTS),
    "large": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS, pa.string_view()),
    "category": pa.array(TEXTS).dictionary_encode(),
}


def write(path: Path, table: pa.Table, rows: int = 100, **options: Any) -> Path:
    """Write a stream, or by the name `.feather` a file."""
    open_writer = pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream
    with (
        pa.OSFile(str(path), "wb") as file,
        open_writer(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer,
    ):
        writer.write_table(table, rows)
    return path


@pytest.mark.parametrize("suffix", ["arrow", "feather"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_bytes", [1, 5000, 1 << 22])
def test_every_kind_of_text_column_is_read(tmp_path: Path, kind: str, suffix: str, block_bytes: int) -> None:
    inner = pa.array([{"text": "wrong"}] * len(TEXTS))
    table = pa.table({"n": range(len(TEXTS)), "doc": inner, "text": KINDS[kind]})
    path = write(tmp_path / f"s.{suffix}", table.slice(1), emit_dictionary_deltas=suffix == "arrow")
    assert stories(path, block_bytes) == TEXTS[1:]


def test_what_is_no_plain_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.arrow"
    for codec in ("zstd", "lz4"):
        for column in (pa.array(["a" * 999]), pa.array(["a" * 999]).dictionary_encode()):
            assert "compressed" in refused(write(path, pa.table({"text": column}), compression=codec))
    assert "expected text" in refused(write(path, pa.table({"text": [1]})))
    assert "holds null, expected" in refused(write(path, pa.table({"text": pa.nulls(3)})))
    assert "no column 'text'; it has 'story'" in refused(write(path, pa.table({"story": ["a"]})))
    whole = write(path, pa.table({"text": TEXTS})).read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 2000, len(whole) - 8):
        path.write_bytes(whole[:size])
        refused(path)
    path.write_bytes(whole + whole)
    assert "more behind the end" in refused(path)
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xff"))
    assert "not UTF-8 in row 0" in refused(write(path, pa.table({"text": bad})))


def test_what_lies_under_a_null_leads_nowhere_and_an_offset_out_of_bounds_is_refused(tmp_path: Path) -> None:
    column = pa.array(["a story that is not in its view", None, "b"], pa.string_view())
    valid, views, *data = column.buffers()
    wild = np.frombuffer(views, np.int32).reshape(-1, 4).copy()
    wild[1] = -(1 << 24), 0, 7, 1 << 30
    column = pa.Array.from_buffers(column.type, 3, [valid, pa.py_buffer(wild), *data])
    assert stories(write(tmp_path / "v.arrow", pa.table({"text": column}))) == [*column.to_pylist()[:1], None, "b"]
    text = pa.py_buffer(b"\xffbc")
    for offsets in ([0, 900, 3], [0, -5, 3], [2, 1, 3]):
        column = pa.StringArray.from_buffers(2, pa.py_buffer(np.array(offsets, np.int32)), text)
        refused(write(tmp_path / "o.arrow", pa.table({"text": column})))
    column = pa.DictionaryArray.from_arrays(pa.array([0, 77], pa.int32()), pa.array(["a"]), safe=False)
    refused(write(tmp_path / "d.arrow", pa.table({"text": column})))


def test_a_small_file_of_gigabytes_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    values, rows = pa.array(["x" * MIB]), 20_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), values)
    view = np.tile(np.array(values.cast(pa.string_view()).buffers()[1]).view(np.uint8), rows)
    views = pa.Array.from_buffers(
        pa.string_view(), rows, [None, pa.py_buffer(view), *values.cast(pa.string_view()).buffers()[2:]]
    )
    paths = [
        write(tmp_path / f"{name}.arrow", pa.table({"text": bomb}), rows)
        for name, bomb in (("dictionary", column), ("views", views))
    ]
    assert max(path.stat().st_size for path in paths) < 2 * MIB
    for said, memory in grown(*paths):
        assert "out of all proportion to its size" in said
        assert memory < 300 * MIB


def test_a_folder_of_save_to_disk_is_read_by_its_own_list_of_files(cli: Cli, tmp_path: Path) -> None:
    texts = demo_stories(0, 40).to_pylist()
    data = Dataset.from_dict({"text": texts})
    data.save_to_disk(tmp_path / "d", num_shards=3)
    write(tmp_path / "d" / "cache-1.arrow", pa.table({"text": ["not of the data set"]}))
    write(tmp_path / "d" / "z.arrow", pa.table({"text": ["not either"]}))
    workspace = tmp_path / "w"
    result = cli("pack", "-w", workspace, "--source", tmp_path / "d", *SMALL)
    assert result.exit_code == 0, result.stderr
    train = read_json(workspace / "manifest.json")["corpus"]["splits"]["train"]
    assert [file["name"] for file in train["files"]] == [f"data-0000{n}-of-00003.arrow" for n in range(3)]
    assert train["stories"] == 40
    verified(workspace)
    DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "dict")
    result = cli("pack", "-w", workspace, "--source", tmp_path / "dict", *SMALL)
    assert (result.exit_code, "several splits" in result.stderr) == (2, True)
