"""Readers use the files that were recorded, and no others: what is not the recorded file is named and refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.stages.counts import COLUMNS, read_counts
from duckling_data.stages.report.facts import gather
from duckling_data.workspace.manifest import Manifest
from tests.support.data import Cli

READERS = {
    "token_counts.parquet": ["inspect", "--text", "once"],
    "token_mapping.json": ["inspect", "--row", "0"],
    "tokenized_dataset/data-00000-of-00001.arrow": ["inspect", "--row", "0"],
    "tokenized_dataset/state.json": ["inspect", "--row", "0"],
}
"""A command that reads each file."""


@pytest.mark.parametrize(("name", "command"), READERS.items(), ids=READERS)
def test_a_command_refuses_a_file_that_is_not_the_recorded_one_by_name(
    cli: Cli, made: Path, name: str, command: list[str]
) -> None:
    assert cli(command[0], "-w", made, *command[1:]).exit_code == 0
    flip_a_bit(made / name)
    result = cli(command[0], "-w", made, *command[1:])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith(f"duckling-data: {made / name}: has SHA-256 ")
    assert "`duckling-data verify`" in result.stderr


@pytest.mark.parametrize("name", ["token_counts.parquet", "token_mapping.json"])
def test_the_report_shows_no_file_that_is_not_the_recorded_one(made: Path, name: str) -> None:
    assert gather(made, Manifest(made)).counts.total
    flip_a_bit(made / name)
    with pytest.raises(CheckFailed, match=f"{name}: has SHA-256 .*remove {name} and run"):
        gather(made, Manifest(made))


def test_what_the_manifest_does_not_know_is_accepted(made: Path) -> None:
    (made / "manifest.json").unlink()
    flip_a_bit(made / "token_counts.parquet")
    Manifest(made).refuse_changed("count", "token_counts.parquet")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


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
