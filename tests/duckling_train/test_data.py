"""A workspace is taken only when its two files fit the model and each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Sequence, Value, load_from_disk

from duckling_data.base.errors import InputError
from duckling_data.base.records import FileRecord, plain
from duckling_data.rows.read import Rows
from duckling_data.stages.packer import PackFigures, SplitFigures
from duckling_data.workspace.manifest import Manifest, StageRecord
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows, open_validation, open_workspace


@pytest.fixture
def copy(workspace: Path, tmp_path: Path) -> Path:
    """A workspace to spoil."""
    return Path(shutil.copytree(workspace, tmp_path / "workspace", ignore=shutil.ignore_patterns("experiment", "gpt2")))


def put_dataset(workspace: Path, features: Features, columns: dict[str, object]) -> None:
    shutil.rmtree(workspace / "tokenized_dataset")
    Dataset.from_dict(columns, features=features).save_to_disk(str(workspace / "tokenized_dataset"))


def refused(workspace: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        open_workspace(workspace, TrainConfig())
    assert "\n" not in str(error.value)


def test_rows_are_the_datasets_rows(workspace: Path) -> None:
    rows = open_workspace(workspace, TrainConfig()).rows
    expected = np.array(load_from_disk(str(workspace / "tokenized_dataset"))["input_ids"])
    assert np.array_equal([rows[index]["input_ids"] for index in range(len(rows))], expected)
    assert rows.rows.max_id() == expected.max()


def test_rows_are_views_across_chunks() -> None:
    chunks = [np.arange(4, dtype=np.uint16).reshape(2, 2), np.arange(4, 10, dtype=np.uint16).reshape(3, 2)]
    rows = PackedRows(Rows(chunks))
    assert [rows[index]["input_ids"].tolist() for index in range(len(rows))] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert np.shares_memory(rows[4]["input_ids"], chunks[1])
    for outside in (-6, 5):
        with pytest.raises(IndexError):
            rows[outside]


def test_payload_digest_does_not_depend_on_the_chunks() -> None:
    tokens = np.arange(12, dtype=np.uint16).reshape(6, 2)
    whole, cut = Rows([tokens]), Rows([tokens[:1], tokens[1:4], tokens[4:]])
    assert whole.payload_sha256() == cut.payload_sha256()
    assert whole.payload_sha256() != Rows([tokens[::-1]]).payload_sha256()


def test_missing_files_name_the_command_that_makes_them(copy: Path) -> None:
    (copy / "token_mapping.json").unlink()
    refused(copy, "no token_mapping.json in .*: run duckling-data build-vocab")
    shutil.rmtree(copy / "tokenized_dataset")
    refused(copy, "no tokenized_dataset in .*: run duckling-data pack")


def test_another_context_is_refused(copy: Path) -> None:
    features = Features({"input_ids": Sequence(Value("uint16"), 256)})
    put_dataset(copy, features, {"input_ids": np.zeros((3, 256), dtype=np.uint16)})
    refused(copy, r"rows of 256 tokens, expected 512: leave n_positions out, or run duckling-data pack --ctx 512")


def test_another_type_is_refused(copy: Path) -> None:
    features = Features({"input_ids": Sequence(Value("int32"), 512)})
    put_dataset(copy, features, {"input_ids": np.zeros((3, 512), dtype=np.int32)})
    refused(copy, "int32.*expected")


def test_another_column_is_refused(copy: Path) -> None:
    put_dataset(copy, Features({"text": Value("string")}), {"text": ["a"]})
    refused(
        copy,
        "it holds 'text of string', expected 'input_ids' of fixed_size_list<uint16 or uint32>; run duckling-data pack",
    )


def test_a_dead_id_in_the_rows_is_refused(copy: Path) -> None:
    rows = np.zeros((3, 512), dtype=np.uint16)
    rows[2, 511] = 6144
    put_dataset(copy, Features({"input_ids": Sequence(Value("uint16"), 512)}), {"input_ids": rows})
    refused(copy, "holds id 6144, but token_mapping.json's live ids end at 6143")


def test_an_empty_dataset_is_refused(copy: Path) -> None:
    features = Features({"input_ids": Sequence(Value("uint16"), 512)})
    put_dataset(copy, features, {"input_ids": np.zeros((0, 512), dtype=np.uint16)})
    refused(copy, "holds no rows")


def test_another_vocabulary_is_refused(copy: Path) -> None:
    path = copy / "token_mapping.json"
    mapping = json.loads(path.read_text())
    path.write_text(json.dumps(mapping | {"dead_tokens": 1024, "total_vocab": 7168}))
    refused(copy, "total_vocab 7168, the model 8192 rows")


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_cut_off_file_is_refused(copy: Path, kept: int) -> None:
    (shard,) = (copy / "tokenized_dataset").glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:kept])
    refused(copy, r"\.arrow: .*run duckling-data pack")


def record_pack(workspace: Path, payload: str, mapping: str, outputs: dict[str, FileRecord]) -> None:
    figures = PackFigures({"train": SplitFigures(0, 0, 0, 0, 0.0, 0, 0, 0, payload)}) if outputs else None
    manifest = Manifest(workspace)
    manifest.stages["pack"] = StageRecord({}, {"mapping": mapping}, outputs, plain(figures) or {})
    manifest.write()


def test_data_that_the_workspaces_manifest_does_not_know_are_refused(copy: Path) -> None:
    data = open_workspace(copy, TrainConfig())
    made = {"tokenized_dataset/state.json": FileRecord(0, "")}
    record_pack(copy, data.payload_sha256, data.mapping_sha256, made)
    assert open_workspace(copy, TrainConfig()).payload_sha256 == data.payload_sha256
    record_pack(copy, "0" * 64, data.mapping_sha256, made)
    refused(copy, "is not what was packed")
    record_pack(copy, data.payload_sha256, "0" * 64, made)
    refused(copy, "is not what tokenized_dataset was packed with")
    record_pack(copy, data.payload_sha256, data.mapping_sha256, {})
    refused(copy, "was interrupted")


def test_validation_rows_that_the_workspaces_manifest_does_not_list_are_refused(copy: Path) -> None:
    shutil.copytree(copy / "tokenized_dataset", copy / "tokenized_validation")
    data = open_workspace(copy, TrainConfig())
    assert open_validation(copy, TrainConfig(), data.mapping) is not None  # there is no manifest to list them
    record_pack(copy, data.payload_sha256, data.mapping_sha256, {"tokenized_dataset/state.json": FileRecord(0, "")})
    with pytest.raises(InputError, match=r"tokenized_validation was not packed from this source.*: remove it$"):
        open_validation(copy, TrainConfig(), data.mapping)
    assert open_validation(copy, TrainConfig(eval_rows=0), data.mapping) is None  # not opened
