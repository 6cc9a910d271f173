"""What a workspace holds: its source, and each stage with settings, files and main figures. No output is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.records import file_faults
from duckling_data.stages import EVERY
from duckling_data.stages.base import Stage
from duckling_data.stages.shards import SHARDS, shards_made
from duckling_data.stages.tokenizer import TOKENIZER
from duckling_data.stages.vocab import VOCAB, given_mapping, is_given
from duckling_data.tokens.store import KEPT, kept_bytes
from duckling_data.workspace.manifest import MANIFEST_NAME, Manifest
from duckling_data.workspace.source_record import read_source


def workspace_status(workspace: Path) -> dict[str, Any]:
    """Return `{"source": [...], "stages": {name: {"state": ..., "shards": ..., ...}}, "kept_tokens": {split: bytes}}`.

    A stage is "made", "incomplete" (a file is missing or has another size), "interrupted" or "not made". While it is
    being made in shards, "shards" says how many are made; else it is empty. Files are not hashed, as `verify` does.
    Raises InputError where there is no workspace, and for a damaged record.
    """
    if not (workspace / MANIFEST_NAME).exists() and not (workspace / SHARDS).exists():
        raise InputError(f"{workspace}: no {MANIFEST_NAME}; expected a workspace; make one with `duckling-data run`.")
    manifest, stages = Manifest(workspace), {}
    for stage in EVERY:
        if stage is TOKENIZER and stage.name not in manifest.stages:
            continue  # with GPT-2 there is no such stage
        shards = [{"made": made, "of": count} for made, count in shards_made(workspace, stage.name)]
        stages[stage.name] = _stage_status(manifest, stage) | {"shards": shards}
    return {"source": read_source(workspace).sources, "stages": stages, "kept_tokens": kept_bytes(workspace)}


def _stage_status(manifest: Manifest, stage: Stage[Any, Any]) -> dict[str, Any]:
    record = manifest.made(stage.name)
    if record is None:
        return {"state": "interrupted" if stage.name in manifest.stages else "not made"}
    if stage is VOCAB and is_given(record):
        stage = given_mapping(None)
    faults = [f"{name} {fault}" for name, fault in file_faults(manifest.workspace, record.outputs, content=False)]
    return {
        "state": "incomplete" if faults else "made",
        "faults": faults,
        "files": len(record.outputs),
        "bytes": sum(made.bytes for made in record.outputs.values()),
        "settings": record.settings,
        "summary": stage.summary(manifest.figures(stage.name, stage.figures)),
    }


def status_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield `workspace_status` as lines for a person."""
    yield f"{'source':<12} {', '.join(found['source']) or 'none remembered'}"
    for name, stage in found["stages"].items():
        line = f"{name:<12} {stage['state']}"
        if "files" in stage:
            line += f": {stage['summary']} [{stage['files']:,} files, {stage['bytes'] / 1e6:,.1f} MB]"
        shards = ", ".join(f"{shard['made']:,} of {shard['of']:,} shards made" for shard in stage["shards"])
        yield f"{line}; {shards}" if shards else line
        yield from (f"{'':<12} {fault}" for fault in stage.get("faults", ()))
    if kept := found["kept_tokens"]:
        yield f"{'tokens':<12} kept: {', '.join(kept)} [{sum(kept.values()) / 1e6:,.1f} MB, {KEPT}/, removable]"
