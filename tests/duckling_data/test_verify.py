"""`verify` finds any damage, names the file, and ends with 1; with 2 where there is nothing to verify."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duckling_data.rows.write import RowWriter
from duckling_data.tokens.mapping import mapping_bytes
from duckling_data.verify import golden_digests
from duckling_data.verify.reference import reference_lines
from duckling_data.workspace.manifest import Manifest, StageRecord, describe_output
from duckling_data.workspace.sums import write_sums
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
    write_sums(folder / "w")
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
        ["corpus", "ok:"],
        ["sums", "ok:"],
    ]
    assert snapshot(demo) == before
    assert cli("verify", "-w", demo, "-q").stdout == ""


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
    found(cli("verify", "-w", demo), f"tokenized_dataset/{SHARD} row 3 column 17: id 300, expected below 300")


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
def golden(cli: Cli, demo: Path, tmp_path: Path) -> Path:
    result = cli("verify", "-w", demo, "--write-golden", tmp_path / "golden.json")
    assert result.exit_code == 0, result.stderr
    return tmp_path / "golden.json"


def test_golden_digests_are_written_of_a_workspace_that_holds_and_of_no_other(
    cli: Cli, demo: Path, golden: Path, tmp_path: Path
) -> None:
    assert read_json(golden) == {"source": "demo", "digests": golden_digests(Manifest(demo))}
    (demo / "token_mapping.json").write_bytes((demo / "token_mapping.json").read_bytes() + b" ")
    found(cli("verify", "-w", demo, "--write-golden", tmp_path / "damaged.json"), "token_mapping.json has ")
    assert not (tmp_path / "damaged.json").exists()
    result = cli("verify", "-w", demo, "--write-golden", tmp_path / "x.json", "--golden", golden)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "exclude each other" in result.stderr


def test_golden_digests_are_not_written_where_there_is_no_folder(cli: Cli, demo: Path, tmp_path: Path) -> None:
    result = cli("verify", "-w", demo, "--write-golden", tmp_path / "no" / "golden.json")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert str(tmp_path / "no") in result.stderr


def test_the_right_golden_digests_pass(cli: Cli, demo: Path, golden: Path) -> None:
    result = cli("verify", "-w", demo, "--golden", golden)
    assert result.exit_code == 0
    assert "golden       ok" in result.stdout


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("counts_sha256", "changed"),
        ("mapping_sha256", "left out"),
        ("tokenized_dataset_payload_sha256", "changed"),
        ("tokenized_validation_payload_sha256", "left out"),
    ],
)
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


# SHA256SUMS


def test_sha256sum_alone_can_check_a_workspace_and_finds_damage(demo: Path) -> None:
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=demo, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    listed = [line.removesuffix(": OK") for line in checked.stdout.splitlines()]
    assert listed == sorted(listed) == sorted({"manifest.json", *ARTIFACTS})
    (demo / "token_mapping.json").write_bytes(b"{}")
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=demo, capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    assert "token_mapping.json: FAILED" in checked.stdout


def test_sums_follow_from_the_manifest_alone_and_are_not_written_twice(demo: Path) -> None:
    before = (demo / "SHA256SUMS").read_bytes(), (demo / "SHA256SUMS").stat().st_mtime_ns, demo.stat().st_mtime_ns
    write_sums(demo)
    assert ((demo / "SHA256SUMS").read_bytes(), (demo / "SHA256SUMS").stat().st_mtime_ns, demo.stat().st_mtime_ns) == (
        before
    )
    for name in ARTIFACTS:
        (demo / name).unlink()
    (demo / "SHA256SUMS").unlink()
    write_sums(demo)
    assert (demo / "SHA256SUMS").read_bytes() == before[0]


def test_sums_list_the_hubs_files_which_lie_in_the_workspace(demo: Path) -> None:
    manifest = Manifest(demo)
    file = {"name": "data/a.parquet", "bytes": 3, "sha256": "0" * 64, "stories": 1}
    for source, listed in (("tinystories", True), ("files", False)):
        manifest.corpus = {"source": source, "splits": {"train": {"stories": 1, "text_field": "text", "files": [file]}}}
        manifest.write()
        write_sums(demo)
        lines = (demo / "SHA256SUMS").read_text().splitlines()
        assert (f"{'0' * 64}  corpus/data/a.parquet" in lines) == listed


def test_sums_of_another_manifest_are_found(cli: Cli, demo: Path) -> None:
    cli("pack", "-w", demo, "--ctx", "31")
    (demo / "SHA256SUMS").write_text((demo / "SHA256SUMS").read_text().replace("  token_counts", "  token_count"))
    found(cli("verify", "-w", demo), "sums: SHA256SUMS line ", "token_counts.parquet")


def test_a_workspace_without_sums_is_whole_and_is_said_to_have_none(cli: Cli, demo: Path) -> None:
    (demo / "SHA256SUMS").unlink()
    result = cli("verify", "-w", demo)
    assert result.exit_code == 0
    assert "sums         SHA256SUMS is not there" in result.stdout


# The figures of an original


REFERENCE = resources.files("duckling_data.verify") / "duckling-ii.json"


def test_a_demo_is_not_duckling_ii_and_each_figure_is_said(cli: Cli, demo: Path) -> None:
    result = cli("verify", "-w", demo, "--reference", "duckling-ii")
    found(result, "duckling-ii: ", "figures differ, the first: corpus train stories expected 2,119,719, found 200")
    said = [line for line in result.stdout.splitlines() if line.startswith("duckling-ii")]
    assert len(said) == len(json.loads(REFERENCE.read_text())["figures"])
    assert said[-1].split()[:5] == ["duckling-ii", "NO:", "tokens", "in", "rows"]


def test_a_workspace_with_duckling_iis_figures_has_them_all_and_one_that_is_off_is_seen(tmp_path: Path) -> None:
    expected = json.loads(REFERENCE.read_text())["figures"]
    manifest = as_duckling_ii(tmp_path, expected)
    assert [line for line, holds in reference_lines(manifest, "duckling-ii") if not holds] == []
    manifest.stages["pack"].figures["splits"]["train"]["rows"] += 1
    wrong = [line.split("expected")[0].strip() for line, holds in reference_lines(manifest, "duckling-ii") if not holds]
    assert wrong == ["rows", "tokens in rows"]


def as_duckling_ii(workspace: Path, expected: dict[str, Any]) -> Manifest:
    """A manifest and a mapping that say what the original's would."""
    known = {int(name.split()[-1]): gpt2 for name, gpt2 in expected.items() if name.startswith("mapping compact ")}
    others = (gpt2 for gpt2 in range(50_000) if gpt2 not in known.values())
    live = [known[compact] if compact in known else next(others) for compact in range(6144)]
    mapping = {
        "live_tokens": 6144, "dead_tokens": 2048, "total_vocab": 8192, "unk_id": 0,
        "gpt2_to_compact": {str(gpt2): compact for compact, gpt2 in enumerate(live)},
        "compact_to_gpt2": {str(compact): gpt2 for compact, gpt2 in enumerate(live)},
        "live_token_ids": live,
    }  # fmt: skip
    (workspace / "token_mapping.json").write_bytes(mapping_bytes(mapping))
    sizes = {name.split()[1]: size for name, size in expected.items() if name.endswith(" bytes")}
    manifest = Manifest(workspace)
    manifest.corpus = {
        "source": "tinystories",
        "splits": {
            split: {
                "stories": expected[f"corpus {split} stories"],
                "files": [{"name": name, "bytes": size} for name, size in sizes.items() if f"data/{split}-" in name],
            }
            for split in ("train", "validation")
        },
    }
    made = {"some file": {"bytes": 1, "sha256": "0" * 64}}
    count = {
        "stories_counted": 100_000, "tokens": 22_205_468, "distinct": 17_852,
        "ids_for_coverage": {"90.0%": 951, "95.0%": 1904, "99.0%": 4480, "99.5%": 5911, "99.9%": 10100},
    }  # fmt: skip
    manifest.stages = {
        "count": StageRecord({}, {}, made, count),
        "build-vocab": StageRecord({}, {}, made, {"coverage": 0.995480848}),
        "pack": StageRecord({"ctx": 512}, {}, made, {"splits": {"train": {"rows": 921_519}}}),
    }
    return manifest
