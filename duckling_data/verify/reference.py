"""The published figures of an original, beside a workspace's own: for who has the real dataset.

The figures are data: `duckling-ii.json`, names and numbers. What a name means in a workspace is said here.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from duckling_data.stages.count import COUNT, CountFigures
from duckling_data.stages.pack import PACK, PackFigures
from duckling_data.stages.vocab import VOCAB, VocabFigures
from duckling_data.tokens.mapping import MAPPING_FILE, read_mapping
from duckling_data.workspace.manifest import Manifest


def reference_lines(manifest: Manifest, name: str) -> list[tuple[str, bool]]:
    """Return a line for each figure of the reference `name`, `... expected 951, found 951`, and whether it holds."""
    expected: dict[str, Any] = json.loads((files(__package__) / f"{name}.json").read_text("utf-8"))["figures"]
    found = found_figures(manifest)
    return [
        (f"{figure:<40} expected {_shown(value)}, found {_shown(found.get(figure))}", found.get(figure) == value)
        for figure, value in expected.items()
    ]


def found_figures(manifest: Manifest) -> dict[str, Any]:
    """Return a workspace's figures under the names of the references. Those of a stage that is not made are absent."""
    found: dict[str, Any] = {}
    for split, described in manifest.corpus.splits.items() if manifest.corpus else ():
        found[f"corpus {split} stories"] = described.stories
        found |= {f"corpus {file.name} bytes": file.bytes for file in described.files}
    if count := manifest.figures(COUNT.name, CountFigures):
        found |= {
            "count stories": count.stories_counted,
            "count tokens": count.tokens,
            "count distinct ids": count.distinct,
        } | {f"ids that cover {level}": ids for level, ids in count.ids_for_coverage.items()}
    if vocab := manifest.figures(VOCAB.name, VocabFigures):
        found |= _mapping_figures(manifest, vocab)
    if pack := manifest.figures(PACK.name, PackFigures):
        rows = pack.splits["train"].rows
        found |= {"rows": rows, "tokens in rows": rows * manifest.stages[PACK.name].settings.get("ctx", 0)}
    return found


def _mapping_figures(manifest: Manifest, figures: VocabFigures) -> dict[str, Any]:
    mapping = read_mapping(manifest.workspace / MAPPING_FILE)
    found: dict[str, float] = {
        f"mapping compact {compact}": gpt2 for compact, gpt2 in enumerate(mapping["live_token_ids"])
    }
    found |= {
        "mapping live ids": mapping["live_tokens"],
        "mapping dead ids": mapping["dead_tokens"],
        "mapping unk_id": mapping["unk_id"],
    }
    if figures.coverage is not None:  # a mapping of the user's own has none
        found["mapping coverage in %, 4 decimals"] = round(100 * figures.coverage, 4)
    return found


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value:,}"
