"""`publish` copies a finished workspace, whole, to a folder or a store; manifest.json comes last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from duckling_data.base.progress import SILENT
from duckling_data.base.records import FileRecord, describe
from duckling_data.corpus.remote import tries
from duckling_data.publish import Store, _checksum_holds, _md5s
from duckling_data.workspace.manifest import MANIFEST_NAME, SUMS_NAME, Manifest
from tests.support.data import Cli, rows_of, snapshot

URL = "memory://bucket/published"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(tries, "WAITS", (0.0, 0.0))
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


def artifacts(workspace: Path) -> dict[str, str]:
    beside = ("corpus/", "kept_tokens/", ".")
    return {name: digest for name, digest in snapshot(workspace).items() if not name.startswith(beside)}


def test_a_folder_gets_what_the_manifest_lists_and_only_what_it_lacks(cli: Cli, demo: Path, tmp_path: Path) -> None:
    place = tmp_path / "shared/copy"
    (demo / "token_counts.parquet.partial").write_bytes(b"left over")
    first = cli("publish", place, "-w", demo)
    assert first.exit_code == 0, first.stderr
    (demo / "token_counts.parquet.partial").unlink()
    assert snapshot(place) == artifacts(demo)
    assert (place / MANIFEST_NAME).read_bytes() == (demo / MANIFEST_NAME).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert "; 0 of them sent now" in cli("publish", place, "-w", demo).stderr
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    damaged = place / "token_mapping.json"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b" ")
    assert "; 3 of them sent now" in cli("publish", f"file://{place}", "-w", demo).stderr
    assert snapshot(place) == artifacts(demo)
    assert cli("status", "-w", place).exit_code == 0


def test_a_store_gets_it_and_datasets_opens_it_there(cli: Cli, demo: Path, memory: Any) -> None:
    import datasets

    result = cli("publish", URL + "/", "-w", demo)
    assert result.exit_code == 0, result.stderr
    names = {name.removeprefix("/bucket/published/") for name in memory.find("/bucket/published")}
    assert names == artifacts(demo).keys()
    rows = datasets.load_from_disk(f"{URL}/tokenized_dataset")
    assert (rows.with_format("numpy")["input_ids"][:] == rows_of(demo)).all()
    assert "; 0 of them sent now" in cli("publish", URL, "-w", demo).stderr


def test_the_old_manifest_goes_first_and_the_new_one_comes_last(
    cli: Cli, demo: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails in the middle has no manifest; the next command sends the rest."""
    assert cli("publish", URL, "-w", demo).exit_code == 0
    memory.rm_file("/bucket/published/token_counts.parquet")
    memory.rm_file("/bucket/published/token_mapping.json")
    seen: list[str] = []

    def put_file(self: Any, local: str, path: str, **_: Any) -> None:
        seen.append(path)
        if path.endswith("token_mapping.json") and len(seen) < 4:
            raise TimeoutError
        self.pipe_file(path, Path(local).read_bytes())

    monkeypatch.setattr(type(memory), "put_file", put_file)
    monkeypatch.setattr(tries, "WAITS", ())
    failed = cli("publish", URL, "-w", demo, "--workers", 1)
    assert (failed.exit_code, memory.exists(f"/bucket/published/{MANIFEST_NAME}")) == (3, False)
    assert f"{URL}/token_mapping.json: could not be written" in failed.stderr.splitlines()[-1]
    monkeypatch.setattr(tries, "WAITS", (0.0, 0.0, 0.0, 0.0))
    assert cli("publish", URL, "-w", demo).exit_code == 0
    assert [Path(path).name for path in seen[-2:]] == [SUMS_NAME, MANIFEST_NAME]
    assert memory.cat_file(f"/bucket/published/{MANIFEST_NAME}") == (demo / MANIFEST_NAME).read_bytes()


