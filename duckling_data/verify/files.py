"""Files compared with their records: the outputs of the stages, and the source's files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from duckling_data.base.progress import Reporter
from duckling_data.base.records import changed, file_faults, plain
from duckling_data.corpus import sources
from duckling_data.corpus.splits import Corpus, FileSplit, Split
from duckling_data.stages.base import Stage
from duckling_data.workspace.manifest import CorpusRecord, Manifest, SplitRecord, StageRecord
from duckling_data.workspace.source_record import SOURCE_RECORD, read_source

CACHES = "cache-*.arrow"
"""What `datasets` leaves in a dataset's directory when a notebook calls `map`, `filter` or `shuffle`."""


def output_faults(workspace: Path, stage: Stage[Any, Any], record: StageRecord, reporter: Reporter) -> Iterator[str]:
    """Yield each output of a stage that is not as recorded, and each file among them that the stage did not make.

    Hidden files and the caches of `datasets` may be there.
    """
    if not record.outputs:
        yield f"was interrupted and is not whole; run `duckling-data {stage.name}`"
        return
    size = sum(output.bytes for output in record.outputs.values())
    with reporter.bar(f"verify {stage.name}", size, "B") as bar:
        for name, fault in file_faults(workspace, record.outputs, done=bar.update):
            yield f"{name} {fault}"
    for output in stage.outputs:
        for path in sorted((workspace / output).rglob("*")):
            name = path.relative_to(workspace).as_posix()
            if path.is_file() and name not in record.outputs and not (path.match(CACHES) or path.name.startswith(".")):
                yield f"{name} was added, `duckling-data {stage.name}` did not make it; move it away"


def open_remembered(workspace: Path, workers: int, reporter: Reporter) -> Corpus:
    """Return the corpus that `corpus/source.json` remembers, its files hashed; nothing is downloaded.

    Raises InputError or CheckFailed where the record or a file is missing or cannot be read.
    """
    record = read_source(workspace)
    if not record.sources:
        raise InputError(f"{SOURCE_RECORD} is missing; `duckling-data download --source SOURCE` writes it again")
    try:
        return sources.open_corpus(
            workspace, record.sources, record.text_field, workers=workers, offline=True, reporter=reporter
        )
    except DucklingError as error:
        raise CheckFailed(f"{error} (named by {SOURCE_RECORD})") from error


def corpus_faults(manifest: Manifest, corpus: Corpus) -> Iterator[str]:
    """Yield what differs between the source's files, `corpus/source.json` and the manifest: the first of each split."""
    found, recorded = corpus.describe(), manifest.corpus or CorpusRecord("no source", {})
    if found.source != recorded.source or found.splits.keys() != recorded.splits.keys():
        yield f"{SOURCE_RECORD} names {_named(found)}, expected {_named(recorded)} as in manifest.json"
        return
    for name, split in corpus.splits().items():
        yield from islice(_split_faults(name, split, recorded.splits[name]), 1)
    counted = sources.counted_stories(corpus)
    for key in changed(read_source(manifest.workspace).counted, counted)[:1]:
        yield f"{SOURCE_RECORD} counts other stories under {key!r} than its {counted.get(key, 'no')} stories"


def _split_faults(name: str, split: Split, recorded: SplitRecord) -> Iterator[str]:
    there, here = plain(recorded), plain(split.describe())
    files = split.files if isinstance(split, FileSplit) else ()
    for file, found, expected in zip(files, here.get("files", ()), there.get("files", ()), strict=False):
        for key in changed(expected, found):
            where = f"{SOURCE_RECORD}: {file.path}" if key == "stories" else file.path
            yield f"{where} has {key} {found[key]}, expected {expected[key]} as in manifest.json"
    for key in changed(there, here):
        if key == "files":
            yield f"the source has {len(here[key])} files, expected {len(there.get(key, ()))} as in manifest.json"
        else:
            yield f"the source's {name} split has {key} {here.get(key)}, expected {there.get(key)} as in manifest.json"


def _named(corpus: CorpusRecord) -> str:
    return f"{corpus.source} with {', '.join(corpus.splits) or 'no split'}"
