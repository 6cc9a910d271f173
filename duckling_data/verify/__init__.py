"""Checks a workspace: every file hashed again, everything derived again, the pieces held against each other.

    hashes.py     files that are missing, other than they were made, or added
    derive.py     the counts from the stories, the mapping from the counts
    rows.py       the rows from the stories and the mapping
    golden.py     digests kept in a file
    reference.py  an original's published figures, `duckling-ii.json`

Nothing is written but a golden file that was asked for. All files are hashed first; only where every one is whole is
anything derived again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from duckling_data.base.errors import CheckFailed, DucklingError, InputError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.splits import Corpus
from duckling_data.tokens.encoders import ENCODERS
from duckling_data.verify.derive import Stories, count_faults, mapping_faults
from duckling_data.verify.golden import golden_differences, golden_digests, write_golden
from duckling_data.verify.hashes import added_files, corpus_faults, damaged_outputs, open_remembered
from duckling_data.verify.reference import reference_lines
from duckling_data.verify.rows import pack_faults
from duckling_data.workspace.manifest import MANIFEST_NAME, Manifest, StageRecord
from duckling_data.workspace.sums import SUMS_NAME, sums_faults

__all__ = ["VerifyRequest", "golden_digests", "verify_workspace", "write_golden"]


AGAIN = ". An output that you remove is made again by its command."

ERRORS = (DucklingError, OSError, LookupError, TypeError, ValueError, AttributeError)
"""What damaged content leads to, where it is read."""


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
    # All files first: what is derived from damaged ones would be wrong for that reason alone.
    found, corpus = _corpus_faults(request, manifest, reporter)
    faults = {"corpus": found, "sums": _sums_faults(request.workspace)}
    for stage, record in manifest.stages.items():
        faults[stage] = _file_faults(request.workspace, stage, record, reporter)
    stories = None if any(faults.values()) or corpus is None else _stories(request, corpus, reporter)
    for stage, record in manifest.stages.items():
        if not faults[stage]:
            counts_whole = not faults.get("count")
            faults[stage] = _content_faults(request.workspace, manifest, stage, record, stories, counts_whole)
        if not faults[stage]:
            yield f"{stage:<12} ok: {len(record.outputs)} files{_derived_line(stage, record, stories)}"
    if not faults["corpus"]:
        yield f"{'corpus':<12} ok: {_corpus_line(manifest)}"
    if not faults["sums"]:
        yield f"{'sums':<12} {_sums_line(request.workspace)}"
    if request.golden:
        faults["golden"] = golden
        if not golden:
            yield f"{'golden':<12} ok: all digests are those in {request.golden}"
    if request.reference:
        lines, faults[request.reference] = _reference_lines(manifest, request.reference)
        yield from lines
    named = [f"{part}: {fault}" for part, found in faults.items() for fault in found]
    if named:
        raise CheckFailed("\n".join([f"{request.workspace}: {len(named)} of its checks failed{AGAIN}", *named]))
    if request.write_golden:
        write_golden(manifest, request.write_golden)
        yield f"{'golden':<12} wrote {request.write_golden}"


def _open_manifest(workspace: Path) -> Manifest:
    """Return the manifest. Raises InputError where there is none, CheckFailed for a damaged one."""
    if not (workspace / MANIFEST_NAME).exists():
        raise InputError(
            f"{workspace}: no {MANIFEST_NAME} there, nothing to verify. Make one with `duckling-data run`."
        )
    try:
        return Manifest(workspace)
    except InputError as error:
        raise CheckFailed(str(error)) from error


def _corpus_faults(request: VerifyRequest, manifest: Manifest, reporter: Reporter) -> tuple[list[str], Corpus | None]:
    """Return what is wrong with the source's files and their record, and the corpus where it could be opened."""
    try:
        corpus = open_remembered(request.workspace, request.workers, reporter)
        return list(corpus_faults(request.workspace, manifest, corpus)), corpus
    except ERRORS as error:
        return [_said(error)], None


def _stories(request: VerifyRequest, corpus: Corpus, reporter: Reporter) -> Stories:
    usual = next(encoder for encoder in ENCODERS if encoder != request.encoder)
    main, other = (request.encoder, None) if request.deep else (usual, request.encoder)
    return Stories(corpus, request.workers, reporter, main, other)


def _file_faults(workspace: Path, stage: str, record: StageRecord, reporter: Reporter) -> list[str]:
    if not record.outputs:
        return [f"was interrupted and is not whole; run `duckling-data {stage}`"]
    try:
        with reporter.bar(f"verify {stage}", sum(output["bytes"] for output in record.outputs.values()), "B") as bar:
            return [*damaged_outputs(workspace, record, bar), *added_files(workspace, stage, record)]
    except ERRORS as error:
        return [_said(error)]


def _content_faults(
    workspace: Path, manifest: Manifest, stage: str, record: StageRecord, stories: Stories | None, counts_whole: bool
) -> list[str]:
    """Return what does not hold of a stage's content, whose files are whole."""
    try:
        if stage == "count":
            return list(count_faults(workspace, record, stories))
        if stage == "build-vocab":
            return list(mapping_faults(workspace, manifest, record, stories, counts_whole=counts_whole))
        if stage == "pack":
            return list(pack_faults(workspace, record, stories))
    except ERRORS as error:
        return [_said(error)]
    return []


def _sums_faults(workspace: Path) -> list[str]:
    try:
        return list(sums_faults(workspace))
    except ERRORS as error:
        return [_said(error)]


def _reference_lines(manifest: Manifest, name: str) -> tuple[list[str], list[str]]:
    """Return a line for each figure of the reference, and what is wrong in one."""
    try:
        lines = reference_lines(manifest, name)
    except ERRORS as error:
        return [], [_said(error)]
    differing = [" ".join(line.split()) for line, holds in lines if not holds]
    summed = [f"{len(differing)} of {len(lines)} figures differ, the first: {differing[0]}"] if differing else []
    return [f"{name:<12} {'ok: ' if holds else 'NO: '}{line}" for line, holds in lines], summed


def _said(error: Exception) -> str:
    """Return an error as a fault: ours speak for themselves, any other comes of a manifest that no stage wrote."""
    if isinstance(error, DucklingError | OSError):
        return str(error)
    return f"{MANIFEST_NAME} is not as a stage writes it ({type(error).__name__}: {error})"


def _corpus_line(manifest: Manifest) -> str:
    splits = (manifest.corpus or {"splits": {}})["splits"]
    files = sum(len(split.get("files", ())) for split in splits.values())
    stories = ", ".join(f"{split['stories']:,} stories ({name})" for name, split in splits.items())
    return f"{stories}, {f'{files} files' if files else 'generated'}"


def _sums_line(workspace: Path) -> str:
    if (workspace / SUMS_NAME).is_file():
        return f"ok: {SUMS_NAME} says what the manifest says"
    return f"{SUMS_NAME} is not there; the next command that makes something writes it"


def _derived_line(stage: str, record: StageRecord, stories: Stories | None) -> str:
    """Return how much of a stage was derived again, for its line."""
    if stage == "report":
        return ""
    if "given" in record.settings:
        return ", a mapping of your own"
    if stories is None:
        return ", not derived again: other files are damaged"
    if stage != "pack":
        return ", derived again"
    sample = f", a sample also by {stories.other}" if stories.other else ""
    return f", every row derived again by {stories.main}{sample}"
