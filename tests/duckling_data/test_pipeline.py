"""A command brings a workspace up to date: it makes what is missing or out of date, nothing else, and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.stages.counts import read_counts
from duckling_data.tokens.store import KEPT
from duckling_data.workspace.manifest import Manifest
from tests.support import HANG
from tests.support.data import SMALL, Cli, build, read_json, rows_of, snapshot, stages_that, write_jsonl

STAGES = ["count", "build-vocab", "pack"]
MAPPING = "token_mapping.json"


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_pack_alone_makes_everything_in_an_empty_directory(cli: Cli, stories: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "new" / "w"
    assert stages_that("made", cli("pack", "-w", workspace, "--source", stories, *SMALL)) == STAGES
    names = {"corpus", "manifest.json", "SHA256SUMS", "token_counts.parquet", MAPPING, "tokenized_dataset", KEPT}
    assert {path.name for path in workspace.iterdir()} == names


def test_a_second_run_makes_nothing_and_touches_nothing(cli: Cli, made: Path) -> None:
    before = times(made), snapshot(made)
    result = cli("pack", "-w", made)
    assert stages_that("up to date", result) == STAGES
    assert stages_that("made", result) == []
    assert (times(made), snapshot(made)) == before


@pytest.mark.parametrize(
    ("option", "remade"),
    [
        (["--sample", "30"], STAGES),
        (["--seed", "7"], ["count"]),  # the sample is everything: another seed gives equal counts
        (["--live", "250", "--dead", "21"], ["build-vocab", "pack"]),
        (["--unk", "decompose"], ["build-vocab", "pack"]),
        (["--eos"], ["build-vocab", "pack"]),
        (["--ctx", "31"], ["pack"]),
        (["--group", "5"], ["pack"]),
        (["--live", "300", "--ctx", "32"], []),
    ],
)
def test_a_changed_option_remakes_exactly_the_stages_after_it(
    cli: Cli, made: Path, packed_once: Path, tmp_path: Path, option: list[str], remade: list[str]
) -> None:
    would = stages_that("would make", cli("pack", "-w", made, "-n", *option))
    assert stages_that("made", cli("pack", "-w", made, *option)) == remade
    assert set(remade) <= set(would)
    assert bool(remade) == bool(would)
    assert stages_that("made", cli("pack", "-w", made)) == []  # remembered
    cli("pack", "-w", tmp_path / "fresh", "--source", packed_once / "stories.jsonl", *SMALL, *option)
    assert snapshot(made) == snapshot(tmp_path / "fresh")


def test_given_remembered_and_default_values_are_told_apart(cli: Cli, stories: Path, tmp_path: Path) -> None:
    first = cli("pack", "-w", tmp_path / "w", "--source", stories, *SMALL).stderr
    assert f"source       {stories} (given)\n" in first
    assert "sample all (given), seed 42 (default)\n" in first
    assert "live 300 (given), dead 20 (given), unk most-frequent (default), eos no (default)\n" in first
    second = cli("pack", "-w", tmp_path / "w", "--group", "7").stderr
    assert f"source       {stories} (remembered)\n" in second
    assert "sample all (remembered), seed 42 (remembered)\n" in second
    assert "ctx 32 (remembered), group 7 (given), separator none (remembered)\n" in second
    assert "source       tinystories (default)\n" in cli("count", "-w", tmp_path / "x", "-n").stderr


def test_a_changed_source_file_remakes_everything(cli: Cli, stories: Path, tmp_path: Path) -> None:
    cli("pack", "-w", tmp_path / "w", "--source", stories, *SMALL)
    write_jsonl(stories, demo_stories(100, 140).to_pylist())
    assert stages_that("made", cli("pack", "-w", tmp_path / "w")) == STAGES
    cli("pack", "-w", tmp_path / "fresh", "--source", stories, *SMALL)
    assert snapshot(tmp_path / "w") == snapshot(tmp_path / "fresh")


def test_a_source_file_moved_and_renamed_remakes_nothing(cli: Cli, stories: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    cli("pack", "-w", workspace, "--source", stories, *SMALL)
    before = {name: digest for name, digest in snapshot(workspace).items() if name.startswith("token")}
    moved = stories.rename(tmp_path / "other.jsonl")
    assert cli("pack", "-w", workspace).exit_code == 2  # the place remembered is empty
    assert stages_that("up to date", cli("pack", "-w", workspace, "--source", moved)) == STAGES
    assert stages_that("up to date", cli("pack", "-w", workspace)) == STAGES
    assert {name: digest for name, digest in snapshot(workspace).items() if name.startswith("token")} == before
    assert read_json(workspace / "manifest.json")["corpus"]["splits"]["train"]["files"][0]["name"] == "other.jsonl"


OUTPUTS = {
    "token_counts.parquet": "count",
    MAPPING: "build-vocab",
    "tokenized_dataset/state.json": "pack",
    "tokenized_dataset/data-00000-of-00001.arrow": "pack",
}
"""The stage that makes each output."""


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_is_missing_or_truncated_is_made_again(cli: Cli, made: Path, name: str) -> None:
    before = snapshot(made)
    (made / name).unlink()
    assert stages_that("made", cli("pack", "-w", made)) == [OUTPUTS[name]]
    assert snapshot(made) == before
    os.truncate(made / name, 20)
    result = cli("pack", "-w", made)
    if name == MAPPING:  # it might be the user's work: refused, and the way out named
        assert (result.exit_code, MAPPING in result.stderr) == (2, True)
        return
    assert stages_that("made", result) == [OUTPUTS[name]]
    assert snapshot(made) == before


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_stage_is_made_again_with_the_settings_remembered(cli: Cli, made: Path, stage: str) -> None:
    option = {"count": ["--seed", "7"], "build-vocab": ["--eos"], "pack": ["--group", "3"]}[stage]
    cli("pack", "-w", made, *option)
    before = snapshot(made)
    Manifest(made).begin(stage)  # what a crash leaves, at the moment that the outputs are replaced
    shutil.rmtree(made / "tokenized_dataset")
    (made / "tokenized_dataset.old.partial").mkdir()
    remade = stages_that("made", cli("pack", "-w", made))
    assert {stage, "pack"} <= set(remade)
    assert {name: digest for name, digest in snapshot(made).items() if "partial" not in name} == before


def test_a_sample_larger_than_the_corpus_is_all_of_it_shuffled(made: Path, stories: Path, tmp_path: Path) -> None:
    build(tmp_path / "a", stories, sample=40, live=300, ctx=32)
    build(tmp_path / "b", stories, sample=100_000, live=300, ctx=32)
    shuffled, larger, in_order = (
        read_counts(w / "token_counts.parquet") for w in (tmp_path / "a", tmp_path / "b", made)
    )
    assert shuffled.digest() == larger.digest() != in_order.digest()
    assert larger.total == in_order.total
    assert (tmp_path / "a" / MAPPING).read_bytes() == (tmp_path / "b" / MAPPING).read_bytes()


def test_an_input_that_is_gone_makes_a_stage_out_of_date(made: Path) -> None:
    manifest = Manifest(made)
    pack = manifest.stages["pack"]
    assert manifest.stale("pack", pack.settings, pack.inputs) is None
    pack.inputs["corpus validation"] = "of a source that has no validation split any more"
    train_alone = {name: digest for name, digest in pack.inputs.items() if name != "corpus validation"}
    assert manifest.stale("pack", pack.settings, train_alone)


def test_a_source_without_validation_removes_the_old_ones_rows(cli: Cli, stories: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    cli("pack", "-w", workspace, "--source", "demo:200", *SMALL)
    assert (workspace / "tokenized_validation" / "state.json").exists()
    assert stages_that("made", cli("pack", "-w", workspace, "--source", stories)) == STAGES
    assert not (workspace / "tokenized_validation").exists()
    cli("pack", "-w", tmp_path / "fresh", "--source", stories, *SMALL)
    assert snapshot(workspace) == snapshot(tmp_path / "fresh")


def test_build_vocab_after_pack_says_that_the_rows_are_out_of_date(cli: Cli, made: Path) -> None:
    assert "out of date" not in cli("build-vocab", "-w", made).stderr
    warning = "pack         out of date: tokenized_dataset/ was made with another mapping. Run `duckling-data pack`.\n"
    assert cli("build-vocab", "-w", made, "--live", "250").stderr.endswith(warning)
    assert cli("count", "-w", made).stderr.endswith(warning)
    assert warning not in cli("pack", "-w", made).stderr
    assert warning not in cli("count", "-w", made).stderr


# --dry-run


def test_a_dry_run_leaves_an_absent_workspace_absent(cli: Cli, stories: Path, tmp_path: Path) -> None:
    result = cli("pack", "-w", tmp_path / "w", "--source", stories, *SMALL, "--dry-run")
    assert stages_that("would make", result) == STAGES
    assert "live 300 (given)" in result.stderr
    cli("pack", "-w", tmp_path / "w", "--dry-run")  # the hub's files are not there
    assert not (tmp_path / "w").exists()


def test_a_dry_run_touches_nothing_in_a_workspace(cli: Cli, made: Path, stories: Path) -> None:
    before = times(made)
    assert stages_that("would make", cli("pack", "-w", made, "-n", "--ctx", "16")) == ["pack"]
    assert stages_that("would make", cli("pack", "-w", made, "-n", "--source", "demo:300")) == STAGES
    assert stages_that("would make", cli("pack", "-w", made, "-n")) == []
    assert times(made) == before


# Workspaces


def test_the_workspace_may_come_from_the_environment(
    cli: Cli, stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUCKLING_WORKSPACE", str(tmp_path / "env"))
    cli("count", "--source", stories)
    assert (tmp_path / "env" / "manifest.json").exists()
    cli("count", "--source", stories, "-w", tmp_path / "given")
    assert (tmp_path / "given" / "manifest.json").exists()


MACHINES = [
    {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "workers": "1", "encoder": "gigatoken"},
    {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "workers": "5", "encoder": "tokenizers"},
]


def test_equal_stories_and_settings_give_equal_bytes_on_any_machine(tmp_path: Path) -> None:
    texts = [*demo_stories(0, 80).to_pylist(), "I İ ı 🦆", ""]
    made = []
    for number, machine in enumerate(MACHINES):
        home = tmp_path / f"home-{number}" / ("deep/er" if number else "")
        folder = home / f"stories {number}"
        folder.mkdir(parents=True)
        for name, part in (("B.jsonl", texts[:30]), ("a.jsonl", texts[30:60]), ("ä.jsonl", texts[60:])):
            write_jsonl(folder / name, part)
        variables = dict(machine)
        fixed = ["--workers", variables.pop("workers"), "--encoder", variables.pop("encoder")]
        where = ["-w", f"w{number}", "--source", folder.name] if number else ["-w", home / "w0", "--source", folder]
        command = [
            sys.executable,
            "-m",
            "duckling_data",
            "pack",
            "-q",
            *map(str, where),
            *SMALL,
            "--group",
            "9",
            *fixed,
        ]
        package = str(Path(__file__).parents[2])
        environment = os.environ | variables | {"PYTHONPATH": package}
        subprocess.run(command, cwd=home, env=environment, check=True, timeout=HANG)
        made.append(home / f"w{number}")
    own = ("corpus/source.json", f"{KEPT}/train/index.json")  # where the stories are, and what encoded them
    one, other = ({name: d for name, d in snapshot(w).items() if name not in own} for w in made)
    assert one == other
    assert {"manifest.json", "SHA256SUMS", MAPPING} <= one.keys()
    files = read_json(made[0] / "manifest.json")["corpus"]["splits"]["train"]["files"]
    assert [file["name"] for file in files] == ["B.jsonl", "a.jsonl", "ä.jsonl"]  # in the order of their bytes
    np.testing.assert_array_equal(*map(rows_of, made))
