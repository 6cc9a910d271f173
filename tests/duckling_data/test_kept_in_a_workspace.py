"""Commands with and without kept tokens make the same files; the tokens go with their source, or on demand."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from duckling_data.base import disk as base_disk
from duckling_data.corpus.demo import demo_stories
from duckling_data.tokens.store import INDEX, KEPT
from tests.support.data import SMALL, Cli, snapshot, write_jsonl

SAID = "not as it was written; removed, and the stories encoded again"


def apart(workspace: Path) -> dict[str, str]:
    """The digests of all files but the kept tokens."""
    return {name: digest for name, digest in snapshot(workspace).items() if not name.startswith(KEPT)}


@pytest.mark.parametrize("sample", ["all", "25"])
def test_two_commands_make_the_same_files_with_and_without(
    cli: Cli, stories: Path, tmp_path: Path, sample: str
) -> None:
    source = ("--source", stories, "--validation-share", "0.2", "--sample", sample, *SMALL[2:6])
    for name, options in (("with", ()), ("without", ("--no-keep-tokens",))):
        for command in (("build-vocab", *source), ("pack", "--ctx", "32")):
            assert cli(*command, "-w", tmp_path / name, *options).exit_code == 0
    assert apart(tmp_path / "with") == snapshot(tmp_path / "without")
    kept = {name for name in snapshot(tmp_path / "with") if name.startswith(KEPT)}
    assert kept == {f"{KEPT}/{split}/{file}" for split in ("train", "validation") for file in ("00000", INDEX)}
    for listed in ("manifest.json", "SHA256SUMS"):
        assert KEPT not in (tmp_path / "with" / listed).read_text()
    assert cli("verify", "-w", tmp_path / "with").exit_code == 0


def test_other_rows_are_made_of_the_kept_tokens_after_damage_too(cli: Cli, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "other")
    segment = made / KEPT / "train" / "00000"
    segment.write_bytes(segment.read_bytes()[:-2])
    done = cli("pack", "-w", made, "--ctx", "16", "--positions")
    assert f"{segment}: {SAID}\n" in done.stderr
    assert cli("pack", "-w", tmp_path / "other", "--ctx", "16", "--positions").exit_code == 0
    assert apart(made) == apart(tmp_path / "other")
    assert "damage" not in cli("pack", "-w", made, "--ctx", "8").stderr


def test_they_go_with_their_split_their_source_and_on_demand(cli: Cli, demo: Path, tmp_path: Path) -> None:
    assert "kept: train, validation [" in cli("status", "-w", demo).stdout
    kept = snapshot(demo / KEPT)
    assert cli("pack", "-w", demo, "--dry-run", "--no-keep-tokens", "--ctx", "16").exit_code == 0
    (demo / KEPT / "train.partial").mkdir()  # of a command that was killed
    write_jsonl(tmp_path / "s.jsonl", demo_stories(0, 40).to_pylist())
    assert cli("pack", "-w", demo, "--source", tmp_path / "s.jsonl").exit_code == 0
    assert [path.name for path in (demo / KEPT).iterdir()] == ["train"]
    assert snapshot(demo / KEPT)["train/00000"] != kept["train/00000"]
    assert cli("status", "-w", demo, "--no-keep-tokens").exit_code == 2
    assert cli("download", "-w", demo, "--no-keep-tokens").exit_code == 0
    assert not (demo / KEPT).exists()
    assert "kept" not in cli("status", "-w", demo).stdout


@pytest.mark.parametrize("where", [KEPT, f"{KEPT}/train"])
def test_nothing_is_kept_or_removed_through_a_link(cli: Cli, made: Path, tmp_path: Path, where: str) -> None:
    (made / where).rename(tmp_path / "elsewhere")
    (made / where).symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path / "elsewhere")
    done = cli("pack", "-w", made, "--ctx", "16")
    assert done.exit_code == 2
    assert f"{made / where}: a link to {tmp_path / 'elsewhere'}, expected a folder" in done.stderr
    assert snapshot(tmp_path / "elsewhere") == before


def test_room_is_asked_for_tokens_and_rows(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = demo_stories(0, 40).to_pylist()
    write_jsonl(tmp_path / "s.jsonl", texts)
    size = (tmp_path / "s.jsonl").stat().st_size // 4 * 2

    def leave(free: int) -> None:
        monkeypatch.setattr(base_disk, "free_bytes", lambda path: free)

    command = ("pack", "-w", tmp_path / "w", "--source", tmp_path / "s.jsonl", *SMALL)
    leave(size - 1)
    done = cli(*command)
    assert done.exit_code == 3
    assert "KB for the tokens that are kept, " in done.stderr
    assert "free; free some or give --no-keep-tokens, or choose another --workspace." in done.stderr
    leave(size)
    assert cli(*command).exit_code == 0  # the tokens are there, and the rows fit, too
    shutil.rmtree(tmp_path / "w" / KEPT)
    rows = sum(path.stat().st_size for path in (tmp_path / "w" / "tokenized_dataset").glob("*.arrow"))
    leave(rows)
    assert "for the packed rows" in cli("pack", "-w", tmp_path / "w", "--ctx", "16").stderr
    leave(rows + size + 4096)
    assert cli("pack", "-w", tmp_path / "w", "--ctx", "16").exit_code == 0


def test_a_source_compressed_otherwise_is_another(cli: Cli, made: Path, stories: Path) -> None:
    packed = stories.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(stories.read_bytes(), mtime=0))
    before = apart(made / "tokenized_dataset")
    assert cli("pack", "-w", made, "--source", packed).exit_code == 0
    assert apart(made / "tokenized_dataset") == before
