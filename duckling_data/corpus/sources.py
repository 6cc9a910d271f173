"""Turns `--source` into a corpus: finds or downloads its files, hashes and counts them, and remembers where they are.

A file of the hub whose SHA-256 is no longer the one that the hub gave with the download is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from duckling_data.base.disk import check_utf8, make_directory
from duckling_data.base.errors import InputError
from duckling_data.base.executor import LocalExecutor
from duckling_data.base.files import sha256_file
from duckling_data.base.progress import Reporter
from duckling_data.corpus import hub
from duckling_data.corpus.files import CorpusFile, file_state
from duckling_data.corpus.folders import Files, identity, listed, story_files
from duckling_data.corpus.readers import READABLE, count_stories, file_format
from duckling_data.corpus.splits import Corpus, DemoSplit, FileSplit
from duckling_data.workspace.source_record import SOURCE_RECORD, SourceRecord, read_source, write_source

DEFAULT_SOURCE = "tinystories"
VALIDATION_SHARE, LEAST_VALIDATION = 100, 10
"""The demo has one validation story to so many stories, as TinyStories has; and so many at least, to fill some rows."""

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def absolute_sources(sources: Iterable[str]) -> list[str]:
    """Return the sources with paths made absolute. Raises InputError for a path that is not UTF-8, and for a URL."""
    found = []
    for source in sources:
        if (url := URL.match(source)) and not Path(source).exists():  # only its kind is shown: it may hold a password
            raise InputError(
                f"--source {url[0]}…: a URL, expected a path, `tinystories` or `demo[:STORIES]`. "
                "Download what it leads to, and give that."
            )
        found.append(source if _builtin(source) else str(Path(source).expanduser().absolute()))
        check_utf8(found[-1], "--source")
    return found


def open_corpus(
    workspace: Path, sources: list[str], text_field: str, *, workers: int, offline: bool, reporter: Reporter
) -> Corpus:
    """Return the corpus that the sources name, its files present, hashed and counted.

    Raises InputError for a source that is not there or cannot be read, OutsideError if the hub fails, CheckFailed for
    a file of the hub that is not as it was downloaded.
    """
    check_utf8(text_field, "--text-field")
    record = read_source(workspace)
    builtin = [source for source in sources if _builtin(source)]
    if builtin and len(sources) > 1:
        raise InputError(f"--source {builtin[0]} stands alone: it cannot be joined with other sources.")
    if builtin and builtin[0] != "tinystories":
        stories = _demo_stories(builtin[0])
        validation = max(LEAST_VALIDATION, stories // VALIDATION_SHARE)
        return Corpus("demo", DemoSplit("train", stories), DemoSplit("validation", validation))
    if builtin:
        named, known = _hub_files(workspace, record, offline, reporter)
    else:
        named, known = {"train": _local_files(sources, workspace, reporter)}, {}
    splits = {
        name: _measure(files, text_field, record.counted, known, workers, reporter) for name, files in named.items()
    }
    corpus = Corpus("tinystories" if builtin else "files", splits["train"], splits.get("validation"))
    for file in corpus.files():
        if (expected := known.get(file.name, file.sha256)) != file.sha256:
            where = workspace / SOURCE_RECORD
            hub.refuse(file.path, f"SHA-256 {file.sha256}, expected {expected} ({where})", offline=offline)
    return corpus


def to_download(workspace: Path, sources: list[str]) -> dict[str, int]:
    """Return the files that the hub would have to send before the corpus can be opened: bytes by name."""
    return hub.missing(hub.TINYSTORIES, workspace / "corpus") if sources == ["tinystories"] else {}


def remember_source(workspace: Path, sources: list[str], text_field: str, corpus: Corpus) -> None:
    """Write `corpus/source.json`, if it does not say so already."""
    remembered = read_source(workspace)
    hashes = dict(remembered.hub)
    if corpus.source == "tinystories":
        hashes |= {f"{hub.TINYSTORIES.revision}/{file.name}": file.sha256 for file in corpus.files()}
    record = SourceRecord(1, sources, text_field, counted_stories(corpus), hashes)
    if record != remembered:
        write_source(workspace, record)


def counted_stories(corpus: Corpus) -> dict[str, int]:
    """Return the stories of each of the corpus's files, as the source's record keeps them."""
    return {
        _count_key(file, split.text_field): file.stories
        for split in corpus.splits().values()
        if isinstance(split, FileSplit)
        for file in split.files
    }


def _hub_files(
    workspace: Path, record: SourceRecord, offline: bool, reporter: Reporter
) -> tuple[dict[str, Files], dict[str, str]]:
    """Return the hub's files by split, downloaded where missing, and the SHA-256 that they should have by name.

    What the hub says of a file's hash is recorded before the file is in place.
    """
    known = record.known(hub.TINYSTORIES.revision)

    def learn(name: str, sha256: str) -> None:
        if known.get(name) != sha256:
            known[name] = record.hub[f"{hub.TINYSTORIES.revision}/{name}"] = sha256
            write_source(workspace, record)

    folder = workspace / "corpus"
    if not offline:
        make_directory(folder)
    found = hub.fetch(hub.TINYSTORIES, folder, offline=offline, reporter=reporter, known=known, learn=learn)
    return {split: [(path, path.relative_to(folder).as_posix()) for path in found[split]] for split in found}, known


def _builtin(source: str) -> bool:
    return source in ("tinystories", "demo") or source.startswith("demo:")


def _demo_stories(source: str) -> int:
    from duckling_data.corpus.demo import DEFAULT_STORIES

    if source == "demo":
        return DEFAULT_STORIES
    number = source.removeprefix("demo:").replace("_", "")
    if not re.fullmatch("[0-9]{1,12}", number) or int(number) == 0:
        raise InputError(f"--source {source}: expected demo:STORIES with a number of stories from 1 up.")
    return int(number)


def _local_files(sources: list[str], workspace: Path, reporter: Reporter) -> Files:
    """Return each file that the sources name, folders in sorted order; say what is not read, and which links lead out.

    A workspace inside a folder is not read.
    """
    own = identity(workspace)
    files: Files = []
    for path in map(Path, sources):
        if path.is_dir():
            if identity(path) == own:
                raise InputError(
                    f"{path}: the workspace itself; expected stories that are kept apart from what is made of them; "
                    "name files in it or a folder in it, or another --workspace."
                )
            found = story_files(path, {own: "the workspace"} if own else {})
            if found.not_read:
                reporter.say(f"source       {len(found.not_read):,} not read in {path}: {listed(found.not_read)}")
            if count := len(found.outside):
                links = (
                    f"{count:,} links lead out of {path} and are" if count > 1 else f"1 link leads out of {path} and is"
                )
                reporter.say(f"source       {links} followed: {listed(found.outside)}")
            files += found.files
        elif not path.exists():
            raise InputError(
                f"{path}: no such file or folder. --source takes a path, `tinystories` or `demo[:STORIES]`."
            )
        elif file_format(path) is None:
            raise InputError(f"{path}: not a kind of file that holds stories ({READABLE}).")
        else:
            files.append((path, path.name))
    return files


def _count_key(file: CorpusFile, text_field: str) -> str:
    """Return what a file's count of stories depends on, as the source's record keeps it."""
    return f"{file.sha256} {''.join(filter(None, file_format(file.path) or ()))} {text_field}"


def _measure(
    files: Files, text_field: str, counted: Mapping[str, int], hashes: Mapping[str, str], workers: int,
    reporter: Reporter,
) -> FileSplit:  # fmt: skip
    """Return the files as a split: hashed every time, counted if this content was not counted before.

    A file that has another SHA-256 than `hashes` says is not read further: it is returned with no stories.
    """

    def measure(named: tuple[Path, str]) -> CorpusFile:
        path, name = named
        try:
            state = file_state(path)
            file = CorpusFile(path, name, sha256_file(path), 0, state)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        if hashes.get(name, file.sha256) != file.sha256:
            return file
        with file.unchanged():
            stories = counted.get(_count_key(file, text_field))
            if stories is None:
                stories = count_stories(path, text_field)
        if stories == 0:
            raise InputError(f"{path}: empty, it holds no story. Leave it out, or check how it was made.")
        return replace(file, stories=stories)

    measured = []
    with reporter.bar("hash", sum(path.stat().st_size for path, _ in files), "B") as bar:
        for _, file in LocalExecutor(workers).map(measure, files, ordered=True):
            measured.append(file)
            bar.update(file.bytes)
    return FileSplit(tuple(measured), text_field)
