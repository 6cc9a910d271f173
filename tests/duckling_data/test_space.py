"""What cannot fit on the disk does not begin; a disk that fills all the same is told with the room that is free."""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from duckling_data.base import disk as base_disk
from duckling_data.base.disk import disk_errors, free_bytes, in_bytes, make_directory
from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.files import write_bytes
from duckling_data.base.strict_json import write_json
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.hub import HubDataset
from duckling_data.corpus.readers import ReadOptions, read_blocks
from duckling_data.rows.layout import ROWS_PER_BATCH
from duckling_data.rows.write import RowWriter
from duckling_data.stages.packer import PackFigures
from duckling_data.workspace.manifest import Manifest
from tests.support.data import SMALL, Cli, write_jsonl
from tests.support.fault.disk import Disk
from tests.support.fault.fixtures import disk, scratch
from tests.support.hub.case import BODIES, NAMES, REPO, REVISION, get, refusal
from tests.support.hub.server import HubServer

__all__ = ["disk", "scratch"]

FREE = r", [\d,.]+ \wB free; free some or choose another --workspace\."


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is found full when files are flushed."""

    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("full")
def test_a_file_on_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    for write in (lambda path: write_bytes(path, bytes(2_500_000)), lambda path: write_json(path, {"a": 1})):
        with pytest.raises(OutsideError, match=rf"^{tmp_path / 'f'}: the disk is full{FREE}$"):
            write(tmp_path / "f")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full")
def test_rows_on_a_full_disk_leave_nothing(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "d", 32, "train")

    def write() -> None:
        with writer:
            writer.write(np.zeros((ROWS_PER_BATCH, 32), np.uint16))

    with pytest.raises(OutsideError, match=rf"the disk is full{FREE}$"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_at_the_kept_tokens_and_at_the_rows(disk: Disk, scratch: Path) -> None:
    write_jsonl(scratch / "s.jsonl", ["a b c d e f g h " * 400] * 4)
    folder = scratch / "space"
    folder.mkdir()
    command = ["duckling_data.cli", "pack", "-w", str(folder / "w"), "--source", str(scratch / "s.jsonl"), *SMALL[:2],
               "--live", "10", "--dead", "2", "--ctx", "64"]  # fmt: skip
    told = set()
    for at, *options in ((6,), (56,), (57,), (6, "--no-keep-tokens"), (7, "--no-keep-tokens")):
        shutil.rmtree(folder / "w", ignore_errors=True)
        done = disk.run([*command, *map(str, options)], folder, int(at), errno.ENOSPC)
        where = {name for name in ("kept_tokens/", "(deleted)", "shard-") if name in done.failed}
        if done.failed.startswith("write") and where:
            free = FREE.replace("or choose", "or give --no-keep-tokens, or choose") if "kept_tokens/" in where else FREE
            assert re.search(rf"{folder}\S*: the disk is full{free}$", done.stderr, re.MULTILINE), done.stderr
            told |= where
    assert told == {"kept_tokens/", "(deleted)", "shard-"}


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leaves so many bytes free on every disk."""
    return lambda free: monkeypatch.setattr(base_disk, "free_bytes", lambda path: free)


