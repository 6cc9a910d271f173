"""Stages in shards give the bytes of one process: any number of shards, in any order, by any executor, after a stop."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.tokens.store import KEPT
from tests.support import HANG
from tests.support.data import SMALL, Cli, Result, snapshot, write_jsonl

STORIES = 120
GROUPS = [(), ("--group", "7"), ("--group", "all", "--separator", "eos", "--eos"), ("--group", "7", "--positions")]


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Sources of several files, one of a single story, and a validation file."""
    cuts = [0, 50, 51, STORIES]
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        write_jsonl(tmp_path / f"part{number}.jsonl", demo_stories(start, stop).to_pylist())
    write_jsonl(tmp_path / "held.jsonl", demo_stories(STORIES, STORIES + 20).to_pylist())
    sources = [word for number in range(3) for word in ("--source", tmp_path / f"part{number}.jsonl")]
    return [*sources, "--validation", tmp_path / "held.jsonl"]


def made(workspace: Path) -> dict[str, str]:
    """Every file but the record of where the source is, and the tokens that one process keeps."""
    return {name: digest for name, digest in snapshot(workspace).items() if not name.startswith(("corpus/", KEPT))}


def run(cli: Cli, *words: object) -> Result:
    result = cli(*words)
    assert result.exit_code == 0, result.stderr
    return result


def in_array_tasks(cli: Cli, workspace: Path, count: int, source: list[object], options: tuple[str, ...]) -> None:
    """What the tasks of a batch system's arrays and the commands between them do; the tasks in no good order."""
    run(cli, "download", "-w", workspace, *source)
    counting, building = options[:2], options[: options.index("--ctx")]
    for stage, given in (("count", counting), ("pack", options)):
        if stage == "pack":
            run(cli, "build-vocab", "-w", workspace, *building)
        for number in reversed(range(count)):
            run(cli, stage, "-w", workspace, "--shard", f"{number}/{count}", *given)
        run(cli, "merge", stage, "-w", workspace)


@pytest.mark.parametrize("options", GROUPS, ids=" ".join)
def test_shards_of_any_number_give_the_bytes_of_one_process(
    cli: Cli, files: list[object], tmp_path: Path, options: tuple[str, ...]
) -> None:
    run(cli, "pack", "-w", tmp_path / "whole", *files, *SMALL, *options)
    for shards in (1, 3, STORIES + 9):
        run(cli, "pack", "-w", tmp_path / f"{shards}", "--shards", shards, *files, *SMALL, *options)
        assert made(tmp_path / f"{shards}") == made(tmp_path / "whole")


@pytest.mark.parametrize("sample", ["all", "50"])
@pytest.mark.parametrize("unk", ["most-frequent", "decompose"])
def test_counts_of_a_sample_and_lossless_vocabularies_are_those_of_one_process(
    cli: Cli, files: list[object], tmp_path: Path, sample: str, unk: str
) -> None:
    options = ["--sample", sample, "--unk", unk, *SMALL[2:]]
    run(cli, "pack", "-w", tmp_path / "whole", *files, *options)
    run(cli, "pack", "-w", tmp_path / "shards", "--shards", 5, *files, *options)
    assert made(tmp_path / "shards") == made(tmp_path / "whole")


def test_a_dataset_of_several_files_is_cut_out_of_the_shards(cli: Cli, tmp_path: Path) -> None:
    options = ["--source", "demo:500", "--sample", "all", "--live", "300", "--dead", "20", "--ctx", "1"]
    run(cli, "pack", "-w", tmp_path / "whole", *options)
    run(cli, "pack", "-w", tmp_path / "shards", "--shards", 3, *options)
    assert len(list((tmp_path / "whole" / "tokenized_dataset").glob("data-*"))) > 1
    assert made(tmp_path / "shards") == made(tmp_path / "whole")


