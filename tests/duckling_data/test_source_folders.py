"""A folder as a source: links are followed, what cannot be read is refused, what is not read is named."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from duckling_data.base.errors import InputError
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.folders import story_files
from tests.support.data import SMALL, Cli, read_json, snapshot, write_jsonl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds `b.jsonl` and `sub/a.jsonl`."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    write_jsonl(folder / "b.jsonl", demo_stories(0, 40).to_pylist())
    write_jsonl(folder / "sub/a.jsonl", demo_stories(40, 60).to_pylist())
    return folder


def names(folder: Path) -> list[str]:
    return [name for _, name in story_files(folder, {}).files]


def test_a_linked_folder_and_a_linked_file_are_read_and_links_that_lead_out_are_named(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    (away / "deeper").mkdir(parents=True)
    write_jsonl(away / "deeper/c.jsonl", demo_stories(60, 80).to_pylist())
    (folder / "linked").symlink_to(away)
    (folder / "z.jsonl").symlink_to("sub/a.jsonl")
    result = cli("pack", "-w", tmp_path / "w", "--source", folder, *SMALL)
    assert f"source       1 link leads out of {folder} and is followed: linked/\n" in result.stderr
    split = read_json(tmp_path / "w" / "manifest.json")["corpus"]["splits"]["train"]
    assert [file["name"] for file in split["files"]] == [
        "b.jsonl", "linked/deeper/c.jsonl", "sub/a.jsonl", "z.jsonl",
    ]  # fmt: skip
    assert split["stories"] == 100


def test_links_in_a_circle_end_and_a_folder_is_read_once(folder: Path, tmp_path: Path) -> None:
    (folder / "sub/up").symlink_to("..")
    (folder / "another").symlink_to("sub")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/back").symlink_to(folder)
    (folder / "out").symlink_to(tmp_path / "out")
    found = story_files(folder, {})
    assert [name for _, name in found.files] == ["b.jsonl", "sub/a.jsonl"]
    assert found.not_read == [f"{name}/ (read already)" for name in ("another", "out/back", "sub/up")]


def test_what_is_not_read_is_named_with_the_count(cli: Cli, folder: Path, tmp_path: Path) -> None:
    for name in ("c.7z", "d.docx", ".hidden.jsonl", "README.txt", "sub/License.txt"):
        (folder / name).write_text("no story")
    for name in (".git", "_temporary"):
        (folder / name).mkdir()
        shutil.copy(folder / "b.jsonl", folder / name / "b.jsonl")
    (folder / "gone.jsonl").symlink_to("nowhere")
    (folder / "round.jsonl").symlink_to("round.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    result = cli("pack", "-w", tmp_path / "w", "--source", folder, *SMALL)
    said = (
        f"source       10 not read in {folder}: .git/ (hidden), .hidden.jsonl (hidden), README.txt, "
        "_temporary/ (unfinished), c.7z, d.docx, gone.jsonl (leads nowhere), pipe.jsonl (a pipe or device), "
        "round.jsonl (leads nowhere), sub/License.txt\n"
    )
    assert said in result.stderr
    assert read_json(tmp_path / "w" / "manifest.json")["corpus"]["splits"]["train"]["stories"] == 60
    assert said in cli("pack", "-w", tmp_path / "w").stderr


def test_a_line_names_the_first_of_many(cli: Cli, folder: Path, tmp_path: Path) -> None:
    for number in range(2000):
        (folder / f"{number:04d}\n.png").touch()
    line = f"source       2,000 not read in {folder}: 0000\\n.png, 0001\\n.png, "
    said = cli("count", "-w", tmp_path / "w", "--source", folder).stderr
    assert line in said
    assert "0019\\n.png and 1,980 more\n" in said


def test_a_readme_alone_is_a_story(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("once upon a time")
    assert names(tmp_path) == ["README.txt"]


def test_a_folder_without_stories_says_what_it_holds(folder: Path) -> None:
    shutil.rmtree(folder / "sub")
    (folder / "b.jsonl").rename(folder / "b.docx")
    with pytest.raises(InputError, match=r"holds no stories \(.*\); not read: b\.docx\."):
        story_files(folder, {})


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Without root's rights, which read everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(("mode", "named"), [(0o000, "sub"), (0o444, "sub/a.jsonl")])  # neither listed, nor entered
def test_a_folder_that_cannot_be_read_is_refused(folder: Path, mode: int, named: str) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        copy = Path(shutil.copytree(folder, Path(open_to_all) / "copy"))
        assert names(copy)
        (copy / "sub").chmod(mode)
        with ordinary_user(), pytest.raises(InputError, match=f"{copy / named}: cannot be read .Permission denied.; "):
            names(copy)
        (copy / "sub").chmod(0o755)


# The workspace inside the source


def test_the_workspace_inside_the_source_is_left_out_and_named(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    command = ("pack", "--source", ".", *SMALL)
    first = cli(*command)
    assert first.exit_code == 0, first.stderr
    before = snapshot(folder / "artifacts")
    again = cli(*command)
    assert f"source       1 not read in {folder}: artifacts/ (the workspace)\n" in again.stderr
    assert "made" not in again.stderr
    assert snapshot(folder / "artifacts") == before
    assert [
        file["name"] for file in read_json(folder / "artifacts/manifest.json")["corpus"]["splits"]["train"]["files"]
    ]
    other = cli(*command, "-w", "other")
    assert f"source       2 not read in {folder}: artifacts/ (a workspace), other/ (the workspace)\n" in other.stderr
    assert snapshot(folder / "other")["token_mapping.json"] == before["token_mapping.json"]


def test_the_workspace_itself_is_no_source(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    before = snapshot(folder)
    result = cli("pack", "-w", tmp_path / "link", "--source", folder, *SMALL)
    assert result.exit_code == 2
    assert f"{folder}: the workspace itself; " in result.stderr
    assert {name: digest for name, digest in snapshot(folder).items() if name != ".lock"} == before
