"""What a workspace is compared with: golden digests kept in a file, and an original's published figures.

`duckling-data verify --write-golden FILE` writes the digests; `artifacts/golden/demo.json` has the demo corpus's. The
figures are data, `duckling-ii.json`: what a name in it means in a workspace is defined here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.records import changed, read_record
from duckling_data.base.strict_json import write_json
from duckling_data.stages.count import COUNT, CountFigures
from duckling_data.stages.pack import PACK
from duckling_data.stages.packer import DATASET_NAMES, PackFigures
from duckling_data.stages.vocab import VOCAB, VocabFigures
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_data.workspace.manifest import Manifest


class _Golden(msgspec.Struct):
    digests: dict[str, str]


def golden_digests(manifest: Manifest) -> dict[str, str]:
    """Return the digests that identify what a workspace holds: counts, mapping, rows.

    Raises InputError if not all are made.
    """
    count, pack = manifest.figures(COUNT.name, CountFigures), manifest.figures(PACK.name, PackFigures)
    vocab = manifest.made(VOCAB.name)
    if not count or not pack or not vocab or MAPPING_FILE not in vocab.outputs:
        missing = next((stage.name for stage in (COUNT, PACK) if not manifest.made(stage.name)), VOCAB.name)
        raise InputError(f"{manifest.workspace}: {missing!r} is not made; run `duckling-data run` first.")
    rows = {f"{DATASET_NAMES[split]}_payload_sha256": made.payload_sha256 for split, made in pack.splits.items()}
    return {"counts_sha256": count.counts_sha256, "mapping_sha256": vocab.outputs[MAPPING_FILE].sha256} | rows


def golden_differences(manifest: Manifest, golden: Path) -> Iterator[str]:
    """Yield each digest that is not the one in the file `golden`. Raises InputError for a file that holds none."""
    expected = read_record(golden, _Golden, "expected a file that `duckling-data verify --write-golden` wrote").digests
    found = golden_digests(manifest)
    for name in sorted(changed(expected, found)):
        yield f"{name} is {found.get(name)}, expected {expected.get(name)}"


def write_golden(manifest: Manifest, path: Path) -> None:
    """Write the digests of a workspace, and what its source is, to the file `path`.

    Raises InputError if not all stages are made or the folder is not there, OutsideError when the disk fails.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder {path.absolute().parent} is not there; make it, or name another file.")
    source = manifest.corpus.source if manifest.corpus else None
    write_json(path, {"source": source, "digests": golden_digests(manifest)})


def reference_lines(manifest: Manifest, name: str) -> list[tuple[str, bool]]:
    """Return a line for each figure of the reference `name`, `... expected 951, found 951`, and whether it holds."""
    expected: dict[str, Any] = json.loads((files(__package__) / f"{name}.json").read_text("utf-8"))["figures"]
    found = _found_figures(manifest)
    shown = {figure: f"{found[figure]:,}" if figure in found else "nothing" for figure in expected}
    return [
        (f"{figure:<40} expected {value:,}, found {shown[figure]}", found.get(figure) == value)
        for figure, value in expected.items()
    ]


def _found_figures(manifest: Manifest) -> dict[str, Any]:
    """Return a workspace's figures under the names of the references. Those of a stage that is not made are absent."""
    found: dict[str, Any] = {}
    for split, described in manifest.corpus.splits.items() if manifest.corpus else ():
        found[f"corpus {split} stories"] = described.stories
        found |= {f"corpus {file.name} bytes": file.bytes for file in described.files}
    if count := manifest.figures(COUNT.name, CountFigures):
        found |= {"count stories": count.stories_counted, "count tokens": count.tokens}
        found |= {"count distinct ids": count.distinct}
        found |= {f"ids that cover {level}": ids for level, ids in count.ids_for_coverage.items()}
    if vocab := manifest.figures(VOCAB.name, VocabFigures):
        mapping = read_mapping(manifest.workspace / MAPPING_FILE)
        found |= {f"mapping compact {compact}": gpt2 for compact, gpt2 in enumerate(mapping["live_token_ids"])}
        found |= {"mapping live ids": vocab.live, "mapping dead ids": vocab.dead, "mapping unk_id": mapping["unk_id"]}
        if vocab.coverage is not None:  # a mapping of the user's own has none
            found["mapping coverage in %, 4 decimals"] = round(100 * vocab.coverage, 4)
    if pack := manifest.figures(PACK.name, PackFigures):
        rows = pack.splits["train"].rows
        found |= {"rows": rows, "tokens in rows": rows * manifest.stages[PACK.name].settings.get("ctx", 0)}
    return found
