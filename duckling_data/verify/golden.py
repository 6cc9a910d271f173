"""Golden digests: what identifies the counts, the mapping and the rows of a workspace, kept in a file to compare with.

`duckling-data verify --write-golden FILE` writes such a file; `artifacts/golden/demo.json` is the demo corpus's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.strict_json import read_json, write_json
from duckling_data.stages.context import DATASET_NAMES
from duckling_data.tokens.mapping import MAPPING_FILE
from duckling_data.workspace.manifest import Manifest


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


def golden_differences(manifest: Manifest, golden: Path) -> Iterator[str]:
    """Yield each digest that is not the one in the file `golden`. Raises InputError for a file that holds none."""
    expected = read_json(golden)
    if not isinstance(expected, dict) or not isinstance(expected.get("digests"), dict):
        raise InputError(f"{golden}: not a file of golden digests (an object with `digests`).")
    found = golden_digests(manifest)
    for name in sorted(expected["digests"].keys() | found.keys()):
        if expected["digests"].get(name) != found.get(name):
            yield f"{name} is {found.get(name)}, expected {expected['digests'].get(name)}"


def write_golden(manifest: Manifest, place: Path) -> None:
    """Write the digests of a workspace, and what its source is, to the file `place`.

    Raises InputError if not all stages are made or the folder is not there, OutsideError when the disk fails.
    """
    if not place.absolute().parent.is_dir():
        raise InputError(f"{place}: the folder {place.absolute().parent} is not there. Make it, or name another file.")
    source = (manifest.corpus or {}).get("source")
    write_json(place, {"source": source, "digests": golden_digests(manifest)})
