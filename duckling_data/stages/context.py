"""The stages as the pipeline runs them: files in, files out, sizes, hashes and figures for the manifest."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.files import write_bytes
from duckling_data.base.progress import Reporter
from duckling_data.stages.count import CountSettings, count_tokens, occurring_ids
from duckling_data.stages.counts_file import COUNTS_NAME, read_counts, write_counts
from duckling_data.stages.pack import PackedSplit, PackSettings, check_rows_room, pack_split
from duckling_data.stages.vocab import VocabSettings, build_mapping, mapping_figures
from duckling_data.tokens.encoding import EncodedSplit
from duckling_data.tokens.mapping import MAPPING_FILE, TokenMapping, check_mapping, mapping_bytes, read_mapping
from duckling_data.workspace.manifest import Manifest, describe_output

DATASET_NAMES = {"train": "tokenized_dataset", "validation": "tokenized_validation"}
REPORT_NAME = "report"

SETTINGS: dict[str, type] = {"count": CountSettings, "build-vocab": VocabSettings, "pack": PackSettings}
PLACES = {
    "count": (COUNTS_NAME,),
    "build-vocab": (MAPPING_FILE,),
    "pack": tuple(DATASET_NAMES.values()),
    "report": (REPORT_NAME,),
}
"""What each stage writes, inside the workspace."""

Made = tuple[dict[str, dict[str, Any]], dict[str, Any]]
"""(size and SHA-256 of each output, figures)."""


@dataclass(frozen=True)
class Context:
    """Where and with what a stage works."""

    workspace: Path
    encoded: Mapping[str, EncodedSplit]
    """The corpus's splits by name, to be encoded where they are needed."""
    manifest: Manifest
    reporter: Reporter
    begin: Callable[[str], None]
    """To be called with the stage's name when its outputs are about to be replaced, the heavy work being done."""


def count(context: Context, settings: CountSettings) -> Made:
    """Make `token_counts.parquet`."""
    counts, figures = count_tokens(context.encoded["train"], settings, context.reporter)
    context.begin("count")
    write_counts(context.workspace / COUNTS_NAME, counts)
    return _described(context, COUNTS_NAME), figures


def build_vocab(context: Context, settings: VocabSettings) -> Made:
    """Make `token_mapping.json`. Raises CheckFailed for counts that are no longer those that were counted."""
    counts = read_counts(context.workspace / COUNTS_NAME)
    if counts.digest() != context.manifest.stages["count"].figures["counts_sha256"]:
        raise CheckFailed(
            f"{context.workspace / COUNTS_NAME}: changed since `duckling-data count` made it. "
            "Remove it and run the command again."
        )
    occurring = None
    if settings.unk == "decompose":
        record = context.manifest.stages["count"]
        if record.settings["sample"] == "all" or record.settings["sample"] >= context.encoded["train"].split.stories:
            occurring = counts.gpt2_id
        else:  # the sample may lack tokens that the corpus holds, and losslessness is about the corpus
            occurring = occurring_ids(context.encoded["train"], context.reporter)
    mapping = build_mapping(counts, settings, occurring)
    check_mapping(mapping, "the mapping just built")
    context.begin("build-vocab")
    write_bytes(context.workspace / MAPPING_FILE, mapping_bytes(mapping))
    return _described(context, MAPPING_FILE), mapping_figures(mapping, counts)


@dataclass(frozen=True)
class GivenMapping:
    """A mapping of the user's own, checked."""

    content: bytes
    mapping: TokenMapping

    @property
    def sha256(self) -> str:
        """The SHA-256 of its bytes, in hex."""
        return hashlib.sha256(self.content).hexdigest()


def read_given_mapping(path: Path) -> GivenMapping:
    """Return a mapping of the user's own. Raises InputError for one that is no mapping."""
    mapping = read_mapping(path)
    return GivenMapping(path.read_bytes(), mapping)


