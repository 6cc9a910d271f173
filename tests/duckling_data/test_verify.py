"""`verify` finds any damage, names the file, and ends with 1; with 2 where there is nothing to verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from duckling_data.arrow_dir import RowWriter
from duckling_data.files import write_json
from duckling_data.manifest import Manifest, describe_output
from duckling_data.verify import golden_digests
from tests.duckling_data.conftest import Cli, Result, build, read_json, snapshot

SHARD = "data-00000-of-00001.arrow"
ARTIFACTS = [
    "token_counts.parquet",
    "token_mapping.json",
    *(
        f"{folder}/{name}"
        for folder in ("tokenized_dataset", "tokenized_validation")
        for name in (SHARD, "dataset_info.json", "state.json")
    ),
]


@pytest.fixture(scope="module")
def demo_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    build(folder / "w", "demo:200", sample="all", live=300, dead=20, ctx=32)
    return folder / "w"


@pytest.fixture
def demo(demo_once: Path, tmp_path: Path) -> Path:
    """A workspace of one's own, with a validation split."""
    return Path(shutil.copytree(demo_once, tmp_path / "demo"))


def found(result: Result, *says: str) -> None:
    """The check failed, and said so."""
    assert result.exit_code == 1, (result.stdout, result.stderr)
    for word in says:
        assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_a_fresh_workspace_passes_and_is_not_touched(cli: Cli, demo: Path) -> None:
    before = snapshot(demo)
    result = cli("verify", "-w", demo)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["count", "ok:"],
        ["build-vocab", "ok:"],
        ["pack", "ok:"],
    ]
    assert snapshot(demo) == before
    assert cli("verify", "-w", demo, "-q").stdout == ""


