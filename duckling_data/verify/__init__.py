"""Checks a workspace: every file hashed again, everything derived again, and all of it compared.

    files.py      files that are missing, other than they were made, or added
    derive.py     the counts from the stories, the mapping from the counts
    rows.py       the rows from the stories and the mapping
    golden.py     digests kept in a file
    reference.py  an original's published figures, `duckling-ii.json`

Nothing is written but a golden file that was asked for. All files are hashed first; only where every one is whole is
anything derived again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from duckling_data.base.progress import Reporter
from duckling_data.base.records import changed
from duckling_data.corpus.splits import Corpus
from duckling_data.stages import NAMES, STAGES
from duckling_data.stages.base import Context, Stage
from duckling_data.stages.count import COUNT
from duckling_data.stages.given import given_mapping, is_given
from duckling_data.stages.pack import PACK
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.encoders import ENCODERS
from duckling_data.verify.derive import Stories, count_faults, mapping_faults
from duckling_data.verify.files import corpus_faults, open_remembered, output_faults
from duckling_data.verify.golden import golden_differences, golden_digests, write_golden
from duckling_data.verify.reference import reference_lines
from duckling_data.verify.rows import pack_faults
from duckling_data.workspace.manifest import MANIFEST_NAME, SUMS_NAME, Manifest
from duckling_data.workspace.settings import resolve

__all__ = ["VerifyRequest", "golden_digests", "verify_workspace", "write_golden"]

DERIVED: dict[str, Callable[[Path, Any, Any, Stories], Iterator[str]]] = {
    COUNT.name: count_faults,
    VOCAB.name: mapping_faults,
    PACK.name: pack_faults,
}
"""What derives a stage's outputs again, from (workspace, settings, figures, stories), and yields what differs.

A stage that is not here is checked by the hashes of its files."""


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
    """Whether the other encoder makes every row again, instead of a sample."""
    encoder: str = "tokenizers"
    """The other encoder: not the one that made the rows."""


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
        yield f"{'corpus':<12} ok: {_corpus_line(manifest)}"
    if not faults["sums"]:
        yield f"{'sums':<12} {_sums_line(request.workspace)}"
    if request.golden:
        faults["golden"] = golden
        if not golden:
            yield f"{'golden':<12} ok: all digests are those in {request.golden}"
    if request.reference:
        lines: list[str] = []
        faults[request.reference] = _found(_reference_faults(manifest, request.reference, lines))
        yield from lines
    named = [f"{part}: {fault}" for part, found in faults.items() for fault in found]
    if named:
        failed = f"{request.workspace}: {len(named)} of its checks failed; an output that you remove is made again by "
        raise CheckFailed("\n".join([f"{failed}its command.", *named]))
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
    """Return what a check finds; what it cannot read is a fault as well."""
    found = []
    try:
        for fault in faults:
            found.append(fault)
    except (DucklingError, OSError, ValueError) as error:
        found.append(str(error))
    return found


class _Check:
    """The checks of a workspace's corpus and stages."""

    def __init__(self, request: VerifyRequest, manifest: Manifest, reporter: Reporter) -> None:
        self._request = request
        self._manifest = manifest
        self._reporter = reporter
        self._corpus: Corpus | None = None
        """The source, once it is found whole."""
        self._stages: dict[str, Stage[Any, Any]] = {stage.name: stage for stage in STAGES}
        if is_given(manifest.stages.get(VOCAB.name)):
            self._stages[VOCAB.name] = given_mapping(None)

    def corpus_faults(self) -> Iterator[str]:
        """Yield what is wrong with the source's files and their record."""
        corpus = open_remembered(self._request.workspace, self._request.workers, self._reporter)
        found = list(corpus_faults(self._manifest, corpus))
        self._corpus = None if found else corpus
        yield from found

    def file_faults(self, name: str) -> Iterator[str]:
        """Yield what is wrong with a stage's files and their record."""
        if name not in self._stages:
            yield f"{MANIFEST_NAME}: unknown stage, expected one of {', '.join(NAMES)}"
            return
        stage, record = self._stages[name], self._manifest.stages[name]
        yield from output_faults(self._request.workspace, stage, record, self._reporter)
        resolve(stage.settings, {}, record.settings)
        self._manifest.figures(name, stage.figures)

    def content_faults(self, name: str, *, derive: bool) -> Iterator[str]:
        """Yield what does not hold of a stage's content, whose files are whole."""
        stage, record = self._stages[name], self._manifest.stages[name]
        if self._corpus is None or name not in DERIVED:
            return
        settings = resolve(stage.settings, {}, record.settings).value
        context = Context(self._manifest, self._corpus.describe(), self._corpus.digests(), {}, self._reporter)
        for other in changed(record.inputs, stage.inputs(context, settings)):
            yield f"{stage.outputs[0]} was made before its input {other!r} changed; run `duckling-data {name}`"
            return
        if derive:
            figures = self._manifest.figures(name, stage.figures)
            yield from DERIVED[name](self._request.workspace, settings, figures, self._stories)

    @cached_property
    def _stories(self) -> Stories:
        """The stories, for all stages: an encoder is loaded once."""
        assert self._corpus is not None
        other = self._request.encoder
        usual = next(encoder for encoder in ENCODERS if encoder != other)
        main, sample = (other, None) if self._request.deep else (usual, other)
        return Stories(self._corpus, self._request.workers, self._reporter, main, sample)

    def how(self, name: str, *, derived: bool) -> str:
        """Return how a stage's content was checked, for its line."""
        if name not in DERIVED:
            return ""
        if is_given(self._manifest.stages[name]):
            return ", a mapping of your own"
        if not derived:
            return ", not derived again: other files are damaged"
        return ", derived again" if name != PACK.name else f", every row derived again by {self._stories}"


def _reference_faults(manifest: Manifest, name: str, lines: list[str]) -> Iterator[str]:
    """Add a line for each figure of the reference to `lines`; yield how many differ, if any do."""
    compared = reference_lines(manifest, name)
    lines += [f"{name:<12} {'ok: ' if holds else 'NO: '}{line}" for line, holds in compared]
    differing = [" ".join(line.split()) for line, holds in compared if not holds]
    if differing:
        yield f"{len(differing)} of {len(compared)} figures differ, the first: {differing[0]}"


def _corpus_line(manifest: Manifest) -> str:
    splits = manifest.corpus.splits if manifest.corpus else {}
    files = sum(len(split.files) for split in splits.values())
    stories = ", ".join(f"{split.stories:,} stories ({name})" for name, split in splits.items())
    return f"{stories}, {f'{files} files' if files else 'generated'}"


def _sums_line(workspace: Path) -> str:
    if (workspace / SUMS_NAME).is_file():
        return f"ok: {SUMS_NAME} says what the manifest says"
    return f"{SUMS_NAME} is not there; the next command that makes something writes it"
