"""Turns `--source` into a corpus: finds or downloads its files, hashes and counts them, and remembers where they are.

A file of the hub whose SHA-256 is no longer the one that the hub gave with the download is refused. A file of a store
is not fetched where the store calls its content what it was called when it was hashed and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import msgspec

from duckling_data.base.disk import check_utf8
from duckling_data.base.errors import InputError
from duckling_data.base.executor import Executor, LocalExecutor
from duckling_data.base.progress import SILENT, Reporter
from duckling_data.corpus import hub
from duckling_data.corpus.files import FileState
from duckling_data.corpus.findings import say_findings
from duckling_data.corpus.folders import Files
from duckling_data.corpus.local import split_files
from duckling_data.corpus.measure import count_key, divided, measured_split, seen
from duckling_data.corpus.readers.blocks import ReadOptions
from duckling_data.corpus.remote.store import Remote, check_url, kind_of
from duckling_data.corpus.splits import Corpus, DemoSplit, FileSplit
from duckling_data.workspace.source_record import (
    CORPUS,
    DEFAULT_TEXT_FIELD,
    SOURCE_RECORD,
    Findings,
    Measured,
    Newline,
    OnBadLine,
    RemoteFile,
    SourceRecord,
    read_source,
    source_fault,
    write_source,
)

DEFAULT_SOURCE = "tinystories"
VALIDATION_SHARE, LEAST_VALIDATION = 100, 10
"""The demo has one validation story to so many stories, as TinyStories has; and so many at least, to fill some rows."""

FILE_URL = re.compile(r"file://(?:localhost)?(/.*)", re.DOTALL)


def wanted_source(
    remembered: SourceRecord, sources: Sequence[str], text_field: str | None, validation: Sequence[str] = (),
    share: float | None = None, *, newline: Newline | None = None, on_bad_line: OnBadLine | None = None,
) -> SourceRecord:  # fmt: skip
    """Return what is wanted: what is given, else what is remembered, else the default; paths made absolute.

    What is remembered of the validation split, and of how files are read, is that of the sources remembered. Raises
    InputError for a path that is not UTF-8, a URL that cannot be used or holds a secret, a share out of range, and both
    kinds of validation.
    """
    if validation and share:
        raise InputError("--validation and --validation-share exclude each other: the stories are given or divided.")
    if share is not None and not 0 <= share < 1:
        raise InputError(f"--validation-share {share}: expected a share from 0 (none) to less than 1, such as 0.01.")
    named = [absolute(source, "--source") for source in sources] or remembered.sources or [DEFAULT_SOURCE]
    wanted = SourceRecord(1, named, text_field or remembered.text_field or DEFAULT_TEXT_FIELD, {})
    same = named == remembered.sources
    wanted.newline = newline or (remembered.newline if same else ReadOptions.newline)
    wanted.on_bad_line = on_bad_line or (remembered.on_bad_line if same else ReadOptions.on_bad_line)
    wanted.remote = remembered.remote
    if validation or share is not None:
        wanted.validation = [absolute(path, "--validation") for path in validation]
        wanted.validation_share = share or 0.0
    elif same:
        wanted.validation, wanted.validation_share = remembered.validation, remembered.validation_share
    if (option := _validation_option(wanted)) and _builtin(named[0]):
        raise InputError(f"{option}: {named[0]} has a validation split of its own; leave the option out.")
    return wanted


def absolute(path: str, option: str) -> str:
    """Return a path made absolute, or a URL as it is; `file://` leads to a path."""
    if kind_of(path) and not Path(path).exists():
        if not (local := FILE_URL.fullmatch(path)):
            check_url(path, option)
            return path
        path = unquote(local[1])
    found = path if option == "--source" and _builtin(path) else str(Path(path).expanduser().absolute())
    check_utf8(found, option)
    return found


def refuse_urls(wanted: SourceRecord) -> None:
    """Raise InputError for a source that is a URL, which `--offline` forbids."""
    for source in (*wanted.sources, *wanted.validation):
        if kind_of(source):
            raise InputError(
                f"{source}: a URL, and --offline forbids the network; expected a path; leave --offline out, or "
                "download what the URL leads to."
            )


def _validation_option(wanted: SourceRecord) -> str | None:
    return "--validation" if wanted.validation else "--validation-share" if wanted.validation_share else None


def open_corpus(
    workspace: Path, wanted: SourceRecord, *, workers: int, offline: bool, reporter: Reporter,
    executor: Executor | None = None, recorded: bool = False,
) -> Corpus:  # fmt: skip
    """Return the corpus that is wanted, its files present, hashed and counted, by threads unless an executor is given.

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
    executor = executor or LocalExecutor(workers)
    splits = {
        name: measured_split(files, how, record, wanted, known, executor, reporter, recorded=recorded)
        for name, files in named.items()
    }
    if wanted.validation_share:
        splits = divided(splits["train"], wanted.validation_share, record.counted, workers, reporter)
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


def to_download(workspace: Path, wanted: SourceRecord) -> dict[str, int]:
    """Return the files that would have to come before the corpus can be opened: bytes by name or URL."""
    if wanted.sources == ["tinystories"]:
        return hub.missing(hub.TINYSTORIES, workspace / CORPUS)
    if not any(map(kind_of, (*wanted.sources, *wanted.validation))):
        return {}
    files = [place for named in split_files(workspace, wanted, SILENT).values() for place, _ in named]
    return {str(file): file.state.size for file in files if isinstance(file, Remote) and not seen(file, wanted)}


def remember_source(workspace: Path, wanted: SourceRecord, corpus: Corpus) -> None:
    """Write `corpus/source.json`, if it does not say so already."""
    remembered = read_source(workspace)
    hashes = dict(remembered.hub)
    if corpus.source == "tinystories":
        hashes |= {f"{hub.TINYSTORIES.revision}/{file.name}": file.sha256 for file in corpus.files()}
    how = _how(wanted)
    found = {count_key(file, how): file.found for file in corpus.files() if file.found != Findings()}
    remote, measured = {}, {}
    for file in corpus.files():
        if isinstance(file.state, FileState):
            measured[str(file.path)] = Measured(file.bytes, file.state.modified, file.sha256)
        elif isinstance(file.path, Remote):
            remote[file.path.url] = RemoteFile(*file.state, file.sha256)
    record = msgspec.structs.replace(
        wanted, counted=counted_stories(corpus), hub=hashes, found=found, remote=remote, measured=measured
    )
    if record != remembered or source_fault(workspace):
        write_source(workspace, record)


def counted_stories(corpus: Corpus) -> dict[str, int]:
    """Return the stories of each of the corpus's files, and of each part, as the source's record keeps them."""
    counted: dict[str, int] = {}
    for split in corpus.splits().values():
        if isinstance(split, FileSplit):
            own = {count_key(file, split.how): file.stories for file in split.files}
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
