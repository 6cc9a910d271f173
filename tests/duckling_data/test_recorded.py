"""Readers use the files that were recorded, and no others: what is not the recorded file is named and refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.base.errors import InputError
from duckling_data.stages.counts import COLUMNS, read_counts
from tests.duckling_data.conftest import Cli

READERS = {
    "token_counts.parquet": (["report"], ["inspect", "--text", "once"]),
    "token_mapping.json": (["inspect", "--text", "once"], ["inspect", "--row", "0"]),
    "tokenized_dataset/data-00000-of-00001.arrow": (["inspect", "--row", "0"],),
    "tokenized_dataset/state.json": (["inspect", "--row", "0"],),
    "tokenized_validation/state.json": (),
}
READS = [(name, command) for name, commands in READERS.items() for command in commands]


@pytest.mark.parametrize(("name", "command"), READS, ids=[f"{name} {command[0]}" for name, command in READS])
@pytest.mark.parametrize("damage", ["a bit", "cut", "empty", "other"])
def test_a_file_that_is_not_the_recorded_one_is_refused_by_name(
    cli: Cli, made: Path, name: str, command: list[str], damage: str
) -> None:
    assert cli(command[0], "-w", made, *command[1:]).exit_code == 0
    shutil.rmtree(made / "report", ignore_errors=True)
    content = (made / name).read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    other = {"a bit": flipped, "cut": content[:-1], "empty": b"", "other": os.urandom(len(content))}[damage]
    (made / name).write_bytes(other)
    result = cli(command[0], "-w", made, *command[1:])
    if command == ["report"] and damage in ("cut", "empty"):  # another size is seen at once, and made again
        assert result.exit_code == 0
        assert (made / name).read_bytes() == content
        return
    line = result.stderr.splitlines()[-1]
    assert result.exit_code in (1, 2)
    assert line.startswith("duckling-data: ")
    assert name in line
    assert "Traceback" not in result.stderr
    if damage == "a bit":
        assert (result.exit_code, "`duckling-data verify`" in line) == (1, True), line


GOOD = {"gpt2_id": [13, 7], "count": [5, 2], "first_seen": [0, 1]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"count": pa.array([5.0, 2.0])}, "its columns are"),
        ({"first_seen": pa.array(["a", "b"])}, "its columns are"),
        ({"gpt2_id": pa.array([[1], [2]])}, "its columns are"),
        ({"more": pa.array([1, 2])}, "its columns are"),
        ({"gpt2_id": pa.array([13, 60_000], pa.uint16())}, "the id 60000"),
        ({"gpt2_id": pa.array([13, None], pa.uint16())}, "it has nulls"),
    ],
)
def test_a_table_that_cannot_be_counts_is_refused(tmp_path: Path, changed: dict[str, pa.Array], said: str) -> None:
    types = {"uint16": pa.uint16(), "int64": pa.int64(), "int32": pa.int32()}
    good = {name: pa.array(GOOD[name], types[kind]) for name, kind in COLUMNS.items()}
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table(good), path)
    assert read_counts(path).total == 7
    pq.write_table(pa.table(good | changed), path)
    with pytest.raises(InputError, match=said) as caught:
        read_counts(path)
    assert "\n" not in str(caught.value)
