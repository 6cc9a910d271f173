"""Stories by URL: the same bytes as by path, fetched when they are read, and never a file that is not whole."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import fsspec
import pytest

from duckling_data.base.errors import OutsideError
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.remote import cache, store
from duckling_data.workspace.manifest import Manifest
from duckling_data.workspace.source_record import SOURCE_RECORD
from tests.support.data import SMALL, Cli, found, read_json, snapshot, verified, write_jsonl
from tests.support.hub.case import BODIES, REPO, REVISION, parquet
from tests.support.hub.server import CLOSE, CUT, LONG, SHORT, HubServer
from tests.support.stores import KEY, fetched, quick_stores, url_of, web

__all__ = ["quick_stores", "web"]


def upload(folder: Path, url: str) -> None:
    fsspec.filesystem("memory").put(str(folder), url, recursive=True)


def made(workspace: Path) -> dict[str, str]:
    """The workspace's files but for what names places on this machine."""
    return {name: digest for name, digest in snapshot(workspace).items() if name != SOURCE_RECORD}


def test_a_folder_by_url_gives_the_same_bytes_as_by_path(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "stories"
    for name, first in {"train/b.jsonl": 0, "train/sub/a.jsonl": 40, "valid/c.jsonl": 80}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name, demo_stories(first, first + 40).to_pylist())
    for name in (
        "README.txt",
        ".hidden.jsonl",
        ".git/x.jsonl",
        "_temporary/y.jsonl",
        "work/corpus/source.json",
        "z.bin",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'{"text": "not a story"}\n')
    upload(folder, "/bucket/stories")
    by_path = cli("pack", "-w", tmp_path / "path", "--source", folder, *SMALL)
    by_url = cli("pack", "-w", tmp_path / "url", "--source", "memory://bucket/stories", *SMALL)
    assert (by_path.exit_code, by_url.exit_code) == (0, 0), by_url.stderr
    assert made(tmp_path / "url") == made(tmp_path / "path")
    assert by_url.stderr.replace("memory://bucket/stories", str(folder)).replace("/url/", "/path/") == by_path.stderr
    assert "6 not read" in by_url.stderr
    assert verified(tmp_path / "url")


def test_a_saved_dataset_and_a_validation_folder_by_url(cli: Cli, tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset.from_dict({"text": demo_stories(0, 40).to_pylist()})
    saved.save_to_disk(tmp_path / "stories/train", num_shards=2)
    write_jsonl(tmp_path / "more.jsonl", demo_stories(50, 60).to_pylist())
    upload(tmp_path / "stories/train", "/bucket/train")
    fsspec.filesystem("memory").put_file(str(tmp_path / "more.jsonl"), "/bucket/valid/more.jsonl")
    for name, place, more in (
        ("path", tmp_path / "stories/train", tmp_path / "more.jsonl"),
        ("url", "memory://bucket/train", "memory://bucket/valid/"),
    ):
        result = cli("count", "-w", tmp_path / name, "--source", place, "--validation", more, "--sample", "all")
        assert result.exit_code == 0, result.stderr
    assert made(tmp_path / "url") == made(tmp_path / "path")


def test_a_file_that_its_store_says_is_the_same_is_not_fetched_again(
    cli: Cli, tmp_path: Path, web: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "w"
    assert cli("count", "-w", work, "--source", url_of(web), "--sample", "all").exit_code == 0
    assert len(web.asked("GET")) == 1  # hashed, counted and encoded from one copy
    assert cli("count", "-w", work).exit_code == 0
    assert len(web.asked("GET")) == 1
    web.files[KEY] = parquet(60, 60)
    monkeypatch.setattr(cache, "_caches", {})
    assert "corpus changed" in cli("count", "-w", work).stderr
    assert len(web.asked("GET")) == 2
    assert read_json(work / SOURCE_RECORD)["remote"].keys() == {url_of(web)}


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        (CUT, 3, "could not be read"),
        (SHORT, 3, "bytes came"),
        (LONG, 3, "more bytes came than the"),
        (500, 3, "the server answered 500"),
        (404, 2, "no such file"),
        (403, 2, "access is refused (the server answered 403)"),
    ],
)
def test_what_does_not_pass_is_one_line_and_leaves_nothing(
    cli: Cli, tmp_path: Path, web: HubServer, fault: int | str, status: int, says: str
) -> None:
    web.fail("GET", fault)
    result = cli("count", "-w", tmp_path / "w", "--source", url_of(web))
    last = result.stderr.splitlines()[-1]
    assert (result.exit_code, last.startswith(f"duckling-data: {url_of(web)}: ")) == (status, True), result.stderr
    assert says in last
    assert "Traceback" not in result.stderr
    assert snapshot(tmp_path / "w") == {}
    assert fetched() == []


def test_a_server_that_is_not_there_is_one_line(cli: Cli, tmp_path: Path, web: HubServer) -> None:
    web.fail("HEAD", CLOSE)
    web.fail("GET", CLOSE)
    result = cli("count", "-w", tmp_path / "w", "--source", url_of(web))
    assert result.exit_code == 3
    assert "could not be listed" in result.stderr.splitlines()[-1]


