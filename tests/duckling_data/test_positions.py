"""`pack --positions`: where each token is in its own story, beside rows that stay as they are without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.corpus.demo import demo_stories
from duckling_data.rows.cut import RowPacker, story_positions
from duckling_data.rows.read import open_rows
from duckling_data.rows.write import RowWriter
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_data.workspace.manifest import Manifest
from tests.support.data import Cli, build, found, read_json, rows_of, snapshot, stages_that, verified, write_jsonl

TEXTS = ["", *demo_stories(0, 20).to_pylist(), "a 🦆", "", f"one{GPT2.eos_text} two", *demo_stories(20, 40).to_pylist()]
SETTINGS: dict[str, Any] = {"sample": "all", "live": 300, "dead": 20, "ctx": 32, "group": 7}
SHARD = "data-00000-of-00001.arrow"


def plain_positions(lengths: list[int], ctx: int, group: int | None) -> list[list[int]]:
    """The rows of positions, with plain lists."""
    rows = []
    for start in range(0, len(lengths), group or max(len(lengths), 1)):
        stream = [at for length in lengths[start : start + (group or len(lengths))] for at in range(length)]
        rows += [stream[at : at + ctx] for at in range(0, len(stream) - ctx + 1, ctx)]
    return rows


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=40),
    ctx=st.integers(1, 50),
    group=st.one_of(st.none(), st.integers(1, 50)),
    borders=st.lists(st.integers(0, 40), max_size=8).map(sorted),
)
def test_any_batching_gives_the_positions_of_plain_lists(
    lengths: list[int], ctx: int, group: int | None, borders: list[int]
) -> None:
    packer, rows = RowPacker(ctx, group), []
    for start, stop in zip([0, *borders], [*borders, len(lengths)], strict=True):
        batch = np.array(lengths[start:stop], np.int64)
        rows += packer.add(story_positions(batch), batch).tolist()
    assert rows == plain_positions(lengths, ctx, group)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspaces of the same stories: `without` and `with` positions."""
    folder = tmp_path_factory.mktemp("positions")
    write_jsonl(folder / "s.jsonl", TEXTS)
    build(folder / "without", folder / "s.jsonl", **SETTINGS)
    build(folder / "with", folder / "s.jsonl", **SETTINGS, positions=True)
    return folder


@pytest.mark.parametrize("separator", ["none", "eos"])
def test_positions_count_the_tokens_of_each_story_its_separator_last(tmp_path: Path, separator: str) -> None:
    write_jsonl(tmp_path / "s.jsonl", TEXTS)
    policy = {"unk": "decompose", "eos": True, "separator": separator, "positions": True}
    build(tmp_path / "w", tmp_path / "s.jsonl", **SETTINGS | policy)
    tokenizer = DucklingTokenizer(tmp_path / "w" / "token_mapping.json")
    lengths = [len(tokenizer.encode(text)) + (separator == "eos") for text in TEXTS]
    stored = open_rows(tmp_path / "w" / "tokenized_dataset")
    assert stored.positions is not None
    assert stored.positions[:].dtype == np.uint32
    assert stored.positions[:].tolist() == plain_positions(lengths, ctx=32, group=7)


def test_datasets_opens_both_columns(made_once: Path) -> None:
    loaded = datasets.load_from_disk(str(made_once / "with" / "tokenized_dataset"))
    stored = open_rows(made_once / "with" / "tokenized_dataset")
    assert loaded.column_names == ["input_ids", "position"]
    assert [loaded.features[name].feature.dtype for name in loaded.column_names] == ["uint16", "uint32"]
    assert stored.positions is not None
    assert loaded[3] == {"input_ids": stored[3].tolist(), "position": stored.positions[3].tolist()}
    assert loaded._fingerprint != datasets.load_from_disk(str(made_once / "without" / "tokenized_dataset"))._fingerprint


def test_the_rows_are_those_without_and_the_records_of_the_default_say_nothing(made_once: Path) -> None:
    assert np.array_equal(rows_of(made_once / "with"), rows_of(made_once / "without"))
    with_, without = (Manifest(made_once / name).stages["pack"] for name in ("with", "without"))
    assert list(without.settings) == ["ctx", "group", "separator"]
    assert with_.settings == without.settings | {"positions": True}
    figures = without.figures["splits"]["train"]
    assert list(figures)[-1] == "payload_sha256"
    assert with_.figures["splits"]["train"].items() - figures.items() == {
        ("positions_sha256", with_.figures["splits"]["train"]["positions_sha256"])
    }


