"""A source that is written to while it is read is refused: what is made is never of another content than is recorded.

The source is edited from within: a `Reporter` hears when a pass over the stories begins.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.demo import demo_stories
from duckling_data.pipeline import Pipeline, Request
from duckling_data.verify import VerifyRequest, verify_workspace
from tests.support.data import Cli, snapshot, write_jsonl

SMALL: dict[str, Any] = {"sample": "all", "live": 300, "dead": 20, "ctx": 32}


class Listener(Reporter):
    """Calls `act` once, when the bar of that name is opened; says nothing."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        super().__init__(quiet=True)
        self.name, self.act, self.heard = name, act, False

    def bar(self, what: str, total: int, unit: str) -> Any:
        if what == self.name and not self.heard:
            self.heard = True
            self.act()
        return super().bar(what, total, unit)


def edit(path: Path) -> None:
    """Write other text of the same length into the file, and set its times back."""
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b"the ", b"tho "))
    assert path.read_bytes() != content
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def edit_and_put_back(path: Path) -> None:
    content, times = path.read_bytes(), path.stat()
    edit(path)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(path: Path) -> None:
    """Put another file of the same size and times in its place."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    edit(other)
    other.replace(path)


def shorten(path: Path) -> None:
    """Cut the file within a story: what a reader says of it then is not the reason."""
    os.truncate(path, path.stat().st_size - 7)


EDITS = [edit, edit_and_put_back, replace, shorten, Path.unlink]


def make(workspace: Path, source: Path, reporter: Reporter, *, keep: bool = True, **settings: Any) -> None:
    Pipeline(Request(workspace, 2, (str(source),), settings=SMALL | settings, keep_tokens=keep), reporter).make("pack")


@pytest.mark.parametrize("act", EDITS, ids=lambda act: act.__name__)
def test_a_source_edited_while_it_is_counted_is_refused(stories: Path, tmp_path: Path, act: Any) -> None:
    with pytest.raises(InputError, match=r"stories\.jsonl: changed while it was read; "):
        make(tmp_path / "w", stories, Listener("count", lambda: act(stories)))
    assert snapshot(tmp_path / "w") == {}


@pytest.mark.parametrize(("bar", "settings"), [("pack train", {"live": 250}), ("scan", {"unk": "decompose"})])
def test_a_source_edited_while_it_is_packed_or_scanned_is_refused(
    made: Path, stories: Path, bar: str, settings: dict[str, Any]
) -> None:
    # Counted now, and no tokens kept, so that the next stage reads the source itself.
    make(made, stories, Reporter(quiet=True), keep=False, sample=20)
    before = snapshot(made)
    with pytest.raises(InputError, match="changed while it was read; "):
        make(made, stories, Listener(bar, lambda: edit_and_put_back(stories)), keep=False, sample=20, **settings)
    rows = {name: digest for name, digest in before.items() if name.startswith("tokenized_dataset/")}
    assert rows.items() <= snapshot(made).items()


def test_parquet_row_groups_edited_and_put_back_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"text": demo_stories(0, 300)}), path, compression=None, row_group_size=20)
    with pytest.raises(InputError, match=r"s\.parquet: changed while it was read; "):
        make(tmp_path / "w", path, Listener("count", lambda: edit_and_put_back(path)))


def test_the_second_of_two_files_edited_while_the_first_is_read_is_refused(stories: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        shutil.copy(stories, folder / name)
    with pytest.raises(InputError, match=r"b\.jsonl: changed while it was read; "):
        make(tmp_path / "w", folder, Listener("count", lambda: edit(folder / "b.jsonl")))


@pytest.mark.parametrize("bar", ["count", "verify train rows"])
def test_verify_says_that_the_source_changed_and_names_no_damage(made: Path, packed_once: Path, bar: str) -> None:
    source = packed_once / "stories.jsonl"
    request = VerifyRequest(made, 1)
    with pytest.raises(InputError, match="changed while it was read; "):
        list(verify_workspace(request, Listener(bar, lambda: edit_and_put_back(source))))
    list(verify_workspace(request, Reporter(quiet=True)))


def test_a_source_that_is_only_read_by_others_is_not_refused(cli: Cli, stories: Path, tmp_path: Path) -> None:
    make(tmp_path / "w", stories, Listener("count", lambda: shutil.copy(stories, tmp_path / "copy") and None))
    write_jsonl(stories, demo_stories(5, 45).to_pylist())  # between two commands it may change
    make(tmp_path / "w", stories, Reporter(quiet=True))