@pytest.mark.parametrize("name", ARTIFACTS)
def test_one_flipped_bit_anywhere_is_found(cli: Cli, demo: Path, name: str) -> None:
    good = (demo / name).read_bytes()
    for place in (0, len(good) // 3, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        (demo / name).write_bytes(bad)
        found(cli("verify", "-w", demo), f"{name} has SHA-256")


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_truncated_file_is_found(cli: Cli, demo: Path, name: str) -> None:
    (demo / name).write_bytes((demo / name).read_bytes()[:-1])
    found(cli("verify", "-w", demo), f"{name} has ", "bytes, expected")


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_removed_file_is_found(cli: Cli, demo: Path, name: str) -> None:
    (demo / name).unlink()
    found(cli("verify", "-w", demo), f"{name} is missing")


def test_all_damage_is_named_at_once(cli: Cli, demo: Path) -> None:
    (demo / "token_counts.parquet").unlink()
    shutil.rmtree(demo / "tokenized_validation")
    found(cli("verify", "-w", demo), "token_counts.parquet is missing", f"tokenized_validation/{SHARD} is missing")


def swap_two_ids(mapping: Path) -> None:
    """Edit a mapping so that it is still a good one."""
    edited = read_json(mapping)
    ids = edited["live_token_ids"]
    ids[1], ids[2] = ids[2], ids[1]
    edited["compact_to_gpt2"] = {str(compact): gpt2 for compact, gpt2 in enumerate(ids)}
    edited["gpt2_to_compact"] = {str(gpt2): compact for compact, gpt2 in enumerate(ids)}
    mapping.write_text(json.dumps(edited, indent=2))


def test_an_edited_mapping_is_found(cli: Cli, demo: Path) -> None:
    swap_two_ids(demo / "token_mapping.json")
    found(cli("verify", "-w", demo), "build-vocab: token_mapping.json", "pack: the rows were made with another")


def test_an_edited_mapping_is_found_even_where_the_manifest_was_edited_too(cli: Cli, demo: Path) -> None:
    swap_two_ids(demo / "token_mapping.json")
    manifest = Manifest(demo)
    manifest.stages["build-vocab"].outputs["token_mapping.json"] = describe_output(demo / "token_mapping.json")
    manifest.write()
    found(cli("verify", "-w", demo), "the rows were made with another token_mapping.json; run `duckling-data pack`")


@pytest.mark.parametrize("with_its_record", [False, True])
def test_a_dataset_swapped_in_from_another_mapping_is_found(
    cli: Cli, demo: Path, tmp_path: Path, with_its_record: bool
) -> None:
    other = tmp_path / "other"
    build(other, "demo:200", sample="all", live=299, dead=21, ctx=32)
    for folder in ("tokenized_dataset", "tokenized_validation"):
        shutil.rmtree(demo / folder)
        shutil.copytree(other / folder, demo / folder)
    if with_its_record:
        manifest = Manifest(demo)
        manifest.stages["pack"] = Manifest(other).stages["pack"]
        manifest.write()
        found(cli("verify", "-w", demo), "the rows were made with another token_mapping.json")
    else:
        found(cli("verify", "-w", demo), f"tokenized_dataset/{SHARD} has ")


def test_a_dead_id_in_the_rows_is_found_by_row_and_column(cli: Cli, demo: Path) -> None:
    rows = np.zeros((5, 32), np.uint16)
    rows[3, 17] = 300  # the first dead id
    with RowWriter(demo / "tokenized_dataset", 32, "train") as writer:
        writer.write(rows)
    writer.put_in_place()
    manifest = Manifest(demo)
    record = manifest.stages["pack"]
    record.outputs |= {f"tokenized_dataset/{name}": said for name, said in writer.outputs.items()}
    record.figures["splits"]["train"] |= {"rows": 5, "payload_sha256": writer.payload_sha256}
    manifest.write()
    found(cli("verify", "-w", demo), "tokenized_dataset row 3 column 17: id 300, expected below 300")


def test_rows_left_behind_by_a_new_mapping_are_found(cli: Cli, demo: Path) -> None:
    cli("build-vocab", "-w", demo, "--live", "250")
    found(cli("verify", "-w", demo), "the rows were made with another token_mapping.json")
    cli("pack", "-w", demo)
    cli("count", "-w", demo, "--sample", "50")
    found(cli("verify", "-w", demo), "token_mapping.json was made from other counts; run `duckling-data build-vocab`")


def test_an_interrupted_stage_is_found(cli: Cli, demo: Path) -> None:
    Manifest(demo).begin("pack")
    found(cli("verify", "-w", demo), "pack: was interrupted and is not whole; run `duckling-data pack`")


# Golden digests


@pytest.fixture
def golden(demo: Path, tmp_path: Path) -> Path:
    write_json(tmp_path / "golden.json", {"digests": golden_digests(Manifest(demo))})
    return tmp_path / "golden.json"


def test_the_right_golden_digests_pass(cli: Cli, demo: Path, golden: Path) -> None:
    result = cli("verify", "-w", demo, "--golden", golden)
    assert result.exit_code == 0
    assert "golden       ok" in result.stdout


@pytest.mark.parametrize(
    "name",
    ["counts_sha256", "mapping_sha256", "tokenized_dataset_payload_sha256", "tokenized_validation_payload_sha256"],
)
@pytest.mark.parametrize("change", ["changed", "left out"])
def test_a_golden_digest_that_differs_is_named(cli: Cli, demo: Path, golden: Path, name: str, change: str) -> None:
    content = read_json(golden)
    if change == "changed":
        content["digests"][name] = "0" * 64
    else:
        del content["digests"][name]
    golden.write_text(json.dumps(content))
    result = cli("verify", "-w", demo, "--golden", golden)
    found(result, f"golden: {name} is ")
    assert result.stderr.count("golden: ") == 1


# Nothing to verify


def test_without_a_manifest_there_is_nothing_to_verify(cli: Cli, tmp_path: Path) -> None:
    result = cli("verify", "-w", tmp_path)
    assert result.exit_code == 2
    assert "no manifest.json there, nothing to verify" in result.stderr


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"digests": 3}'])
def test_a_golden_file_that_is_none_is_refused(cli: Cli, demo: Path, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "golden.json").write_text(content)
    result = cli("verify", "-w", demo, "--golden", tmp_path / "golden.json")
    assert result.exit_code == 2
    assert "golden.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_golden_digests_of_a_workspace_without_rows_are_refused(cli: Cli, demo: Path, golden: Path) -> None:
    cli("build-vocab", "-w", demo.parent / "half", "--source", "demo:200", "--live", "300")
    result = cli("verify", "-w", demo.parent / "half", "--golden", golden)
    assert result.exit_code == 2
    assert "'pack' is not made" in result.stderr
