"""Checks a workspace: every file hashed again, everything derived again, and all of it compared.

All files are hashed first; only where every one is whole is anything derived again. Nothing is written but a golden
file that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from duckling_data.base.errors import CheckFailed, DucklingError, InputError, OutsideError
from duckling_data.base.progress import Reporter
from duckling_data.base.records import changed, file_faults, plain, short
from duckling_data.corpus.files import SourceChanged
from duckling_data.corpus.local import SourceMissing
from duckling_data.corpus.sources import counted_stories, open_corpus, wanted_source
from duckling_data.corpus.splits import Corpus, FileSplit, Split
from duckling_data.stages import EVERY, NAMES
from duckling_data.stages.base import Context, Stage
from duckling_data.stages.count import COUNT
from duckling_data.stages.pack import PACK
from duckling_data.stages.tokenizer import recorded_base, remembered_base
from duckling_data.stages.vocab import VOCAB, given_mapping, is_given
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.encoders import ENCODERS, not_exact
from duckling_data.verify.derive import Stories, count_faults, mapping_faults, pack_faults
from duckling_data.verify.golden import golden_differences, golden_digests, reference_lines, write_golden
from duckling_data.workspace.manifest import MANIFEST_NAME, SUMS_NAME, CorpusRecord, Manifest, SplitRecord
from duckling_data.workspace.settings import resolve
from duckling_data.workspace.source_record import SOURCE_RECORD, read_source, source_fault

__all__ = ["VerifyRequest", "golden_digests", "verify_workspace", "write_golden"]

CACHES = "cache-*.arrow"
"""What `datasets` leaves in a dataset's directory when a notebook calls `map`, `filter` or `shuffle`."""

ELSEWHERE = "`duckling-data verify --source PATH` checks with a source that is elsewhere"

DERIVED: dict[str, Callable[[Path, Any, Any, Stories], Iterator[str]]] = {
    COUNT.name: count_faults,
    VOCAB.name: mapping_faults,
    PACK.name: pack_faults,
}
"""What derives a stage's outputs again and yields what differs; other stages are checked by their files' hashes."""


@dataclass(frozen=True)
class VerifyRequest:
    """What is to be checked, and how."""

    workspace: Path
    workers: int
    golden: Path | None = None
    """A file of golden digests to compare with."""
    write_golden: Path | None = None
    """A file to write this workspace's golden digests to, if everything holds."""
    reference: str | None = None
    """The name of an original to compare figures with: `duckling-ii`."""
    deep: bool = False
    """Whether the other encoder encodes every story, instead of a sample."""
    encoder: str = "tokenizers"
    """The other encoder: not the one that made the rows."""
    sources: tuple[str, ...] = ()
    """Where the source is now; empty where it is where it was."""
    validation: tuple[str, ...] = ()
    """Where its validation files are now."""


def verify_workspace(request: VerifyRequest, reporter: Reporter) -> Iterator[str]:
    """Yield a line for each thing that holds, and for each figure of a reference.

    Raises CheckFailed, naming everything that does not hold, at the end; InputError where there is nothing to check.
    """
    manifest = _open_manifest(request.workspace)
    if request.golden and request.write_golden:
        raise InputError("--golden and --write-golden exclude each other: the digests are compared or written.")
    golden = list(golden_differences(manifest, request.golden)) if request.golden else []
    check = _Check(request, manifest, reporter)
    # All files first: what is derived from damaged ones would be wrong for that reason alone.
    faults = {"corpus": _found(check.corpus_faults()), "sums": _found(manifest.sums_faults())}
    faults |= {name: _found(check.file_faults(name)) for name in manifest.stages}
    whole = not any(faults.values())
    for name, record in manifest.stages.items():
        faults[name] = faults[name] or _found(check.content_faults(name, derive=whole))
        if not faults[name]:
            yield f"{name:<12} ok: {len(record.outputs)} files{check.how(name, derived=whole)}"
    if not faults["corpus"]:
        splits = manifest.corpus.splits if manifest.corpus else {}
        files = len({(file.name, file.sha256) for split in splits.values() for file in split.files})
        stories = ", ".join(f"{split.stories:,} stories ({name})" for name, split in splits.items())
        yield f"{'corpus':<12} ok: {stories}, {f'{files} files' if files else 'generated'}"
    if not faults["sums"]:
        there = (request.workspace / SUMS_NAME).is_file()
        missing = "is not there; the next command that makes something writes it"
        yield f"{'sums':<12} " + (f"ok: {SUMS_NAME} says what the manifest says" if there else f"{SUMS_NAME} {missing}")
    faults["golden"] = golden
    if request.golden and not golden:
        yield f"{'golden':<12} ok: all digests are those in {request.golden}"
    if request.reference:
        lines: list[str] = []
        faults[request.reference] = _found(_reference_faults(manifest, request.reference, lines))
        yield from lines
    named = [f"{part}: {fault}" for part, found in faults.items() for fault in found]
    if named:
        advice = "; an output that you remove is made again by its command"
        damaged = any(faults[name] for name in manifest.stages)
        failed = f"{request.workspace}: {len(named)} of its checks failed{advice * damaged}."
        raise CheckFailed("\n".join([failed, *named]))
    if request.write_golden:
        write_golden(manifest, request.write_golden)
        yield f"{'golden':<12} wrote {request.write_golden}"


