"""Stories by URL: the same bytes as by path, fetched when they are read, and never a file that is not whole."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from duckling_data.base.errors import OutsideError, SourceChanged
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.files import CorpusFile
from duckling_data.corpus.readers.blocks import ReadOptions
from duckling_data.corpus.remote import cache, store
from duckling_data.corpus.remote.cache import hold
from duckling_data.corpus.remote.store import Remote, RemoteState, described, state_of
from duckling_data.workspace.manifest import Manifest
from duckling_data.workspace.source_record import SOURCE_RECORD
from tests.support.data import SMALL, Cli, found, read_json, snapshot, verified, write_jsonl
from tests.support.hub.case import parquet
from tests.support.hub.server import CLOSE, CUT, RESET, SHORT, WRONG, HubServer

KEY = "a/b/resolve/main/stories.parquet"
HOW = ReadOptions()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No wait between tries, and a cache of this test's own."""
    monkeypatch.setattr(store, "WAITS", (0.0, 0.0))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(cache, "_caches", {})
    yield
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def web() -> Iterator[HubServer]:
    with HubServer({KEY: parquet(0, 60)}, large=False) as running:
        yield running


def url_of(server: HubServer, key: str = KEY) -> str:
    return f"{server.endpoint}/datasets/{key}"


def upload(folder: Path, url: str) -> None:
    fsspec.filesystem("memory").put(str(folder), url, recursive=True)


def made(workspace: Path) -> dict[str, str]:
    """The workspace's files but for what names places on this machine."""
    return {name: digest for name, digest in snapshot(workspace).items() if name != SOURCE_RECORD}


def fetched() -> list[Path]:
    return [path for path in Path(tempfile.gettempdir()).rglob("*") if path.is_file()]


def remote(server: HubServer) -> Remote:
    return Remote(url_of(server), state_of(url_of(server), described(url_of(server))))


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


@pytest.mark.parametrize("fault", [CUT, SHORT, CLOSE, RESET, 500, 503, 429])
def test_what_may_pass_is_tried_again(tmp_path: Path, web: HubServer, fault: int | str) -> None:
    file = remote(web)
    web.fail("GET", fault, 2)
    came = [0]
    held = hold(file, lambda size: came.append(size))
    assert held.path.read_bytes() == web.files[KEY]
    assert sum(came) == len(web.files[KEY])


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        (CUT, 3, "could not be read"),
        (SHORT, 3, "bytes came"),
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


def test_a_file_that_changes_between_two_stages_is_refused(web: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT", 0)
    place = remote(web)
    file = CorpusFile(place, place.name, hold(place).sha256, 60, place.state)
    assert sum(block.stories for block in file.blocks(HOW)) == 60
    web.fail("GET", WRONG, 1)  # other bytes under the old ETag
    with pytest.raises(SourceChanged, match=f"{place}: has SHA-256"):
        list(file.blocks(HOW))
    web.files[KEY] = parquet(60, 60)
    with pytest.raises(SourceChanged, match="changed since it was listed"):
        list(file.blocks(HOW))


def test_a_copy_stays_while_a_block_of_it_is_there_and_no_longer(
    web: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "KEPT", 0)
    place = remote(web)
    file = pickle.loads(pickle.dumps(CorpusFile(place, place.name, hold(place).sha256, 60, place.state)))
    assert fetched() == []
    blocks = list(file.blocks(HOW))
    assert [path.suffix for path in fetched()] == [".parquet"]
    assert blocks[0].parse()[0].as_py() == demo_stories(0, 1)[0].as_py()
    del blocks
    assert fetched() == []


def test_copies_that_nobody_holds_take_no_more_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT", 250)
    for number in range(5):
        fsspec.filesystem("memory").pipe_file(f"/bucket/{number}.txt", bytes(100))
        hold(Remote(f"memory://bucket/{number}.txt", RemoteState(100, "")))
        assert len(fetched()) <= 2
    assert sorted(path.name for path in fetched()) == ["3.txt", "4.txt"]


def test_what_a_killed_process_left_is_removed_and_a_live_one_s_is_not(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/a.txt", b"once")
    file = Remote("memory://a.txt", RemoteState(4, ""))
    killed = Path(tempfile.mkdtemp(cache.SUFFIX, cache.PREFIX))
    (killed / "0.txt").write_bytes(b"half")
    held = hold(file)
    assert not killed.exists()
    program = (
        "import fsspec, os, tempfile; from duckling_data.corpus.remote import cache, store\n"
        "fsspec.filesystem('memory').pipe_file('/a.txt', b'once')\n"
        "held = cache.hold(store.Remote('memory://a.txt', store.RemoteState(4, '')))\n"
        "print(held.path)\n"
    )
    environment = os.environ | {"TMPDIR": tempfile.gettempdir()}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert held.path.read_bytes() == b"once"
    assert not Path(other.stdout.strip()).parent.exists()


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