def test_what_arrives_otherwise_than_it_was_sent_is_sent_again_and_then_refused(
    cli: Cli, demo: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage = 1

    def put_file(self: Any, local: str, path: str, **_: Any) -> None:
        nonlocal damage
        damage -= 1
        content = Path(local).read_bytes()
        self.pipe_file(path, content if damage < 0 else content[:-1] + b"?")

    monkeypatch.setattr(type(memory), "put_file", put_file)
    assert cli("publish", URL, "-w", demo, "--workers", 1).exit_code == 0
    memory.rm("/bucket", recursive=True)
    damage = 1000
    result = cli("publish", URL, "-w", demo, "--workers", 1)
    assert (result.exit_code, memory.exists(f"/bucket/published/{MANIFEST_NAME}")) == (3, False)
    assert "what is there is not what was sent" in result.stderr.splitlines()[-1]


def test_a_damaged_or_unfinished_workspace_is_refused_and_nothing_is_sent(cli: Cli, demo: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    counts = demo / "token_counts.parquet"
    counts.write_bytes(counts.read_bytes()[:-1])
    result = cli("publish", place, "-w", demo)
    assert (result.exit_code, place.exists()) == (1, False)
    assert "nothing is published" in result.stderr
    Manifest(demo).begin("pack")
    result = cli("publish", place, "-w", demo)
    assert (result.exit_code, place.exists()) == (2, False)
    assert "not finished (pack not made)" in result.stderr
    assert "nothing to publish" in cli("publish", place, "-w", tmp_path / "none").stderr


def test_a_place_that_cannot_be_used_is_one_line(cli: Cli, demo: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    (place / "tokenized_dataset").mkdir(parents=True)
    (place / "tokenized_dataset/other.arrow").write_bytes(b"")
    away = tmp_path / "away"
    away.mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/tokenized_dataset").symlink_to(away)
    for where, status, says in (
        (place, 2, "holds what this workspace did not make, tokenized_dataset/other.arrow"),
        (demo / "inside", 2, "in the workspace"),
        ("https://host/folder", 2, "cannot be written by its protocol"),
        ("s3://key:secret@bucket/x", 2, "PLACE s3://…: holds a user or password"),
        (tmp_path / "linked", 2, "nothing is written through a link"),
    ):
        result = cli("publish", where, "-w", demo)
        lines = [line for line in result.stderr.splitlines() if line.startswith("duckling-data: ")]
        assert (result.exit_code, len(lines)) == (status, 1), result.stderr
        assert says in lines[0]
        assert "secret@" not in result.stderr
    assert list(away.iterdir()) == []


def test_the_checksums_of_stores_are_those_of_the_content(tmp_path: Path) -> None:
    """`md5sum` of twelve bytes, of their parts of five, and what S3 makes of those."""
    path = tmp_path / "file"
    path.write_bytes(b"hello world\n")
    record = describe(path)
    assert _checksum_holds({"ETag": '"6f5902ac237024bdd0c176cb93063dc4"'}, path, record)
    assert _checksum_holds({"md5Hash": "b1kCrCNwJL3QwXbLkwY9xA=="}, path, record)
    assert _checksum_holds({"lfs": {"sha256": record.sha256}}, path, record)
    assert not _checksum_holds({"ETag": '"6f5902ac237024bdd0c176cb93063dc5"'}, path, record)
    assert not _checksum_holds({}, path, record)
    assert [len(_md5s(path, size)) for size in (1, 5, 6, 12, 13)] == [12, 3, 2, 1, 1]
    (tmp_path / "empty").write_bytes(b"")
    assert len(_md5s(tmp_path / "empty", 5)) == 1


def test_an_equal_size_alone_is_not_taken_for_equal(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"right")
    memory.pipe_file("/bucket/file", b"wrong")
    record: FileRecord = describe(tmp_path / "file")
    assert not Store("memory://bucket", SILENT).equal("file", tmp_path / "file", record)
    memory.pipe_file("/bucket/file", b"right")
    assert Store("memory://bucket", SILENT).equal("file", tmp_path / "file", record)