def test_the_setting_is_remembered_and_taken_back(tmp_path: Path, stories: Path, cli: Cli) -> None:
    small = ("--sample", "all", "--live", "300", "--dead", "20", "--ctx", "32", "-w", tmp_path / "w")
    assert cli("pack", "--source", stories, *small).exit_code == 0
    before = snapshot(tmp_path / "w")
    asked = cli("pack", "-w", tmp_path / "w", "--positions")
    assert stages_that("made", asked) == ["pack"]
    assert "[positions changed from its default to True]" in asked.stderr
    assert "pack" in stages_that("up to date", cli("pack", "-w", tmp_path / "w"))
    assert verified(tmp_path / "w")
    back = cli("pack", "-w", tmp_path / "w", "--no-positions")
    assert "[positions changed from True to its default]" in back.stderr
    assert snapshot(tmp_path / "w") == before


def forge(workspace: Path, positions: np.ndarray) -> None:
    """Put other positions in the place of the workspace's, and make the manifest say that they are right."""
    with RowWriter(workspace / "tokenized_dataset", 32, "train", positions=True) as writer:
        writer.write(rows_of(workspace), positions)
    writer.put_in_place()
    manifest = Manifest(workspace)
    record = manifest.stages["pack"]
    record.outputs |= {f"tokenized_dataset/{name}": made for name, made in writer.outputs.items()}
    record.figures["splits"]["train"]["positions_sha256"] = writer.positions_sha256
    manifest.write()
    manifest.write_sums()


def test_verify_derives_the_positions_again(tmp_path: Path, stories: Path) -> None:
    build(tmp_path, stories, **SETTINGS, positions=True)
    stored = open_rows(tmp_path / "tokenized_dataset").positions
    assert stored is not None
    positions = stored[:].copy()
    positions[5, 9] += 1
    forge(tmp_path, positions)
    difference = f"found position {positions[5, 9]}, expected {positions[5, 9] - 1}"
    found(tmp_path, f"pack: tokenized_dataset/{SHARD} row 5 column 9: {difference}")
    manifest = Manifest(tmp_path)
    del manifest.stages["pack"].settings["positions"]
    manifest.write()
    manifest.write_sums()
    found(tmp_path, "tokenized_dataset has a column position, manifest.json says positions False")


def test_inspect_shows_where_stories_begin(made_once: Path, cli: Cli) -> None:
    stored = open_rows(made_once / "with" / "tokenized_dataset")
    assert stored.positions is not None
    row = next(row for row in range(1, len(stored)) if 0 in stored.positions[row][1:] and stored.positions[row][0])
    begins = np.flatnonzero(stored.positions[row] == 0).tolist()
    said = cli("inspect", "-w", made_once / "with", "--row", row).stdout.splitlines()
    assert f"-- column 0: token {stored.positions[row][0]:,} of a story" in said
    assert [line for line in said if "begins" in line] == [f"-- column {at}: a story begins" for at in begins]
    whole = cli("inspect", "-w", made_once / "without", "--row", row).stdout.partition("\n")[2]
    assert "".join(line for line in said[1:] if not line.startswith("-- column")) == "".join(whole.splitlines())


def shard(path: Path, ids: pa.Array, positions: pa.Array) -> None:
    table = pa.table({"input_ids": ids, "position": positions})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


@pytest.mark.parametrize(
    "positions",
    [
        pa.array([[0]], pa.list_(pa.uint32(), 1)),
        pa.array([[0, 1]], pa.list_(pa.uint16(), 2)),
        pa.array([[0, None]], pa.list_(pa.uint32(), 2)),
        pa.array([7], pa.uint32()),
    ],
)
def test_a_column_of_positions_of_another_layout_is_refused(tmp_path: Path, positions: pa.Array) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": SHARD}]}))
    shard(tmp_path / SHARD, pa.array([[4, 5]], pa.list_(pa.uint16(), 2)), positions)
    with pytest.raises(InputError, match=SHARD):
        open_rows(tmp_path)


def test_shards_of_different_columns_are_refused(made_once: Path, tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / f"{name}.arrow").write_bytes((made_once / name / "tokenized_dataset" / SHARD).read_bytes())
    state = read_json(made_once / "with" / "tokenized_dataset" / "state.json")
    files = [{"filename": "with.arrow"}, {"filename": "without.arrow"}]
    (tmp_path / "state.json").write_text(json.dumps(state | {"_data_files": files}))
    with pytest.raises(InputError, match=r"without.arrow: it holds \['input_ids'\], the first shard"):
        open_rows(tmp_path)