def adopt_mapping(context: Context, given: GivenMapping) -> Made:
    """Make `token_mapping.json` a copy, byte for byte, of a mapping of the user's own."""
    context.begin("build-vocab")
    write_bytes(context.workspace / MAPPING_FILE, given.content)
    figures = {"live": given.mapping["live_tokens"], "dead": given.mapping["dead_tokens"]}
    return _described(context, MAPPING_FILE), figures


def check_own_mapping(manifest: Manifest) -> None:
    """Raise InputError if `token_mapping.json` is not the file that the manifest knows."""
    record = manifest.stages.get("build-vocab")
    path = manifest.workspace / MAPPING_FILE
    if record is None or not record.outputs or not path.exists():
        return
    given = read_given_mapping(path)
    if given.sha256 != record.outputs[MAPPING_FILE]["sha256"]:
        raise InputError(
            f"{path}: changed since `duckling-data build-vocab` made it. To work with a mapping of your own, keep it "
            "elsewhere and give it with --mapping FILE; to build it again, remove this one."
        )


def pack(context: Context, settings: PackSettings) -> Made:
    """Make `tokenized_dataset/`, and `tokenized_validation/` where there is a validation split."""
    mapping = read_given_mapping(context.workspace / MAPPING_FILE).mapping
    if counted := context.manifest.stages.get("count"):
        check_rows_room(context.workspace, context.encoded, counted.figures)
    packed: dict[str, PackedSplit] = {}
    try:
        for split, encoded in context.encoded.items():
            place = context.workspace / DATASET_NAMES[split]
            packed[split] = pack_split(encoded, split, mapping, settings, place, context.reporter)
    except BaseException:
        for finished in packed.values():
            finished.writer.discard()
        raise
    # Only now, with every row written, is what was there before given up.
    context.begin("pack")
    outputs: dict[str, dict[str, Any]] = {}
    for split, name in DATASET_NAMES.items():
        if split in packed:
            packed[split].writer.put_in_place()
            outputs |= {f"{name}/{file}": described for file, described in packed[split].writer.outputs.items()}
        else:  # left by another source
            with disk_errors(context.workspace / name):
                shutil.rmtree(context.workspace / name, ignore_errors=True)
    return outputs, {"splits": {split: result.figures for split, result in packed.items()}}


def report(context: Context) -> Made:
    """Make `report/`: the plots and the page."""
    from duckling_data.stages.report import draw_report, write_report

    files = draw_report(context.workspace, context.manifest, context.reporter)
    context.begin("report")
    write_report(context.workspace, files)
    return _described(context, *(f"{REPORT_NAME}/{file}" for file in files)), {}


def refuse_foreign(manifest: Manifest, stage: str) -> None:
    """Raise InputError if something that this workspace did not make stands where the stage would write."""
    if stage in manifest.stages:
        return
    for place in PLACES[stage]:
        if (manifest.workspace / place).exists():
            raise InputError(
                f"{manifest.workspace / place}: there already, but not made by this workspace. "
                "Move it away, or use another --workspace; a mapping of your own is given with --mapping FILE."
            )


def _described(context: Context, *names: str) -> dict[str, dict[str, Any]]:
    return {name: describe_output(context.workspace / name) for name in names}


def made_places(outputs: Iterable[str]) -> str:
    """Return the places that the outputs stand in, for a person: `a, b`."""
    return ", ".join(dict.fromkeys(name.split("/")[0] + "/" * ("/" in name) for name in outputs))


def summary(stage: str, figures: dict[str, Any]) -> str:
    """Return a stage's main figures in a few words."""
    if stage == "count":
        return (
            f"{figures['tokens']:,} tokens, {figures['distinct']:,} distinct, of {figures['stories_counted']:,} stories"
        )
    if stage == "build-vocab":
        covered = f", covering {figures['coverage']:.4%}" if "coverage" in figures else ""
        return f"{figures['live']:,} live and {figures['dead']:,} dead ids{covered}"
    if stage == "pack":
        rows = ", ".join(f"{f['rows']:,} rows ({name})" for name, f in figures["splits"].items())
        return f"{rows}, unknown tokens {figures['splits']['train']['unknown_rate']:.4%}"
    return "open report/index.html"
