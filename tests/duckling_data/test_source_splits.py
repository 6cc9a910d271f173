"""Own files as train and validation: by their names, by --validation, or by a hash of each story."""

from __future__ import annotations

import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.sources import open_corpus, wanted_source
from duckling_data.corpus.splits import Corpus
from duckling_data.workspace.source_record import SourceRecord
from tests.support.data import SMALL, Cli, read_json, rows_of, stages_that, verified, write_jsonl

TRAIN, VALIDATION = demo_stories(0, 60).to_pylist(), demo_stories(60, 80).to_pylist()
HUB_TRAIN = "data/train-00000-of-00001-2d5a1467fff1081b.parquet"
HUB_VALIDATION = "data/validation-00000-of-00001-869c898b519ad725.parquet"


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path)
    elif path.suffix == ".txt":
        path.write_text("\n<|endoftext|>\n".join(texts))
    else:
        write_jsonl(path, texts)


def opened(*sources: Path, workspace: Path = Path("none"), **given: Any) -> Corpus:
    empty = SourceRecord(1, [], "text", {})
    wanted = wanted_source(empty, [str(source) for source in sources], None, **given)
    return open_corpus(workspace, wanted, workers=2, offline=True, reporter=Reporter(quiet=True))


def texts(corpus: Corpus) -> dict[str, list[str]]:
    splits = corpus.splits().items()
    return {name: [t for block in split.blocks() for t in block.parse().to_pylist()] for name, split in splits}


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (HUB_TRAIN, HUB_VALIDATION),
        ("TinyStories-train.txt", "TinyStories-valid.txt"),
        ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"),
        ("train.jsonl", "val.jsonl"),
        ("training/a.jsonl", "dev/a.jsonl"),
    ],
)
def test_train_and_validation_are_told_by_their_names(tmp_path: Path, train: str, validation: str) -> None:
    write(tmp_path / "clone" / train, TRAIN)
    write(tmp_path / "clone" / validation, VALIDATION)
    expected = {"train": TRAIN, "validation": VALIDATION}
    assert texts(opened(tmp_path / "clone")) == expected
    parts = [tmp_path / "clone" / name for name in (train, validation)]
    by_hand = [path.parent if path.name == "a.jsonl" else path for path in parts]
    assert texts(opened(*by_hand)) == expected


def test_a_snapshot_of_the_hubs_cache_is_packed_as_two_splits(cli: Cli, tmp_path: Path) -> None:
    for name, content in ((HUB_TRAIN, TRAIN), (HUB_VALIDATION, VALIDATION)):
        write(tmp_path / "blobs" / Path(name).name, content)
        link = tmp_path / "snapshots/f54c" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / "blobs" / Path(name).name)
    result = cli("pack", "-w", tmp_path / "w", "--source", tmp_path / "snapshots/f54c", *SMALL)
    assert "source       files by their names: 1 train, 1 validation\n" in result.stderr
    assert len(rows_of(tmp_path / "w", "tokenized_validation"))
    figures = read_json(tmp_path / "w/manifest.json")["stages"]["pack"]["figures"]["splits"]
    assert {name: split["stories"] for name, split in figures.items()} == {"train": 60, "validation": 20}
    verified(tmp_path / "w")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            [HUB_TRAIN, HUB_VALIDATION, "TinyStories-train.txt"],
            "its train split is there in 2 forms, TinyStories-train",
        ),
        ([HUB_TRAIN, "TinyStories-train.txt"], "its train split is there in 2 forms"),
        (["TinyStories-train.txt", "TinyStoriesV2-GPT4-train.txt"], "its train split is there in 2 forms"),
        (["train.txt", "valid.txt", "valid.txt.gz"], "its validation split is there in 2 forms"),
        (["train.txt", "valid.txt", "more.txt"], "tell splits, but not of more.txt"),
    ],
)
def test_a_folder_whose_splits_are_unclear_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "f" / name, TRAIN[number : number + 3])
    with pytest.raises(InputError, match=f"{tmp_path / 'f'}: .*{says}.*; name .*--validation FILE"):
        opened(tmp_path / "f")


def test_names_that_tell_no_two_splits_are_all_train(tmp_path: Path) -> None:
    for name in ("train-1.jsonl", "trainspotting.jsonl", "valentine.jsonl"):
        write(tmp_path / "f" / name, TRAIN[:3])
    assert texts(opened(tmp_path / "f")) == {"train": TRAIN[:3] * 3}


def test_a_test_split_is_not_trained_on(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "f/train.jsonl", TRAIN)
    write(tmp_path / "f/test.jsonl", VALIDATION)
    assert texts(opened(tmp_path / "f")) == {"train": TRAIN}
    said = cli("count", "-w", tmp_path / "w", "--source", tmp_path / "f").stderr
    assert "source       1 not read of a test split: test.jsonl\n" in said


