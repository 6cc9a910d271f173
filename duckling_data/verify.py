"""Checks a workspace: every file hashed again, every digest derived again, the pieces held against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duckling_data.arrow_dir import read_rows
from duckling_data.count import COUNTS_NAME, read_counts
from duckling_data.errors import CheckFailed, DucklingError, InputError
from duckling_data.files import read_json, sha256_file
from duckling_data.manifest import MANIFEST_NAME, Manifest, StageRecord
from duckling_data.mapping import MAPPING_FILE, read_mapping
from duckling_data.progress import Reporter
from duckling_data.stages import DATASET_NAMES


def verify_workspace(workspace: Path, golden: Path | None, reporter: Reporter) -> Iterator[str]:
    """Yield a line for each thing that holds; `golden` is a file that `golden_digests` wrote.

    Raises CheckFailed, naming everything that does not hold, at the end; InputError where there is nothing to check.
    """
    if not (workspace / MANIFEST_NAME).exists():
        raise InputError(
            f"{workspace}: no {MANIFEST_NAME} there, nothing to verify. Make one with `duckling-data run`."
        )
    manifest = Manifest(workspace)
    faults: list[str] = []
    for stage, record in manifest.stages.items():
        if not record.outputs:
            faults.append(f"{stage}: was interrupted and is not whole; run `duckling-data {stage}`")
            continue
        with reporter.bar(f"verify {stage}", sum(output["bytes"] for output in record.outputs.values()), "B") as bar:
            found = list(_damaged_files(workspace, record, bar))
            found = found or list(_content_faults(workspace, manifest, stage, record))
        faults += [f"{stage}: {fault}" for fault in found]
        if not found:
            yield f"{stage:<12} ok: {len(record.outputs)} files"
    if golden:
        differences = list(_golden_differences(manifest, golden))
        faults += differences
        if not differences:
            yield f"golden       ok: all digests are those in {golden}"
    if faults:
        raise CheckFailed("\n".join([f"{workspace}: {len(faults)} of its checks failed", *faults]))


def _damaged_files(workspace: Path, record: StageRecord, bar: Any) -> Iterator[str]:
    for name, expected in record.outputs.items():
        path = workspace / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != expected["bytes"]:
            yield f"{name} has {path.stat().st_size:,} bytes, expected {expected['bytes']:,}"
        elif (found := sha256_file(path)) != expected["sha256"]:
            yield f"{name} has SHA-256 {found}, expected {expected['sha256']}"
        bar.update(expected["bytes"])


def _content_faults(workspace: Path, manifest: Manifest, stage: str, record: StageRecord) -> Iterator[str]:
    """Derive again what the figures say, from files whose bytes are right."""
    try:
        if stage == "count":
            yield from _count_faults(workspace, record)
        if stage == "build-vocab":
            yield from _mapping_faults(workspace, manifest, record)
        if stage == "pack":
            yield from _pack_faults(workspace, manifest, record)
    except (DucklingError, ValueError) as error:
        yield str(error)


def _count_faults(workspace: Path, record: StageRecord) -> Iterator[str]:
    counts = read_counts(workspace / COUNTS_NAME)
    for name, found in (("tokens", counts.total), ("counts_sha256", counts.digest())):
        if found != record.figures[name]:
            yield f"{COUNTS_NAME} gives {name} {found}, the manifest says {record.figures[name]}"


def _mapping_faults(workspace: Path, manifest: Manifest, record: StageRecord) -> Iterator[str]:
    read_mapping(workspace / MAPPING_FILE)
    count = manifest.stages.get("count")
    if count and "counts" in record.inputs and count.figures.get("counts_sha256") != record.inputs["counts"]:
        yield f"{MAPPING_FILE} was made from other counts; run `duckling-data build-vocab`"


def _pack_faults(workspace: Path, manifest: Manifest, record: StageRecord) -> Iterator[str]:
    if not (workspace / MAPPING_FILE).is_file():
        yield f"{MAPPING_FILE} is missing, so the rows cannot be held against it"
        return
    if record.inputs["mapping"] != sha256_file(workspace / MAPPING_FILE):
        yield f"the rows were made with another {MAPPING_FILE}; run `duckling-data pack`"
        return
    live = read_mapping(workspace / MAPPING_FILE)["live_tokens"]
    for split, figures in record.figures["splits"].items():
        name = DATASET_NAMES[split]
        payload, rows = hashlib.sha256(), 0
        for chunk in read_rows(workspace / name):
            payload.update(chunk.data)
            largest = int(chunk.max())
            if largest >= live:
                row, column = (int(place[0]) for place in (chunk >= live).nonzero())
                yield f"{name} row {rows + row:,} column {column}: id {largest}, expected below {live}"
                return
            rows += len(chunk)
        for what, found in (("rows", rows), ("payload_sha256", payload.hexdigest())):
            if found != figures[what]:
                yield f"{name} has {what} {found}, the manifest says {figures[what]}"


def golden_digests(manifest: Manifest) -> dict[str, Any]:
    """Return the digests that identify what a workspace holds: counts, mapping, rows.

    Raises InputError if not all are made.
    """
    try:
        stages = manifest.stages
        splits = stages["pack"].figures["splits"]
        return {
            "counts_sha256": stages["count"].figures["counts_sha256"],
            "mapping_sha256": stages["build-vocab"].outputs[MAPPING_FILE]["sha256"],
        } | {f"{DATASET_NAMES[split]}_payload_sha256": figures["payload_sha256"] for split, figures in splits.items()}
    except KeyError as error:
        raise InputError(f"{manifest.workspace}: {error} is not made. Run `duckling-data run` first.") from error


def _golden_differences(manifest: Manifest, golden: Path) -> Iterator[str]:
    expected = read_json(golden)
    if not isinstance(expected, dict) or not isinstance(expected.get("digests"), dict):
        raise InputError(f"{golden}: not a file of golden digests (an object with `digests`).")
    found = golden_digests(manifest)
    for name in sorted(expected["digests"].keys() | found.keys()):
        if expected["digests"].get(name) != found.get(name):
            yield f"golden: {name} is {found.get(name)}, expected {expected['digests'].get(name)}"
