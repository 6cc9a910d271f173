"""Golden digests: what identifies the counts, the mapping and the rows of a workspace, kept in a file to compare with.

`duckling-data verify --write-golden FILE` writes such a file; `artifacts/golden/demo.json` is the demo corpus's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from duckling_data.base.errors import InputError
from duckling_data.base.records import changed, read_record
from duckling_data.base.strict_json import write_json
from duckling_data.stages.count import COUNT, CountFigures
from duckling_data.stages.pack import DATASET_NAMES, PACK, PackFigures
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.mapping import MAPPING_FILE
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
        missing = next(stage.name for stage in (COUNT, VOCAB, PACK) if not manifest.made(stage.name))
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
