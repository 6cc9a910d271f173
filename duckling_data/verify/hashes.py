"""What hashing finds: an output that is missing, another, or not the workspace's; a source file that has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from duckling_data.base.files import sha256_file
from duckling_data.base.progress import Reporter
from duckling_data.corpus import sources
from duckling_data.corpus.splits import Corpus, FileSplit
from duckling_data.stages.context import PLACES
from duckling_data.workspace.manifest import Manifest, StageRecord
from duckling_data.workspace.source_record import SOURCE_RECORD, read_source

CACHES = "cache-*.arrow"
"""What `datasets` leaves in a dataset's directory when a notebook calls `map`, `filter` or `shuffle`."""


def damaged_outputs(workspace: Path, record: StageRecord, bar: Any) -> Iterator[str]:
    """Yield each output of a stage that is missing, of another size or of another SHA-256."""
    for name, expected in record.outputs.items():
        path = workspace / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != expected["bytes"]:
            yield f"{name} has {path.stat().st_size:,} bytes, expected {expected['bytes']:,}"
        elif (found := sha256_file(path)) != expected["sha256"]:
            yield f"{name} has SHA-256 {found}, expected {expected['sha256']}"
        bar.update(expected["bytes"])


def added_files(workspace: Path, stage: str, record: StageRecord) -> Iterator[str]:
    """Yield each file in a stage's directories that the stage did not make. Hidden files and caches may lie there."""
    for place in PLACES.get(stage, ()):
        for path in sorted((workspace / place).rglob("*")):
            name = path.relative_to(workspace).as_posix()
            if path.is_file() and name not in record.outputs and not (path.match(CACHES) or path.name.startswith(".")):
                yield f"{name} was added: `duckling-data {stage}` did not make it"


def open_remembered(workspace: Path, workers: int, reporter: Reporter) -> Corpus:
    """Return the corpus that `corpus/source.json` remembers, its files hashed; nothing is downloaded.

    Raises InputError or CheckFailed where the record or a file is missing or cannot be read.
    """
    record = read_source(workspace)
    if not record.sources:
        raise InputError(f"{SOURCE_RECORD} is missing; `duckling-data download --source SOURCE` writes it again")
    named, field = record.sources, record.text_field
    try:
        return sources.open_corpus(workspace, named, field, workers=workers, offline=True, reporter=reporter)
    except DucklingError as error:
        raise CheckFailed(f"{error} (named by {SOURCE_RECORD})") from error


def corpus_faults(workspace: Path, manifest: Manifest, corpus: Corpus) -> Iterator[str]:
    """Yield what differs between the source's files, `corpus/source.json` and the manifest: the first of each split."""
    described = manifest.corpus or {"source": None, "splits": {}}
    if corpus.source != described["source"] or corpus.splits().keys() != described["splits"].keys():
        yield f"{SOURCE_RECORD} names {_named(corpus.describe())}, the manifest {_named(described)}"
        return
    for name, split in corpus.splits().items():
        found, expected = split.describe(), described["splits"][name]
        differing = [key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]
        if isinstance(split, FileSplit) and differing and "text_field" not in differing:
            yield from _file_faults(split, expected.get("files", []))
        elif differing:
            said, shown = expected.get(differing[0]), found.get(differing[0])
            yield f"the source's {name} split has {differing[0]} {shown}, the manifest says {said}"
    yield from _record_faults(workspace, corpus)


def _file_faults(split: FileSplit, expected: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the first difference between a split's files and those in the manifest."""
    for file, said in zip(split.files, expected, strict=False):
        for key in ("name", "bytes", "sha256", "stories"):
            if getattr(file, key) != said.get(key):
                where = f"{SOURCE_RECORD}: {file.path}" if key == "stories" else file.path
                yield f"{where} has {key} {getattr(file, key)}, the manifest says {said.get(key)}"
                return
    if len(split.files) != len(expected):
        yield f"the source has {len(split.files)} files, the manifest lists {len(expected)}"


def _record_faults(workspace: Path, corpus: Corpus) -> Iterator[str]:
    """Yield the first count of stories that `corpus/source.json` should hold and does not, or holds and should not."""
    expected = sources.counted_stories(corpus)
    found = read_source(workspace).counted
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            yield f"{SOURCE_RECORD} counts {found.get(key)} stories under {key!r}, expected {expected.get(key)}"
            return


def _named(described: dict[str, Any]) -> str:
    return f"{described['source']} with {', '.join(described['splits']) or 'no split'}"