# --validation


def test_validation_files_are_named_remembered_and_dropped(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "f/a.jsonl", TRAIN)
    write(tmp_path / "f/b.jsonl", VALIDATION)
    w, own = tmp_path / "w", ["--source", tmp_path / "f"]
    result = cli("pack", "-w", w, *own, "--validation", tmp_path / "f/b.jsonl", *SMALL)
    assert f"source       1 not read in {tmp_path / 'f'}: b.jsonl (--validation)\n" in result.stderr
    assert len(rows_of(w, "tokenized_validation"))
    for again in ([], own):
        assert stages_that("made", cli("pack", "-w", w, *again)) == []
    verified(w)
    result = cli("pack", "-w", w, "--validation-share", "0")
    assert stages_that("made", result) == ["count", "build-vocab", "pack"]
    assert "no validation split; --validation PATH or --validation-share 0.01 gives one\n" in result.stderr
    result = cli("inspect", "-w", w, "--validation")
    assert "the source has no validation split; make it with `duckling-data pack --validation PATH`" in result.stderr


def test_validation_that_is_trained_on_or_given_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "f/train.jsonl", TRAIN)
    write(tmp_path / "f/validation.jsonl", VALIDATION)
    shutil.copy(tmp_path / "f/train.jsonl", tmp_path / "copy.jsonl")
    write(tmp_path / "other.jsonl", VALIDATION[:5])
    copy, other, folder = (str(tmp_path / name) for name in ("copy.jsonl", "other.jsonl", "f"))
    with pytest.raises(InputError, match=r"copy\.jsonl: a file of validation with the content of .*train\.jsonl"):
        opened(tmp_path / "f/train.jsonl", validation=[copy])
    for given in ({"validation": [other]}, {"share": 0.1}):
        with pytest.raises(
            InputError, match=r"--validation\S*: the source has a validation split, validation\.jsonl; "
        ):
            opened(tmp_path / "f", **given)
    with pytest.raises(InputError, match=r"f: holds train and validation files, expected validation alone; "):
        opened(Path(other), validation=[folder])
    with pytest.raises(InputError, match=r"--validation: demo has a validation split of its own; "):
        wanted_source(SourceRecord(1, [], "text", {}), ["demo"], None, [other])
    with pytest.raises(InputError, match="--validation and --validation-share exclude each other"):
        opened(Path(copy), validation=[other], share=0.1)


# --validation-share


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match=r"--validation-share .*: expected a share from 0"):
        opened(tmp_path, share=share)


def test_a_hash_of_each_storys_text_decides_and_more_stories_move_none(tmp_path: Path) -> None:
    stories = [*demo_stories(0, 3000).to_pylist(), "", "é 🐈"]

    def expected(all_of_them: list[str]) -> dict[str, list[str]]:
        sides: dict[str, list[str]] = {"train": [], "validation": []}
        for text in all_of_them:
            drawn = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
            sides["validation" if drawn < 0.1 else "train"].append(text)
        return sides

    write(tmp_path / "a.jsonl", stories[:1000])
    few = texts(opened(tmp_path / "a.jsonl", share=0.1))
    assert few == expected(stories[:1000])
    assert 60 < len(few["validation"]) < 140
    write(tmp_path / "b.parquet", stories)  # in another order, format and batch
    more = texts(opened(tmp_path / "b.parquet", tmp_path / "a.jsonl", share=0.1))
    assert more == expected(stories + stories[:1000])


def test_a_divided_source_is_packed_remembered_and_verified(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "f/a.jsonl", demo_stories(0, 150).to_pylist())
    write(tmp_path / "f/b.jsonl", demo_stories(150, 200).to_pylist())
    w = tmp_path / "w"
    result = cli("pack", "-w", w, "--source", tmp_path / "f", "--validation-share", "0.2", *SMALL, "--workers", 3)
    assert result.exit_code == 0, result.stderr
    splits = read_json(w / "manifest.json")["corpus"]["splits"]
    assert sum(split["stories"] for split in splits.values()) == 200
    assert (
        f"source       {splits['validation']['stories']} of 200 stories are validation, by their hash\n"
        in result.stderr
    )
    assert {split["validation_share"] for split in splits.values()} == {0.2}
    assert stages_that("made", cli("pack", "-w", w)) == []
    assert any(line.startswith("corpus       ok: ") and line.endswith(", 2 files") for line in verified(w))
    assert stages_that("made", cli("pack", "-w", w, "--validation-share", "0.3")) == ["count", "build-vocab", "pack"]


def test_a_workspace_without_a_share_records_none(made: Path) -> None:
    for name in ("manifest.json", "corpus/source.json"):
        assert "validation" not in (made / name).read_text()