def _open_manifest(workspace: Path) -> Manifest:
    """Return the manifest. Raises InputError where there is none, CheckFailed for a damaged one."""
    if not (workspace / MANIFEST_NAME).exists():
        raise InputError(f"{workspace}: no {MANIFEST_NAME}, nothing to verify; make one with `duckling-data run`.")
    try:
        return Manifest(workspace)
    except InputError as error:
        raise CheckFailed(str(error)) from error


def _found(faults: Iterator[str]) -> list[str]:
    """Return what a check finds; what it cannot read is a fault as well.

    Raises SourceChanged, and OutsideError of a store of the source's: that is no damage.
    """
    found = []
    try:
        for fault in faults:
            found.append(fault)
    except (SourceChanged, OutsideError):
        raise
    except (DucklingError, OSError, ValueError) as error:
        found.append(str(error))
    return found


class _Check:
    """The checks of a workspace's corpus and stages."""

    def __init__(self, request: VerifyRequest, manifest: Manifest, reporter: Reporter) -> None:
        self._request, self._manifest, self._reporter = request, manifest, reporter
        self._corpus: Corpus | None = None
        """The source, once it is found whole."""
        self._stages: dict[str, Stage[Any, Any]] = {stage.name: stage for stage in EVERY}
        if is_given(manifest.stages.get(VOCAB.name)):
            self._stages[VOCAB.name] = given_mapping(None)

    def corpus_faults(self) -> Iterator[str]:
        """Yield what differs between the source's files, their record and the manifest: the first of each split."""
        request = self._request
        elsewhere = request.sources, request.validation
        corpus = open_remembered(self._manifest, request.workers, self._reporter, *elsewhere)
        found, recorded = corpus.describe(), self._manifest.corpus or CorpusRecord("no source", {})
        if found.source != recorded.source or found.splits.keys() != recorded.splits.keys():
            names = (f"{c.source} with {', '.join(c.splits) or 'no split'}" for c in (found, recorded))
            yield f"{SOURCE_RECORD} names {', expected '.join(names)} as in manifest.json"
            return
        differing = False
        for name, split in corpus.splits().items():
            for fault in islice(_split_faults(name, split, recorded.splits[name]), 1):
                differing = True
                yield fault
        counted, remembered = counted_stories(corpus), read_source(request.workspace)
        for key in changed(remembered.counted if remembered.sources else counted, counted)[:1]:
            differing = True
            yield f"{SOURCE_RECORD} counts other stories under {short(key)} than its {counted.get(key, 'no')} stories"
        if not differing and (damage := source_fault(request.workspace)):
            yield f"{SOURCE_RECORD} {damage}; name its stories with --source, and any command writes it again"
        self._corpus = None if differing else corpus

    def file_faults(self, name: str) -> Iterator[str]:
        """Yield what is wrong with a stage's files and their record, and each file that the stage did not make.

        Hidden files and the caches of `datasets` may be there.
        """
        if name not in self._stages:
            yield f"{MANIFEST_NAME}: unknown stage, expected one of {', '.join(NAMES)}"
            return
        stage, record, workspace = self._stages[name], self._manifest.stages[name], self._request.workspace
        if not record.outputs:
            yield f"was interrupted and is not whole; run `duckling-data {name}`"
            return
        with self._reporter.bar(f"verify {name}", sum(made.bytes for made in record.outputs.values()), "B") as bar:
            for file, fault in file_faults(workspace, record.outputs, done=bar.update):
                yield f"{file} {fault}"
        for path in sorted(path for output in stage.outputs for path in (workspace / output).rglob("*")):
            file, kept = path.relative_to(workspace).as_posix(), path.match(CACHES) or path.name.startswith(".")
            if path.is_file() and file not in record.outputs and not kept:
                yield f"{file} was added, `duckling-data {name}` did not make it; move it away"
        resolve(stage.settings, {}, record.settings)
        self._manifest.figures(name, stage.figures)

    def content_faults(self, name: str, *, derive: bool) -> Iterator[str]:
        """Yield what does not hold of a stage's content, whose files are whole."""
        stage, record = self._stages[name], self._manifest.stages[name]
        if self._corpus is None or name not in DERIVED:
            return
        settings = resolve(stage.settings, {}, record.settings).value
        base = self._base if derive else recorded_base(self._manifest)
        context = Context(
            self._manifest, self._corpus.describe(), self._corpus.digests(), {}, self._reporter, base=base
        )
        for other in changed(record.inputs, stage.inputs(context, settings)):
            yield f"{stage.outputs[0]} was made before its input {short(other)} changed; run `duckling-data {name}`"
            return
        if derive:
            figures = self._manifest.figures(name, stage.figures)
            yield from DERIVED[name](self._request.workspace, settings, figures, self._stories)

    @cached_property
    def _base(self) -> BaseTokenizer:
        return remembered_base(self._manifest)

    @cached_property
    def _stories(self) -> Stories:
        """The stories, for all stages: an encoder is loaded once."""
        assert self._corpus is not None
        other = self._request.encoder
        usual = next(encoder for encoder in ENCODERS if encoder != other)
        alone = self._request.deep or (usual == "gigatoken" and not_exact(self._base) is not None)
        main, sample = (other, None) if alone else (usual, other)
        return Stories(self._corpus, self._request.workers, self._reporter, main, sample, self._base)

    def how(self, name: str, *, derived: bool) -> str:
        """Return how a stage's content was checked, for its line."""
        if name not in DERIVED:
            return ""
        if is_given(self._manifest.stages[name]):
            return ", a mapping of your own"
        if not derived:
            return f", not derived again: {'other files are' if self._corpus else 'its source is'} not as recorded"
        if name != PACK.name:
            return ", derived again"
        return f", every row derived again by {self._stories}; dead ids in them: 0"