@pytest.mark.parametrize("options", GROUPS[:3], ids=" ".join)
@pytest.mark.parametrize("shards", [1, 3, 7])
def test_array_tasks_and_merge_give_the_bytes_of_one_process(
    cli: Cli, files: list[object], tmp_path: Path, shards: int, options: tuple[str, ...]
) -> None:
    words = (*SMALL[:6], *(["--eos"] if "--eos" in options else []), *SMALL[6:], *options)
    run(cli, "pack", "-w", tmp_path / "whole", *files, *SMALL, *options)
    in_array_tasks(cli, tmp_path / "array", shards, files, words)
    assert made(tmp_path / "array") == made(tmp_path / "whole")


def test_a_divided_source_is_read_in_shards(cli: Cli, stories: Path, tmp_path: Path) -> None:
    source = ["--source", stories, "--validation-share", "0.3"]
    run(cli, "pack", "-w", tmp_path / "whole", *source, *SMALL)
    in_array_tasks(cli, tmp_path / "array", 3, source, SMALL)
    assert made(tmp_path / "array") == made(tmp_path / "whole")


def test_a_mapping_of_ones_own_is_given_before_the_shards(cli: Cli, files: list[object], tmp_path: Path) -> None:
    run(cli, "build-vocab", "-w", tmp_path / "other", *files, *SMALL[:-2])
    own = ("--mapping", tmp_path / "other" / "token_mapping.json")
    run(cli, "pack", "-w", tmp_path / "whole", *files, *own, *SMALL[-2:])
    workspace = tmp_path / "array"
    run(cli, "download", "-w", workspace, *files)
    refused = cli("pack", "-w", workspace, *own, *SMALL[-2:], "--shard", "0/2")
    assert "run `duckling-data build-vocab --mapping FILE` first" in refused.stderr
    run(cli, "build-vocab", "-w", workspace, *own)
    for number in range(2):
        run(cli, "pack", "-w", workspace, *SMALL[-2:], "--shard", f"{number}/2")
    run(cli, "merge", "pack", "-w", workspace)
    assert made(workspace) == made(tmp_path / "whole")


def test_array_tasks_run_side_by_side(cli: Cli, files: list[object], tmp_path: Path) -> None:
    run(cli, "count", "-w", tmp_path / "whole", *files, *SMALL[:2])
    workspace = tmp_path / "array"
    run(cli, "download", "-w", workspace, *files)
    command = [sys.executable, "-m", "duckling_data", "count", "-w", str(workspace), *SMALL[:2], "--shard"]
    tasks = [subprocess.Popen([*command, f"{number}/3"], stderr=subprocess.PIPE) for number in (0, 1, 2, 2)]
    assert [task.communicate(timeout=HANG)[1] and task.returncode for task in tasks] == [0, 0, 0, 0]
    run(cli, "merge", "count", "-w", workspace)
    assert made(workspace) == made(tmp_path / "whole")


