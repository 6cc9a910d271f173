"""S3 itself: a server of its protocol on 127.0.0.1, read and written with s3fs. Both are installed by hand:

`pip install s3fs 'moto[server]'`, which want an older python-dateutil than the pinned one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duckling_data import publish
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.remote import cache, store, tries
from duckling_data.workspace.source_record import SOURCE_RECORD
from tests.support.data import SMALL, Cli, read_json, rows_of, snapshot, verified, write_jsonl

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "correct-horse")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(tries, "WAITS", (0.0,))
    monkeypatch.setattr(store, "_opened", {})
    monkeypatch.setattr(cache, "_caches", {})
    files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)  # the server keeps its buckets as long as the process lives
    server.stop()


def test_stories_in_a_bucket_give_the_same_bytes_and_are_fetched_once(
    cli: Cli, tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:

    folder = tmp_path / "stories"
    for name, first in {"train/b.jsonl": 0, "train/a.jsonl": 40, "valid/c.jsonl": 80}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name, demo_stories(first, first + 40).to_pylist())
        bucket.put_file(str(folder / name), f"bucket/stories/{name}")
    bucket.pipe_file("bucket/stories/.hidden.jsonl", b"")
    bucket.pipe_file("bucket/stories/empty folder/", b"")
    for name, source in {"path": folder, "url": "s3://bucket/stories"}.items():
        result = cli("pack", "-w", tmp_path / name, "--source", source, *SMALL)
        assert result.exit_code == 0, result.stderr
    made = [snapshot(tmp_path / name) for name in ("path", "url")]
    assert made[0] | {SOURCE_RECORD: ""} == made[1] | {SOURCE_RECORD: ""}
    record = (tmp_path / "url" / SOURCE_RECORD).read_text()
    assert "correct-horse" not in record
    assert len(read_json(tmp_path / "url" / SOURCE_RECORD)["remote"]) == 3
    fetched: list[object] = []
    monkeypatch.setattr(s3fs.S3FileSystem, "get_file", lambda *given, **_: fetched.append(given))
    assert "up to date" in cli("pack", "-w", tmp_path / "url").stderr
    assert fetched == []


def test_artifacts_in_a_bucket_also_in_parts(
    cli: Cli, tmp_path: Path, demo: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    assert cli("publish", "s3://bucket/out", "-w", demo).exit_code == 0
    rows = datasets.load_from_disk("s3://bucket/out/tokenized_dataset", storage_options={"skip_instance_cache": True})
    assert (rows.with_format("numpy")["input_ids"][:] == rows_of(demo)).all()
    opened: list[object] = []
    monkeypatch.setattr(s3fs.S3FileSystem, "open", lambda *given, **_: opened.append(given))
    assert "; 0 of them sent now" in cli("publish", "s3://bucket/out", "-w", demo).stderr
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * (12 << 12))  # 12 MiB: three parts of 5 MiB, the least that S3 takes
    monkeypatch.setattr(publish, "PART", 5 << 20)
    place = publish.Store("s3://bucket/out", publish.Reporter(quiet=True))
    place.put("big", big, publish.describe(big))
    assert "-" in bucket.info("bucket/out/big")["ETag"]
    assert opened == []  # compared by checksum alone


def test_what_is_not_there_is_one_line(cli: Cli, tmp_path: Path, demo: Path, bucket: Any) -> None:
    for arguments in (
        ("count", "-w", tmp_path / "w", "--source", "s3://nowhere/x.jsonl"),
        ("count", "-w", tmp_path / "w", "--source", "s3://bucket/x"),
        ("publish", "s3://nowhere/x", "-w", demo),
    ):
        result = cli(*arguments)
        assert result.exit_code == 2, result.stderr
        assert "no such file or folder" in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert verified(demo)
