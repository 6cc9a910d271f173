"""`verify` finds any damage, names the file, and ends with 1; with 2 where there is nothing to verify."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from duckling_data.workspace.manifest import CorpusRecord, Manifest, SplitRecord, StoryFile
from tests.support.data import Cli, build, found, snapshot, verified

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


def test_json_has_what_the_lines_say_and_each_fault(cli: Cli, demo: Path, tmp_path: Path) -> None:
    lines = cli("verify", "-w", demo).stdout.splitlines()
    shown = cli("verify", "-w", demo, "--json", "-q")
    whole = json.loads(shown.stdout)
    assert (shown.exit_code, whole["ok"], whole["faults"]) == (0, True, [])
    assert [f"{check['name']:<12} {check['found']}" for check in whole["checks"]] == lines
    (demo / "token_counts.parquet").unlink()
    shutil.rmtree(demo / "tokenized_validation")
    shown = cli("verify", "-w", demo, "--json")
    damaged = json.loads(shown.stdout)
    assert (shown.exit_code, damaged["ok"], [check["name"] for check in damaged["checks"]]) == (
        1, False, ["build-vocab", "corpus", "sums"],
    )  # fmt: skip
    assert [f"duckling-data: {damaged['faults'][0]}", *damaged["faults"][1:]] == shown.stderr.splitlines()
    assert "count: token_counts.parquet is missing" in damaged["faults"]
    nothing = cli("verify", "-w", tmp_path / "nowhere", "--json")
    assert (nothing.exit_code, nothing.stdout) == (2, "")


def test_all_damage_is_named_at_once(cli: Cli, demo: Path) -> None:
    (demo / "token_counts.parquet").unlink()
    shutil.rmtree(demo / "tokenized_validation")
    result = cli("verify", "-w", demo)
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert "count: token_counts.parquet is missing\n" in result.stderr
    assert f"pack: tokenized_validation/{SHARD} is missing\n" in result.stderr


def test_a_dataset_swapped_in_from_another_mapping_is_found(demo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    build(other, "demo:200", sample="all", live=299, dead=21, ctx=32)
    for folder in ("tokenized_dataset", "tokenized_validation"):
        shutil.rmtree(demo / folder)
        shutil.copytree(other / folder, demo / folder)
    found(demo, f"tokenized_dataset/{SHARD} has ")


def test_rows_and_a_mapping_left_behind_are_found(cli: Cli, demo: Path) -> None:
    cli("build-vocab", "-w", demo, "--live", "250")
    found(demo, "pack: tokenized_dataset was made before its input 'mapping' changed; run `duckling-data pack`")
    cli("pack", "-w", demo)
    cli("count", "-w", demo, "--sample", "50")
    found(
        demo,
        "build-vocab: token_mapping.json was made before its input 'counts' changed; run `duckling-data build-vocab`",
    )


def test_an_interrupted_stage_is_found(demo: Path) -> None:
    Manifest(demo).begin("pack")
    found(demo, "pack: was interrupted and is not whole; run `duckling-data pack`")


def test_a_stage_of_another_duckling_is_named(demo: Path) -> None:
    manifest = Manifest(demo)
    manifest.stages["stretch"] = manifest.stages["count"]
    manifest.write()
    found(demo, "stretch: manifest.json: unknown stage, expected one of count, build-vocab, pack, report")


# Nothing to verify


def test_without_a_manifest_there_is_nothing_to_verify(cli: Cli, tmp_path: Path) -> None:
    result = cli("verify", "-w", tmp_path)
    assert result.exit_code == 2
    assert "no manifest.json, nothing to verify" in result.stderr


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
    Manifest(demo).write_sums()
    assert ((demo / "SHA256SUMS").read_bytes(), (demo / "SHA256SUMS").stat().st_mtime_ns, demo.stat().st_mtime_ns) == (
        before
    )
    for name in ARTIFACTS:
        (demo / name).unlink()
    (demo / "SHA256SUMS").unlink()
    Manifest(demo).write_sums()
    assert (demo / "SHA256SUMS").read_bytes() == before[0]


def test_sums_list_the_hubs_files_which_lie_in_the_workspace(demo: Path) -> None:
    manifest = Manifest(demo)
    file = StoryFile("data/a.parquet", 3, "0" * 64, 1)
    for source, listed in (("tinystories", True), ("files", False)):
        split = SplitRecord(1, text_field="text", files=(file,))
        manifest.corpus = CorpusRecord(source, {"train": split})
        manifest.write()
        Manifest(demo).write_sums()
        lines = (demo / "SHA256SUMS").read_text().splitlines()
        assert (f"{'0' * 64}  corpus/data/a.parquet" in lines) == listed


def test_sums_of_another_manifest_are_found(cli: Cli, demo: Path) -> None:
    cli("pack", "-w", demo, "--ctx", "31")
    (demo / "SHA256SUMS").write_text((demo / "SHA256SUMS").read_text().replace("  token_counts", "  token_count"))
    found(demo, "sums: SHA256SUMS line ", "token_counts.parquet")


def test_a_workspace_without_sums_is_whole_and_is_said_to_have_none(demo: Path) -> None:
    (demo / "SHA256SUMS").unlink()
    assert verified(demo)[-1].startswith("sums         SHA256SUMS is not there")