def test_merge_names_the_shards_that_are_missing(cli: Cli, files: list[object], tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    run(cli, "download", "-w", workspace, *files)
    assert "expected one; make them with" in cli("merge", "count", "-w", workspace).stderr
    run(cli, "count", "-w", workspace, "--shard", "1/3")
    result = cli("merge", "count", "-w", workspace)
    assert result.exit_code == 2
    assert "shards 0, 2 of 3 are not made; make each with --shard I/3" in result.stderr
    run(cli, "count", "-w", workspace, "--shard", "0/2")
    assert "numbers of shards of count with these settings and inputs: 2, 3;" in (
        cli("merge", "count", "-w", workspace).stderr
    )
    run(cli, "count", "-w", workspace, "--shard", "0/3", "--sample", "30")
    assert "shards of count with several settings" in cli("merge", "count", "-w", workspace).stderr
    for number in (0, 2):
        run(cli, "count", "-w", workspace, "--shard", f"{number}/3")
    run(cli, "merge", "count", "-w", workspace, "--shards", "3", "--sample", "100000")
    assert not (workspace / "shards").exists()


def test_a_shard_is_refused_before_what_it_needs_is_there(cli: Cli, files: list[object], tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    result = cli("count", "-w", workspace, *files, "--shard", "0/3")
    assert "no source is recorded; run `duckling-data download`" in result.stderr
    run(cli, "download", "-w", workspace, *files)
    result = cli("pack", "-w", workspace, "--shard", "0/3")
    assert (result.exit_code, "run `duckling-data build-vocab` first" in result.stderr) == (2, True)
    record = workspace / "corpus" / "source.json"
    sound = record.read_text()
    record.write_text(sound.replace('"sha256": "', '"sha256": "0', 1))
    result = cli("count", "-w", workspace, "--shard", "0/3")
    assert (result.exit_code, "run `duckling-data download` again" in result.stderr) == (1, True)
    run(cli, "download", "-w", workspace)
    assert record.read_text() == sound
    Path(str(files[1])).write_text('{"text": "another"}\n')
    result = cli("count", "-w", workspace, "--shard", "0/3")
    assert (result.exit_code, "changed since it was hashed; run `duckling-data download`" in result.stderr) == (2, True)
    both = cli("count", "-w", workspace, "--shard", "0/3", "--executor", "ray")
    assert (both.exit_code, "--shard and --executor exclude each other" in both.stderr) == (2, True)
    for wrong in ("3/3", "-1/3", "1", "a/b"):
        assert cli("count", "-w", workspace, "--shard", wrong).exit_code == 2


def test_a_task_that_comes_after_the_merge_has_nothing_to_do(cli: Cli, files: list[object], tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    in_array_tasks(cli, workspace, 2, files, SMALL)
    before = snapshot(workspace)
    for stage, options in (("count", SMALL[:2]), ("pack", SMALL)):
        assert f"{stage:<12} up to date" in run(cli, stage, "-w", workspace, "--shard", "1/2", *options).stderr
        run(cli, "merge", stage, "-w", workspace)
    assert snapshot(workspace) == before


def test_a_killed_command_goes_on_with_the_shards_that_are_not_made(
    cli: Cli, files: list[object], tmp_path: Path
) -> None:
    run(cli, "pack", "-w", tmp_path / "whole", *files, *SMALL)
    workspace = tmp_path / "w"
    words = ["pack", "-w", workspace, *files, *SMALL, "--shards", 60, "--workers", 1]
    for stage, records in (("count", "count-*/tally-*-of-00060"), ("pack", "pack-*/packed-*-of-00060")):
        process = subprocess.Popen([sys.executable, "-m", "duckling_data", *map(str, words)], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((workspace / "shards").glob(records))) < 5:
            time.sleep(0.002)
        process.kill()
        process.wait()
        done = {path: path.stat().st_mtime_ns for path in (workspace / "shards").glob(records)}
        assert len(done) >= 5, stage
        if stage == "count":
            run(cli, "count", *words[1:-4][:2], *files, *SMALL[:2], "--shards", 60)
    run(cli, *words)
    assert made(workspace) == made(tmp_path / "whole")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:]])
@pytest.mark.parametrize("name", ["packed-00001-of-00003", "train-input_ids-00002-of-00003"])
def test_a_damaged_shard_is_named_and_not_used(
    cli: Cli, files: list[object], tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    workspace = tmp_path / "w"
    run(cli, "build-vocab", "-w", workspace, *files, *SMALL[:-2])
    for number in range(3):
        run(cli, "pack", "-w", workspace, "--ctx", 32, "--group", "all", "--shard", f"{number}/3")
    (path,) = (workspace / "shards").rglob(name)
    path.write_bytes(damage(path.read_bytes()))
    result = cli("merge", "pack", "-w", workspace)
    assert (result.exit_code, f"{path}: " in result.stderr) == (1, True), result.stderr
    assert f"remove {path.parent}, and run the command again" in result.stderr
    assert not (workspace / "tokenized_dataset").exists()
