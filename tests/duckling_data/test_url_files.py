"""Files of a store on this machine: whole or not there, the same at each reading, and gone when nobody reads them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from duckling_data.base.errors import SourceChanged
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.files import CorpusFile
from duckling_data.corpus.hub.errors import redacted
from duckling_data.corpus.readers.blocks import ReadOptions
from duckling_data.corpus.remote import cache
from duckling_data.corpus.remote.cache import hold
from duckling_data.corpus.remote.store import Remote, RemoteState, described, state_of
from tests.support.data import Cli, write_jsonl
from tests.support.hub.case import parquet
from tests.support.hub.server import CLOSE, CUT, RESET, SHORT, WRONG, HubServer
from tests.support.stores import KEY, fetched, quick_stores, url_of, web

HOW = ReadOptions()
__all__ = ["quick_stores", "web"]


def remote(server: HubServer) -> Remote:
    return Remote(url_of(server), state_of(url_of(server), described(url_of(server))))


@pytest.mark.parametrize("fault", [CUT, SHORT, CLOSE, RESET, 500, 503, 429])
def test_what_may_pass_is_tried_again(tmp_path: Path, web: HubServer, fault: int | str) -> None:
    file = remote(web)
    web.fail("GET", fault, 2)
    came = [0]
    held = hold(file, lambda size: came.append(size))
    assert held.path.read_bytes() == web.files[KEY]
    assert sum(came) == len(web.files[KEY])


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


def test_a_task_of_an_array_fetches_only_the_files_of_its_shard(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a store that gives no checksum: what was recorded is compared with what is read."""
    memory = fsspec.filesystem("memory")
    for name, first in {"a.jsonl": 0, "b.jsonl": 20}.items():
        write_jsonl(tmp_path / name, demo_stories(first, first + 20).to_pylist())
        memory.put_file(str(tmp_path / name), f"/bucket/{name}")
    options = ("--sample", "all", "--seed", "1")
    assert cli("count", "-w", tmp_path / "whole", "--source", "memory://bucket", *options).exit_code == 0
    work = tmp_path / "w"
    assert cli("download", "-w", work, "--source", "memory://bucket").exit_code == 0
    fetches: list[str] = []
    get_file = type(memory).get_file

    def noted(self: Any, path: str, *given: Any, **named: Any) -> None:
        fetches.append(path)
        get_file(self, path, *given, **named)

    monkeypatch.setattr(type(memory), "get_file", noted)
    for number, name in enumerate(("a.jsonl", "b.jsonl")):
        monkeypatch.setattr(cache, "_caches", {})  # another process
        fetches.clear()
        assert cli("count", "-w", work, "--shard", f"{number}/2", *options).exit_code == 0
        assert fetches == [f"/bucket/{name}"]
    assert cli("merge", "count", "-w", work).exit_code == 0
    counts = [(folder / "token_counts.parquet").read_bytes() for folder in (work, tmp_path / "whole")]
    assert counts[0] == counts[1]
    memory.pipe_file("/bucket/b.jsonl", memory.cat_file("/bucket/b.jsonl").replace(b"the ", b"tho "))
    monkeypatch.setattr(cache, "_caches", {})
    (work / "token_counts.parquet").unlink()
    changed = cli("count", "-w", work, "--shard", "1/2", *options)
    assert (changed.exit_code, "memory://bucket/b.jsonl: has SHA-256" in changed.stderr) == (2, True), changed.stderr


def test_a_secret_of_the_environment_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"correct-horse-{name}")
        assert redacted(f"signed with correct-horse-{name}, refused") == "signed with ***, refused"
