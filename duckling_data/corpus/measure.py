"""Hashes and counts the files of a source: a store's only if it is not known as it is, and what was not counted yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from duckling_data.base.errors import InputError
from duckling_data.base.executor import Executor, LocalExecutor, default_workers
from duckling_data.base.files import sha256_file
from duckling_data.base.progress import SILENT, Reporter, nothing
from duckling_data.corpus.files import CorpusFile, FileState, file_state
from duckling_data.corpus.folders import Files
from duckling_data.corpus.readers import file_format
from duckling_data.corpus.readers.blocks import Block, ReadOptions
from duckling_data.corpus.remote.cache import hold
from duckling_data.corpus.remote.store import Place, Remote, RemoteState
from duckling_data.corpus.splits import FileSplit, Part
from duckling_data.workspace.source_record import Findings, RemoteFile, SourceRecord

FEW_BYTES = 1 << 30
"""What is hashed by this process in a second: to start, or to ask, a cluster would take longer."""


def seen(file: Remote, wanted: SourceRecord) -> RemoteFile | None:
    """Return what is remembered of a file, if its store says that it is still the same."""
    known = wanted.remote.get(file.url)
    return known if known and known.tag and (known.bytes, known.tag) == file.state else None


def count_key(file: CorpusFile, how: ReadOptions) -> str:
    """Return what a file's count of stories depends on, as the source's record keeps it."""
    suffix, codec = file_format(file.path) or ("", None)
    marks = "+lf" if suffix == ".txt" and how.newline == "lf" else ""
    marks += "+skip" if how.on_bad_line == "skip" else ""
    return f"{file.sha256} {suffix}{codec or ''}{marks} {how.text_field}"


@dataclass(frozen=True)
class _Measure:
    """Hashes and counts a file; in any process."""

    how: ReadOptions
    record: SourceRecord
    wanted: SourceRecord
    hashes: Mapping[str, str]
    recorded: bool
    done: Callable[[int], object] = nothing
    reporter: Reporter = SILENT

    def __call__(self, named: tuple[Place, str]) -> CorpusFile:
        path, name = named
        if self.recorded and isinstance(path, Remote):
            file = CorpusFile(path, name, self._known(path, path.state), 0, path.state)
        elif isinstance(path, Remote):
            known = seen(path, self.wanted) or hold(path, self.done, self.reporter)  # held until it is counted
            file = CorpusFile(path, name, known.sha256, 0, path.state)
        else:
            try:
                state = file_state(path)
                sha256 = self._known(path, state) if self.recorded else sha256_file(path, self.done)
                file = CorpusFile(path, name, sha256, 0, state)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        if self.hashes.get(name, file.sha256) != file.sha256:
            return file
        key = count_key(file, self.how)
        stories, found = self.record.counted.get(key), self.record.found.get(key, Findings())
        if stories is None:
            found = Findings()
            stories = file.count(self.how, found)
        else:
            file.check_unchanged()
        if stories == 0:
            raise InputError(f"{path}: empty, it holds no story. Leave it out, or check how it was made.")
        return replace(file, stories=stories, found=found)

    def _known(self, path: Place, state: FileState | RemoteState) -> str:
        """Return the SHA-256 that the file had when it was hashed. Raises InputError where it is another file now.

        A store that calls no content by a name is believed: what is read is hashed and compared anyway.
        """
        remote, local = self.record.remote.get(str(path)), self.record.measured.get(str(path))
        known = remote or local
        was = (remote.bytes, remote.tag) if remote else (local.bytes, local.modified) if local else None
        if known is None or was != state[:2]:
            raise InputError(
                f"{path}: {'not hashed yet' if known is None else 'changed since it was hashed'}; run `duckling-data "
                "download` with the same options first: it hashes and counts the stories once for all."
            )
        return known.sha256


def measured_split(
    files: Files, how: ReadOptions, record: SourceRecord, wanted: SourceRecord, hashes: Mapping[str, str],
    executor: Executor, reporter: Reporter, *, recorded: bool = False,
) -> FileSplit:  # fmt: skip
    """Return the files as a split: hashed unless `recorded`, counted if this content was not counted before.

    A file that has another SHA-256 than `hashes` says is not read further: it is returned with no stories.
    """
    measure = _Measure(how, record, wanted, hashes, recorded)
    sizes = [_size(path, wanted) for path, _ in files]
    if not isinstance(executor, LocalExecutor) and sum(sizes) < FEW_BYTES:
        executor = LocalExecutor(default_workers())
    measured = []
    with reporter.bar("hash", sum(sizes), "B") as bar:
        here = isinstance(executor, LocalExecutor)
        if here:
            measure = replace(measure, done=bar.update, reporter=reporter)
        for number, file in executor.map(measure, files, ordered=True):
            measured.append(file)
            bar.update(0 if here else sizes[number])
    return FileSplit(tuple(measured), how)


def _size(path: Place, wanted: SourceRecord) -> int:
    """Return the bytes of a file that are read to hash it: none of a store's that is known."""
    if isinstance(path, Remote):
        return 0 if seen(path, wanted) else path.state.size
    return path.stat().st_size


def divided(
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
            stories = counted.get(f"{count_key(file, whole.how)} {of_validation}")
            if stories is None:
                stories = sum(block.stories for block in of_validation.blocks(read(file)))
            else:
                bar.update(file.stories)
            train = replace(train, files=(*train.files, replace(file, stories=file.stories - stories)))
            validation = replace(validation, files=(*validation.files, replace(file, stories=stories)))
    reporter.say(f"source       {validation.stories:,} of {whole.stories:,} stories are validation, by their hash")
    return {"train": train, "validation": validation}