def test_a_first_pack_that_does_not_fit_does_not_begin(cli: Cli, tmp_path: Path, leave: Callable[[int], None]) -> None:
    write_jsonl(tmp_path / "s.jsonl", demo_stories(0, 40).to_pylist())
    size = (tmp_path / "s.jsonl").stat().st_size
    command = ("pack", "-w", tmp_path / "w", "--source", tmp_path / "s.jsonl", *SMALL, "--no-keep-tokens")
    leave(size // 2 - 4)
    result = cli(*command)
    assert result.exit_code == 3
    assert re.search(rf"{tmp_path / 'w'}: needs about [\d.]+ KB for the tokens and, after them, the rows{FREE}",
                     result.stderr)  # fmt: skip
    assert not (tmp_path / "w" / "tokenized_dataset").exists()
    leave(size // 2)
    assert cli(*command).exit_code == 0


def test_other_rows_that_do_not_fit_leave_the_old_ones(cli: Cli, made: Path, leave: Callable[[int], None]) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file() and path.name != ".lock"}
    leave(100)
    assert cli("pack", "-w", made).exit_code == 0  # up to date: nothing is written
    result = cli("pack", "-w", made, "--ctx", "16")
    assert result.exit_code == 3
    assert re.search(
        rf"{made}: needs about [\d.]+ KB for the packed rows, 100 bytes free; free some or ", result.stderr
    )
    assert all(path.read_bytes() == content for path, content in before.items())
    leave(1 << 20)
    assert cli("pack", "-w", made, "--ctx", "16").exit_code == 0


def test_the_room_for_shards_is_what_they_still_need(cli: Cli, made: Path, leave: Callable[[int], None]) -> None:
    rows = 2 * Manifest(made).figures("pack", PackFigures).splits["train"].tokens
    leave(2 * rows - 100)
    assert cli("pack", "-w", made, "--ctx", "16", "--shards", "2").exit_code == 3
    for number in range(2):
        assert cli("pack", "-w", made, "--ctx", "16", "--shard", f"{number}/2").exit_code == 0
    leave(rows // 2)
    assert cli("merge", "pack", "-w", made).exit_code == 3
    leave(rows + 100)  # the streams are there
    assert cli("merge", "pack", "-w", made).exit_code == 0


def test_a_compressed_parquet_file_that_does_not_fit_is_not_unpacked(
    tmp_path: Path, leave: Callable[[int], None]
) -> None:
    (tmp_path / "s.parquet.gz").write_bytes(gzip.compress(bytes(5000)))
    leave(10)
    with pytest.raises(
        OutsideError, match=r"for the unpacked s\.parquet\.gz, 10 bytes free; free some or name a folder"
    ):
        list(read_blocks(tmp_path / "s.parquet.gz", ReadOptions()))


def test_a_quota_and_other_failures_speak_for_themselves(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=rf"your quota of the disk is used up{FREE}") as quota, disk_errors(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert quota.value.exit_status == 3
    with pytest.raises(OutsideError, match=r"cannot be written \(Input/output error\)"), disk_errors(tmp_path):
        raise OSError(errno.EIO, "Input/output error")


def test_free_room_is_that_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "there")
    assert free is not None
    assert free == pytest.approx(free_bytes(tmp_path), rel=0.01)


def test_a_folder_below_a_file_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        make_directory(tmp_path / "f" / "w")


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 bytes"), (999, "999 bytes"), (4096, "4.1 KB"), (1_234_567_890_123, "1,234.6 GB")]
)
def test_bytes_as_a_person_reads_them(number: int, said: str) -> None:
    assert in_bytes(number) == said


def test_a_download_that_cannot_fit_does_not_begin(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = ((NAMES[0], len(BODIES[NAMES[0]])), (NAMES[1], 1 << 60))
    huge = HubDataset(REPO, REVISION, MappingProxyType({"train": sizes}))
    line = refusal(OutsideError, tmp_path, capfd, dataset=huge)
    assert re.fullmatch(
        rf"{tmp_path}: needs about 1,152,921,504\.6 GB for the download{FREE}", line,
    )  # fmt: skip
    assert server.requests == []
    assert not (tmp_path / "data").exists()


def test_what_is_there_of_a_download_needs_no_room_again(server: HubServer, tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    assert free is not None
    huge = HubDataset(REPO, REVISION, MappingProxyType({"train": ((NAMES[0], free * 2),)}))
    with pytest.raises(OutsideError, match="for the download"):
        get(tmp_path, huge)
    begun = tmp_path / ".cache" / f"{NAMES[0]}.0123456789abcdef.incomplete"
    begun.parent.mkdir(parents=True)
    with begun.open("wb") as file:
        file.truncate(free * 2 - 1000)  # sparse: it takes no room
    with pytest.raises(OutsideError, match="It is not the pinned file"):  # it began, and asked
        get(tmp_path, huge)
