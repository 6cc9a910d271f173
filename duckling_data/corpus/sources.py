"""Turns `--source` into a corpus: finds or downloads its files, hashes and counts them, and remembers where they are.

A file of the hub whose SHA-256 is no longer the one that the hub gave with the download is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from duckling_data.base.disk import check_utf8
from duckling_data.base.errors import InputError
from duckling_data.base.executor import LocalExecutor
from duckling_data.base.files import sha256_file
from duckling_data.base.progress import Reporter
from duckling_data.corpus import hub
from duckling_data.corpus.files import CorpusFile, FileState, file_state
from duckling_data.corpus.findings import say_findings
from duckling_data.corpus.folders import Files
from duckling_data.corpus.local import split_files
from duckling_data.corpus.readers import count_stories, file_format
from duckling_data.corpus.readers.blocks import Block, ReadOptions
from duckling_data.corpus.splits import Corpus, DemoSplit, FileSplit, Part
from duckling_data.workspace.source_record import (
    CORPUS,
    DEFAULT_TEXT_FIELD,
    SOURCE_RECORD,
    Findings,
    Measured,
    Newline,
    OnBadLine,
    SourceRecord,
    read_source,
    write_source,
)

DEFAULT_SOURCE = "tinystories"
VALIDATION_SHARE, LEAST_VALIDATION = 100, 10
"""The demo has one validation story to so many stories, as TinyStories has; and so many at least, to fill some rows."""

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def wanted_source(
    remembered: SourceRecord, sources: Sequence[str], text_field: str | None, validation: Sequence[str] = (),
    share: float | None = None, *, newline: Newline | None = None, on_bad_line: OnBadLine | None = None,
) -> SourceRecord:  # fmt: skip
    """Return what is wanted: what is given, else what is remembered, else the default; paths made absolute.

    What is remembered of the validation split, and of how files are read, is that of the sources remembered. Raises
    InputError for a path that is not UTF-8, a URL, a share out of range, and both kinds of validation.
    """
    if validation and share:
        raise InputError("--validation and --validation-share exclude each other: the stories are given or divided.")
    if share is not None and not 0 <= share < 1:
        raise InputError(f"--validation-share {share}: expected a share from 0 (none) to less than 1, such as 0.01.")
    named = [_absolute(source, "--source") for source in sources] or remembered.sources or [DEFAULT_SOURCE]
    wanted = SourceRecord(1, named, text_field or remembered.text_field or DEFAULT_TEXT_FIELD, {})
    same = named == remembered.sources
    wanted.newline = newline or (remembered.newline if same else ReadOptions.newline)
    wanted.on_bad_line = on_bad_line or (remembered.on_bad_line if same else ReadOptions.on_bad_line)
    if validation or share is not None:
        wanted.validation = [_absolute(path, "--validation") for path in validation]
        wanted.validation_share = share or 0.0
    elif same:
        wanted.validation, wanted.validation_share = remembered.validation, remembered.validation_share
    if (option := _validation_option(wanted)) and _builtin(named[0]):
        raise InputError(f"{option}: {named[0]} has a validation split of its own; leave the option out.")
    return wanted


def _absolute(path: str, option: str) -> str:
    if (url := URL.match(path)) and not Path(path).exists():  # only its kind is shown: it may hold a password
        raise InputError(
            f"{option} {url[0]}…: a URL, expected a path, `tinystories` or `demo[:STORIES]`. "
            "Download what it leads to, and give that."
        )
    found = path if option == "--source" and _builtin(path) else str(Path(path).expanduser().absolute())
    check_utf8(found, option)
    return found


def _validation_option(wanted: SourceRecord) -> str | None:
    return "--validation" if wanted.validation else "--validation-share" if wanted.validation_share else None


def open_corpus(
    workspace: Path, wanted: SourceRecord, *, workers: int, offline: bool, reporter: Reporter, recorded: bool = False
) -> Corpus:
    """Return the corpus that is wanted, its files present, hashed and counted.

    With `recorded` they are not hashed again: an earlier command did that, and recorded what they were.
    Raises InputError for a source that is not there or cannot be read, OutsideError if the hub fails, CheckFailed for
    a file of the hub that is not as it was downloaded.
    """
    sources, how = wanted.sources, _how(wanted)
    check_utf8(how.text_field, "--text-field")
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
        named, known = split_files(workspace, wanted, reporter), {}
    earlier = record.measured if recorded else None
    splits = {name: _measure(files, how, record, known, workers, reporter, earlier) for name, files in named.items()}
    if wanted.validation_share:
        splits = _divided(splits["train"], wanted.validation_share, record.counted, workers, reporter)
    corpus = Corpus("tinystories" if builtin else "files", splits["train"], splits.get("validation"))
    say_findings(corpus.files(), reporter)
    for file in corpus.files():
        if (expected := known.get(file.name, file.sha256)) != file.sha256:
            where = workspace / SOURCE_RECORD
            folder = workspace / CORPUS
            hub.refuse(folder, file.name, f"SHA-256 {file.sha256}, expected {expected} ({where})", offline=offline)
    if "validation" in splits and not wanted.validation_share:
        _refuse_shared(splits["train"], splits["validation"])
    return corpus


def _refuse_shared(train: FileSplit, validation: FileSplit) -> None:
    """Raise InputError for a file that is in both splits."""
    trained = {file.sha256: file.path for file in train.files}
    for file in validation.files:
        if file.sha256 in trained:
            raise InputError(
                f"{file.path}: a file of validation with the content of {trained[file.sha256]}, which is trained on; "
                "expected other stories; leave one of them out."
            )


def to_download(workspace: Path, sources: list[str]) -> dict[str, int]:
    """Return the files that the hub would have to send before the corpus can be opened: bytes by name."""
    return hub.missing(hub.TINYSTORIES, workspace / CORPUS) if sources == ["tinystories"] else {}


def remember_source(workspace: Path, wanted: SourceRecord, corpus: Corpus) -> None:
    """Write `corpus/source.json`, if it does not say so already."""
    remembered = read_source(workspace)
    hashes = dict(remembered.hub)
    if corpus.source == "tinystories":
        hashes |= {f"{hub.TINYSTORIES.revision}/{file.name}": file.sha256 for file in corpus.files()}
    how = _how(wanted)
    found = {_count_key(file, how): file.found for file in corpus.files() if file.found != Findings()}
    measured = {str(file.path): Measured(file.bytes, file.state.modified, file.sha256) for file in corpus.files()}
    record = msgspec.structs.replace(
        wanted, counted=counted_stories(corpus), hub=hashes, found=found, measured=measured
    )
    if record != remembered:
        write_source(workspace, record)


def counted_stories(corpus: Corpus) -> dict[str, int]:
    """Return the stories of each of the corpus's files, and of each part, as the source's record keeps them."""
    counted: dict[str, int] = {}
    for split in corpus.splits().values():
        if isinstance(split, FileSplit):
            own = {_count_key(file, split.how): file.stories for file in split.files}
            if split.part:
                counted |= {f"{key} {split.part}": stories for key, stories in own.items()}
                own = {key: counted.get(key, 0) + stories for key, stories in own.items()}
            counted |= own
    return counted


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

    folder = workspace / CORPUS
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


def _how(wanted: SourceRecord) -> ReadOptions:
    return ReadOptions(wanted.text_field, wanted.newline, wanted.on_bad_line)


def _count_key(file: CorpusFile, how: ReadOptions) -> str:
    """Return what a file's count of stories depends on, as the source's record keeps it."""
    suffix, codec = file_format(file.path) or ("", None)
    marks = "+lf" if suffix == ".txt" and how.newline == "lf" else ""
    marks += "+skip" if how.on_bad_line == "skip" else ""
    return f"{file.sha256} {suffix}{codec or ''}{marks} {how.text_field}"


def _measure(
    files: Files, how: ReadOptions, record: SourceRecord, hashes: Mapping[str, str], workers: int, reporter: Reporter,
    earlier: Mapping[str, Measured] | None = None,
) -> FileSplit:  # fmt: skip
    """Return the files as a split: hashed unless `earlier` knows them, counted if this content was not counted before.

    A file that has another SHA-256 than `hashes` says is not read further: it is returned with no stories.
    """

    def measure(named: tuple[Path, str]) -> CorpusFile:
        path, name = named
        try:
            state = file_state(path)
            sha256 = sha256_file(path, bar.update) if earlier is None else _recorded(path, state, earlier)
            file = CorpusFile(path, name, sha256, 0, state)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        if hashes.get(name, file.sha256) != file.sha256:
            return file
        key = _count_key(file, how)
        with file.unchanged():
            stories, found = record.counted.get(key), record.found.get(key, Findings())
            if stories is None:
                found = Findings()
                stories = count_stories(path, how, found)
        if stories == 0:
            raise InputError(f"{path}: empty, it holds no story. Leave it out, or check how it was made.")
        return replace(file, stories=stories, found=found)

    measured = []
    with reporter.bar("hash", sum(path.stat().st_size for path, _ in files), "B") as bar:
        for _, file in LocalExecutor(workers).map(measure, files, ordered=True):
            measured.append(file)
    return FileSplit(tuple(measured), how)


def _recorded(path: Path, state: FileState, earlier: Mapping[str, Measured]) -> str:
    """Return the SHA-256 that a file had. Raises InputError where it is not the one that was hashed."""
    known = earlier.get(str(path))
    if known is None or (known.bytes, known.modified) != state[:2]:
        raise InputError(
            f"{path}: {'not hashed yet' if known is None else 'changed since it was hashed'}; "
            "run `duckling-data download` with the same options first: it hashes and counts the stories once for all."
        )
    return known.sha256


def _divided(
    whole: FileSplit, share: float, counted: Mapping[str, int], workers: int, reporter: Reporter
) -> dict[str, FileSplit]:
    """Return the two parts of the stories, those of validation counted if they were not before."""
    of_train, of_validation = (Part(split, share, workers) for split in ("train", "validation"))
    train, validation = (FileSplit((), whole.how, part) for part in (of_train, of_validation))

    def read(file: CorpusFile) -> Iterator[Block]:
        for block in file.blocks(whole.how):
            bar.update(block.stories)
            yield block

    with reporter.bar("divide", whole.stories, "stories") as bar:
        for file in whole.files:
            stories = counted.get(f"{_count_key(file, whole.how)} {of_validation}")
            if stories is None:
                stories = sum(block.stories for block in of_validation.blocks(read(file)))
            else:
                bar.update(file.stories)
            train = replace(train, files=(*train.files, replace(file, stories=file.stories - stories)))
            validation = replace(validation, files=(*validation.files, replace(file, stories=stories)))
    reporter.say(f"source       {validation.stories:,} of {whole.stories:,} stories are validation, by their hash")
    return {"train": train, "validation": validation}