def _reference_faults(manifest: Manifest, name: str, lines: list[str]) -> Iterator[str]:
    """Add a line for each figure of the reference to `lines`; yield how many differ, if any do."""
    compared = reference_lines(manifest, name)
    lines += [f"{name:<12} {'ok: ' if holds else 'NO: '}{line}" for line, holds in compared]
    differing = [" ".join(line.split()) for line, holds in compared if not holds]
    if differing:
        yield f"{len(differing)} of {len(compared)} figures differ, the first: {differing[0]}"


def open_remembered(
    manifest: Manifest, workers: int, reporter: Reporter, sources: Sequence[str] = (), validation: Sequence[str] = ()
) -> Corpus:
    """Return the corpus that `corpus/source.json` remembers, its files hashed; nothing is downloaded.

    `sources` and `validation` say where its files are now, if they were moved. Raises InputError or CheckFailed where
    the record or a file is missing or cannot be read.
    """
    record = read_source(manifest.workspace)
    if not record.sources:
        if not sources:
            raise InputError(
                f"{SOURCE_RECORD} is missing; `duckling-data download --source SOURCE` writes it again, {ELSEWHERE}"
            )
        train = manifest.corpus.splits.get("train") if manifest.corpus else None
        if train is not None:  # what the manifest keeps of it
            record.text_field = train.text_field or record.text_field
            record.validation_share = train.validation_share or 0.0
    record.sources = wanted_source(record, sources, None).sources
    record.validation = wanted_source(record, (), None, validation).validation
    record.remote = {}  # all is fetched and hashed again, whatever a store says of it
    try:
        return open_corpus(manifest.workspace, record, workers=workers, offline=True, reporter=reporter)
    except (SourceChanged, OutsideError):
        raise
    except SourceMissing as error:
        raise CheckFailed(f"{error} {SOURCE_RECORD} says that it is there; if it was moved, {ELSEWHERE}") from error
    except DucklingError as error:
        raise CheckFailed(f"{error} (named by {SOURCE_RECORD})") from error


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