def test_verify_fetches_again_and_names_what_differs(cli: Cli, tmp_path: Path, web: HubServer) -> None:
    work = tmp_path / "w"
    assert cli("pack", "-w", work, "--source", url_of(web), *SMALL).exit_code == 0
    before = len(web.asked("GET"))
    assert verified(work)
    web.files[KEY] = parquet(60, 60)
    assert f"{url_of(web)} has bytes" in found(work) or f"{url_of(web)} has sha256" in found(work)
    assert len(web.asked("GET")) > before
    web.fail("HEAD", 500)
    web.fail("GET", 500)
    with pytest.raises(OutsideError, match="answered 500"):
        verified(work)


def test_offline_refuses_a_url_and_a_dry_run_fetches_nothing(cli: Cli, tmp_path: Path, web: HubServer) -> None:
    result = cli("count", "-w", tmp_path / "w", "--source", url_of(web), "--offline")
    assert (result.exit_code, web.requests) == (2, [])
    assert "--offline forbids the network" in result.stderr
    dry = cli("count", "-w", tmp_path / "w", "--source", url_of(web), "--dry-run")
    assert dry.exit_code == 0
    assert "would fetch 1 files" in dry.stderr
    assert web.asked("GET") == []
    assert cli("count", "-w", tmp_path / "w", "--source", url_of(web)).exit_code == 0
    before = len(web.asked("GET"))
    again = cli("count", "-w", tmp_path / "w", "--dry-run")
    assert "up to date" in again.stderr
    assert len(web.asked("GET")) == before
    assert url_of(web) in cli("status", "-w", tmp_path / "w").stdout


def test_a_folder_of_the_hub_by_url(cli: Cli, tmp_path: Path, server: HubServer) -> None:
    """The hub is another server of this machine's; the files are in a store, to which it redirects."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, body in BODIES.items():
        (folder / Path(name).name).write_bytes(body)
    for name, source in {"path": folder, "url": f"hf://datasets/{REPO}@{REVISION}/data"}.items():
        result = cli("count", "-w", tmp_path / name, "--source", source, "--sample", "all")
        assert result.exit_code == 0, result.stderr
    assert made(tmp_path / "url") == made(tmp_path / "path")
    asked = len(server.asked("GET"))
    assert asked == len(BODIES)
    assert "up to date" in cli("count", "-w", tmp_path / "url").stderr
    assert len(server.asked("GET")) == asked
    gone = cli("count", "-w", tmp_path / "w", "--source", f"hf://datasets/{REPO}@{REVISION}/nothing.parquet")
    assert (gone.exit_code, "no such file or folder" in gone.stderr) == (2, True), gone.stderr


def test_a_file_url_is_a_path(cli: Cli, tmp_path: Path, stories: Path) -> None:
    assert cli("count", "-w", tmp_path / "w", "--source", stories.as_uri()).exit_code == 0
    assert read_json(tmp_path / "w" / SOURCE_RECORD)["sources"] == [str(stories)]


def test_a_refusal_of_what_a_file_holds_names_its_url(cli: Cli, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/x.jsonl", b'{"text": "one"}\n{broken\n')
    result = cli("count", "-w", tmp_path / "w", "--source", "memory://bucket/x.jsonl")
    last = result.stderr.splitlines()[-1]
    assert (result.exit_code, last.startswith("duckling-data: memory://bucket/x.jsonl: line 2")) == (2, True), last
    assert tempfile.gettempdir() not in result.stderr


@pytest.mark.parametrize("name", ["../up.jsonl", "a//b.jsonl", "a/../../b.jsonl", "nul\0.jsonl"])
def test_a_name_that_leads_out_of_its_folder_is_refused(cli: Cli, tmp_path: Path, name: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/good.jsonl", b'{"text": "one"}\n')
    memory.store[f"/bucket/{name}"] = memory.store["/bucket/good.jsonl"]
    result = cli("count", "-w", tmp_path / "w", "--source", "memory://bucket")
    assert (result.exit_code, snapshot(tmp_path / "w")) == (2, {})
    assert "no name in a folder" in result.stderr.splitlines()[-1]
    del memory.store[f"/bucket/{name}"]


@pytest.mark.parametrize(("kind", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("https", "aiohttp")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.delitem(sys.modules["fsspec.registry"].__dict__["_registry"], kind, raising=False)
    monkeypatch.setattr(store, "_opened", {})
    result = cli("count", "-w", tmp_path / "w", "--source", f"{kind}://bucket/x.jsonl")
    extra = "http" if kind == "https" else kind
    assert (result.exit_code, result.stderr.count(f"pip install 'duckling[{extra}]'")) == (2, 1), result.stderr


def test_an_unchanged_manifest_names_no_url(cli: Cli, tmp_path: Path, web: HubServer) -> None:
    assert cli("count", "-w", tmp_path / "w", "--source", url_of(web)).exit_code == 0
    assert "127.0.0.1" not in (tmp_path / "w/manifest.json").read_text()
    assert Manifest(tmp_path / "w").corpus is not None
