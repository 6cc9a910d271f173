"""Nothing is written, truncated or removed through a link inside a workspace, which may come from somebody else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from duckling_data.base.errors import CheckFailed, InputError, OutsideError
from duckling_data.base.files import open_own, open_to_append, own_folder, replacing
from duckling_data.base.locks import LOCK, held, wait_until_free
from duckling_data.base.progress import Reporter
from duckling_data.corpus import hub
from duckling_data.corpus.hub import download
from duckling_data.pipeline import Pipeline, Request
from duckling_data.stages import NAMES
from duckling_data.tokens.store import KEPT
from tests.support.data import build, rows_of, verified
from tests.support.hub.case import BODIES, DATASET, get
from tests.support.hub.case import NAMES as FILES
from tests.support.hub.server import CUT, HubServer
from tests.support.links import link_every_file, links_in, move_behind_link, tree


def make(workspace: Path, *targets: str, **settings: object) -> None:
    Pipeline(Request(workspace, 1, settings=settings), Reporter(quiet=True)).make(*targets)


@pytest.fixture(scope="module")
def whole_once(packed_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Path(shutil.copytree(packed_once / "w", tmp_path_factory.mktemp("whole") / "w"))
    make(workspace, *NAMES)
    return workspace


@pytest.fixture
def whole(whole_once: Path, tmp_path: Path) -> Path:
    """A workspace of one's own with everything in it, the report too."""
    return Path(shutil.copytree(whole_once, tmp_path / "whole"))


def test_every_file_that_is_a_link_is_replaced_and_not_written_through(whole: Path, tmp_path: Path) -> None:
    link_every_file(whole, tmp_path / "elsewhere", keep=("report", "tokenized_dataset"))
    before = tree(tmp_path / "elsewhere")
    make(whole, *NAMES, live=250, sample=30, ctx=16)  # every stage anew
    assert tree(tmp_path / "elsewhere") == before
    # The record says what it said before, so it is not written; the kept tokens are read.
    assert {name for name in links_in(whole) if not name.startswith(KEPT)} <= {"corpus/source.json"}
    verified(whole)


@pytest.mark.parametrize("name", ["report", "corpus"])
def test_a_folder_that_is_a_link_is_refused_by_name(name: str, whole: Path, stories: Path, tmp_path: Path) -> None:
    link = move_behind_link(whole / name, tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / name / "source.json.partial").write_text("the user's")
    (tmp_path / "elsewhere" / name / "index.html").write_text("the user's")
    before = tree(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{link}: a link to {tmp_path / 'elsewhere' / name}, expected a folder"):
        Pipeline(Request(whole, 1, (str(stories),)), Reporter(quiet=True)).make(*NAMES)
    assert tree(tmp_path / "elsewhere") == before


def test_rows_on_another_disk_are_read_through_their_link_and_replaced(made: Path, tmp_path: Path) -> None:
    link = move_behind_link(made / "tokenized_dataset", tmp_path / "disk" / "rows")
    before = tree(tmp_path / "disk")
    verified(made)
    make(made, "pack")  # up to date: the link stays
    assert link.is_symlink()
    make(made, "pack", ctx=16)
    assert tree(tmp_path / "disk") == before
    assert not link.is_symlink()
    assert rows_of(made).shape[1] == 16


def test_links_to_nowhere_are_replaced(made: Path, tmp_path: Path) -> None:
    for name in ("tokenized_dataset", "tokenized_dataset.partial", "token_mapping.json.partial"):
        move_behind_link(made / name, tmp_path / name)
    (tmp_path / "tokenized_dataset").rename(tmp_path / "gone")
    make(made, "pack", live=250)
    assert links_in(made) == []


def test_validation_rows_of_another_source_go_as_a_link_alone(demo: Path, stories: Path, tmp_path: Path) -> None:
    move_behind_link(demo / "tokenized_validation", tmp_path / "elsewhere" / "rows")
    before = tree(tmp_path / "elsewhere")
    build(demo, stories, sample="all", live=300)
    assert not (demo / "tokenized_validation").is_symlink()
    assert tree(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("kind", ["link", "hard link", "link to nowhere", "pipe", "folder"])
def test_a_lock_that_leads_elsewhere_is_refused_by_name(kind: str, made: Path, tmp_path: Path) -> None:
    mine, lock = tmp_path / "mine", made / LOCK
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        mine.write_text("the user's")
        os.link(mine, lock) if kind == "hard link" else lock.symlink_to(mine)
        if kind == "link to nowhere":
            mine.unlink()
    before = tree(tmp_path)["mine"] if mine.exists() else None
    wait_until_free(made, waiting=lambda line: None)  # a reader neither waits nor writes
    with pytest.raises(InputError, match=f"^{lock}: .*, expected a file"), held(lock, made, None):
        pass
    with pytest.raises(InputError, match=f"^{lock}: .*, expected a file"):
        make(made, "pack", ctx=16)
    assert before == (tree(tmp_path)["mine"] if mine.exists() else None)
    assert os.path.lexists(lock)


def test_what_is_written_in_place_is_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("the user's")
    (tmp_path / "link").symlink_to("mine")
    with pytest.raises(InputError, match=f"{tmp_path / 'link'}: a link to mine"):
        open_to_append(tmp_path / "link")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "mine").read_text() == "the user's"
    assert not (tmp_path / "link").is_symlink()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "way").symlink_to(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path / 'deep' / 'way'}: a link to {tmp_path}, expected a folder"):
        own_folder(tmp_path, "deep", "way", "new")
    with pytest.raises(InputError, match="mine: a file, expected a folder"):
        own_folder(tmp_path, "mine")
    assert not (tmp_path / "new").exists()
    os.close(open_own(tmp_path / "new", os.O_RDWR))


def test_a_download_goes_through_no_link(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "w" / "corpus").mkdir(parents=True)
    monkeypatch.setattr(download, "WAITS", ())
    server.fail("GET", CUT, 1)
    with pytest.raises(OutsideError):
        get(folder)
    (part,) = (folder / ".cache").rglob("*.incomplete")
    for path in (part, folder / ".cache" / "data", folder / ".cache", folder / "data"):
        move_behind_link(path, tmp_path / "elsewhere" / path.name)
        before = tree(tmp_path / "elsewhere")
        with pytest.raises(InputError, match=f"{path}: a link to .*, expected a f"):
            get(folder)
        assert tree(tmp_path / "elsewhere") == before
        path.unlink()
        (tmp_path / "elsewhere" / path.name).rename(path)
    get(folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == BODIES


def test_a_damaged_file_of_the_hub_behind_a_link_is_not_moved(tmp_path: Path) -> None:
    for name, body in BODIES.items():
        (tmp_path / "disk" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "disk" / name).write_bytes(body[:-1])
    (tmp_path / "corpus").symlink_to(tmp_path / "disk")
    before = tree(tmp_path / "disk")
    with pytest.raises(CheckFailed, match="Move it away"):
        hub.fetch(
            DATASET, tmp_path / "corpus", offline=False, reporter=Reporter(quiet=True), known={},
            learn=lambda name, sha256: None,
        )  # fmt: skip
    assert tree(tmp_path / "disk") == before
