"""A full disk is told with the room that is needed; a download that cannot fit does not begin."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from duckling_data.base.disk import Needed, disk_errors, free_bytes, in_bytes, make_directory
from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.files import write_bytes
from duckling_data.base.strict_json import write_json
from duckling_data.corpus.hub import HubDataset
from duckling_data.rows.write import ROWS_PER_BATCH, RowWriter
from tests.duckling_data.conftest import SMALL, write_jsonl
from tests.duckling_data.hub_case import BODIES, NAMES, REPO, REVISION, get, refusal
from tests.duckling_data.hub_server import HubServer
from tests.fault.disk import Disk
from tests.fault.fixtures import disk, scratch

__all__ = ["disk", "scratch"]

FULL_DISK = Path("/dev/full")
"""Opens as a file does; every write to it fails as on a full disk."""
needs_full_disk = pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")


def room(error: BaseException) -> str:
    """Return what a refusal says of the room needed."""
    assert isinstance(error, OutsideError)
    found = re.fullmatch(
        r"\S+: the disk is full: (.+) more are needed, .+ free\. Free some, or choose another --workspace\.", str(error)
    )
    assert found, error
    return found[1]


@needs_full_disk
def test_a_file_on_a_full_disk_names_its_own_size_and_leaves_nothing(tmp_path: Path) -> None:
    for write, size in ((lambda path: write_bytes(path, bytes(2_500_000)), "2.5 MB"),
                        (lambda path: write_json(path, {"a": 1}), "13 bytes")):  # fmt: skip
        (tmp_path / "f.partial").symlink_to(FULL_DISK)
        with pytest.raises(OutsideError) as caught:
            write(tmp_path / "f")
        assert room(caught.value) == size
        assert str(caught.value).startswith(f"{tmp_path / 'f'}: ")
        assert list(tmp_path.iterdir()) == []


@needs_full_disk
@pytest.mark.parametrize(
    ("share", "said"), [(None, "at least 65.5 KB"), (0.25, "about 262.1 KB"), (1.0, "about 65.5 KB")]
)
def test_rows_on_a_full_disk_name_the_room_for_the_rest(tmp_path: Path, share: float | None, said: str) -> None:
    writer = RowWriter(tmp_path / "d", 32, "train")

    def write() -> None:
        with writer:
            (tmp_path / "d.partial" / "shard-00000").symlink_to(FULL_DISK)
            writer.write(np.zeros((ROWS_PER_BATCH, 32), np.uint16), share)

    with pytest.raises(OutsideError) as caught:
        write()
    assert room(caught.value) == said
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_a_split_is_estimated_from_what_was_written(disk: Disk, scratch: Path) -> None:
    """The tokens that are kept between two passes, and the rows: by a real command, at its writes."""
    write_jsonl(scratch / "s.jsonl", ["a b c d e f g h " * 400] * 4)
    folder = scratch / "space"
    folder.mkdir()
    command = ["duckling_data.cli", "pack", "-w", str(folder / "w"), "--source", str(scratch / "s.jsonl"), *SMALL[:2],
               "--live", "10", "--dead", "2", "--ctx", "64"]  # fmt: skip
    told = []
    for at in (*range(5, 9), *range(50, 54)):
        shutil.rmtree(folder / "w", ignore_errors=True)
        done = disk.run(command, folder, at, errno.ENOSPC)
        kept, of_rows = "(deleted)" in done.failed, "shard-" in done.failed
        if done.failed.startswith("write") and (kept or of_rows):
            needed = re.search(r"the disk is full: ((?:about|at least) [\d.]+) KB more are needed", done.stderr)
            assert needed, done.stderr
            told.append(("kept" if kept else "rows", needed[1]))
    # The lengths and the tokens of one batch, kept between two passes; the shard's schema, its rows and its last bytes.
    assert told == [("kept", "about 25.6")] * 2 + [("rows", "about 25.6")] * 2 + [("rows", "at least 4.1")]


def test_something_small_needs_a_block_and_other_failures_speak_for_themselves(tmp_path: Path) -> None:
    with pytest.raises(OutsideError) as full, disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert room(full.value) == "at least 4.1 KB"
    with (
        pytest.raises(OutsideError, match=r"your quota .* is used up: about 7 bytes") as quota,
        disk_errors(tmp_path, Needed(7)),
    ):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert quota.value.exit_status == 3
    with pytest.raises(OutsideError, match=r"cannot be written \(Input/output error\)"), disk_errors(tmp_path, 7):
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
        rf"{tmp_path}: the download needs 1,152,921,504\.6 GB more, [\d,.]+ \wB are free\. "
        "Free some, or choose another --workspace.", line,
    )  # fmt: skip
    assert server.requests == []
    assert not (tmp_path / "data").exists()


def test_what_is_there_of_a_download_needs_no_room_again(server: HubServer, tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    assert free is not None
    huge = HubDataset(REPO, REVISION, MappingProxyType({"train": ((NAMES[0], free * 2),)}))
    with pytest.raises(OutsideError, match="the download needs"):
        get(tmp_path, huge)
    begun = tmp_path / ".cache" / f"{NAMES[0]}.0123456789abcdef.incomplete"
    begun.parent.mkdir(parents=True)
    with begun.open("wb") as file:
        file.truncate(free * 2 - 1000)  # sparse: it takes no room
    with pytest.raises(OutsideError, match="It is not the pinned file"):  # it began, and asked
        get(tmp_path, huge)
